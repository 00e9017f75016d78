"""A grid over the options of drawing, read from texts such as "guidance=1,1.5,2" and checked."""

import dataclasses
import glob
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from unnoise.config.load import from_dict, nearest, parse_yaml, to_dict
from unnoise.config.requests import GenerateRequest

MODEL = "model"
OF_THE_COMMAND = ("n", "first", "batch_size", "device")
"""Options that change no picture: how many, and how the work is done."""
OPTIONS = tuple(f.name for f in dataclasses.fields(GenerateRequest) if f.name not in OF_THE_COMMAND)
"""Options of drawing that change pictures: what a grid may hold besides the model."""


@dataclass(frozen=True)
class Axis:
    """One option and the values it takes."""

    name: str
    texts: tuple[str, ...]
    """The values as they were written."""
    values: tuple[Any, ...]


@dataclass(frozen=True)
class Cell:
    """One combination of values."""

    model: str
    request: GenerateRequest
    texts: dict[str, str]
    """Axis -> the value it has here, as it was written."""

    def name(self, axes: Iterable[str]) -> str:
        """Such as "guidance=2, steps=25", of the axes named."""
        return ", ".join(f"{axis}={self.texts[axis]}" for axis in axes)


def read_axes(texts: Sequence[str]) -> tuple[Axis, ...]:
    """The axes of "name=value,value" texts. ValueError for an option that there is not names the nearest."""
    axes = tuple(map(_axis, texts))
    for axis in axes:
        if sum(other.name == axis.name for other in axes) > 1:
            raise ValueError(f"--grid names {axis.name} twice; give all its values at once")
    return axes


def with_options(request: GenerateRequest, texts: Sequence[str]) -> GenerateRequest:
    """The request with "name=value" options that are the same everywhere."""
    values = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"--set {text}: write it as name=value, such as --set steps=25")
        _check_name(name.strip(), "--set", OPTIONS)
        values[name.strip()] = _value(name.strip(), value.strip())
    return from_dict(GenerateRequest, to_dict(request) | values)


def cells(models: Sequence[str], axes: Sequence[Axis], base: GenerateRequest) -> Iterator[Cell]:
    """Every combination, one model after the other."""
    plain = to_dict(base)
    for model in models:
        for chosen in itertools.product(*(range(len(axis.values)) for axis in axes)):
            picked = list(zip(axes, chosen, strict=True))
            request = from_dict(GenerateRequest, plain | {a.name: a.values[k] for a, k in picked})
            yield Cell(model, request, {MODEL: model} | {a.name: a.texts[k] for a, k in picked})


def _axis(text: str) -> Axis:
    name, equals, listed = (part.strip() for part in text.partition("="))
    if not equals:
        raise ValueError(f"--grid {text}: write it as option=value,value, such as --grid guidance=1,2,4")
    _check_name(name, "--grid", (MODEL, *OPTIONS))
    texts = [value for value in split(listed) if value]
    if name == MODEL:
        texts = [path for value in texts for path in sorted(glob.glob(value)) or [value]]
    if not texts:
        raise ValueError(f"--grid {name}= has no values; write them as {name}=value,value")
    doubled = next((value for value in texts if texts.count(value) > 1), None)
    if doubled:
        raise ValueError(f"--grid {name} has the value {doubled} twice; name each once")
    values = tuple(texts) if name == MODEL else tuple(_value(name, value) for value in texts)
    return Axis(name, tuple(texts), values)


def _check_name(name: str, option: str, known: Sequence[str]) -> None:
    if name in OF_THE_COMMAND:
        raise ValueError(f"{option} {name}: {name} changes no picture; it is an option of the command itself")
    if name not in known:
        raise ValueError(
            f"{option} {name}: no such option{nearest(name, known)} (there are: {', '.join(known)})"
        )


def split(listed: str) -> list[str]:
    """Values between semicolons where there are any, else between commas outside of brackets."""
    if ";" in listed:
        return [value.strip() for value in listed.split(";")]
    parts, depth = [""], 0
    for letter in listed:
        depth += (letter == "[") - (letter == "]")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [value.strip() for value in parts]


def _value(name: str, text: str) -> Any:
    """A value as the option's own type: of the text itself, of what it says in YAML, or a list of one."""
    problem: ValueError | None = None
    for read in (lambda: text, lambda: parse_yaml(f"value: {text}")["value"], lambda: [text]):
        try:
            return getattr(from_dict(GenerateRequest, {name: read()}), name)
        except ValueError as error:
            problem = problem or error
    assert problem is not None
    raise problem
