"""Settings from YAML, dictionaries and `a.b=c` overrides; an unknown key or a wrong value is an error."""

import copy
import dataclasses
import difflib
import functools
import types
import typing
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError

from unnoise.config.kinds import kind_of, members

FORMAT = 1
"""Of config.yaml and of a model file's settings; a larger one was written by a newer unnoise."""

LARGEST_SEED = 2**63 - 1
LARGEST = {
    **dict.fromkeys(("depth", "transformer_depth", "layers", "channel_mult"), 1000),
    **dict.fromkeys(("width", "widths", "context_width", "class_width"), 2**20),
    **dict.fromkeys(("latent_channels", "inner_channels"), 2**20),
}
"""What no network has more of; a file, ours or another's, may say anything."""
LEVELS = 32

T = TypeVar("T")
Assignment = str | tuple[str, Any]
"""One override: the text "a.b=c", its value read as YAML, or the pair ("a.b", value)."""


class _Loader(yaml.SafeLoader):
    """YAML in which only true and false are booleans (`off` is a word of ours, as in `compile: off`), no
    mapping has a key twice, whose first value would be lost silently, and nothing is of a type that no
    setting has: dates are text, sets and the like are refused.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A mapping as a dictionary."""
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        twice = next((key for key in keys if keys.count(key) > 1), None)
        if twice is not None:
            raise yaml.constructor.ConstructorError(
                None, None, f"{twice} is there twice; name each once", node.start_mark
            )
        return super().construct_mapping(node, deep)


_YAML = "tag:yaml.org,2002:"
_TYPES = (None, *(f"{_YAML}{name}" for name in ("null", "bool", "int", "float", "str", "seq", "map")))
_Loader.yaml_constructors = {tag: yaml.SafeLoader.yaml_constructors[tag] for tag in _TYPES}
_Loader.yaml_implicit_resolvers = {
    first: [
        (tag, rule)
        for tag, rule in rules
        if tag in (*_TYPES, f"{_YAML}merge") and (tag != f"{_YAML}bool" or first in "tTfF")
    ]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _read_yaml(text: str) -> Any:
    """What a YAML text says. ValueError with its fault and where that is."""
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise ValueError(f"{place}{error.problem}") from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except (yaml.YAMLError, ValueError, KeyError) as error:  # the last two of numbers and !!bool
        raise ValueError(" ".join(str(error).split())) from None


def _dataclasses_in(annotation: Any) -> set[type]:
    """All dataclasses that an annotation reaches, through unions, tuples and their own fields."""
    if dataclasses.is_dataclass(annotation) and isinstance(annotation, type):
        found: set[type] = {annotation}
        for hint in typing.get_type_hints(annotation).values():
            found |= _dataclasses_in(hint)
        return found
    return {cls for argument in typing.get_args(annotation) for cls in _dataclasses_in(argument)}


@functools.cache
def _adapter(cls: Any) -> TypeAdapter[Any]:
    rules = ConfigDict(extra="forbid", coerce_numbers_to_str=True, allow_inf_nan=False)
    for reached in _dataclasses_in(cls):
        reached.__pydantic_config__ = rules  # type: ignore[attr-defined]
    return TypeAdapter(cls)


def from_dict(cls: type[T], values: Mapping[str, Any], *, where: str = "") -> T:
    """A settings object from plain data; ValueError names the key, the value and the rule."""
    if not isinstance(values, Mapping):
        raise ValueError(f"{where or 'the settings'}: {values!r:.40} are no settings by name; mend the file")
    try:
        validated: T = _adapter(typing.cast(Any, cls)).validate_python(dict(values))
    except ValidationError as error:
        raise ValueError(_explain(cls, error, where)) from None
    _check_sizes(validated, f"{where}: " if where else "")
    return validated


def _check_sizes(config: Any, place: str) -> None:
    """Refuse numbers, here and in settings inside, that would be found too large only after long."""
    for field in dataclasses.fields(config) if dataclasses.is_dataclass(config) else ():
        name, value = field.name, getattr(config, field.name)
        numbers = value if isinstance(value, tuple) else (value,)
        most = LARGEST.get(name)
        if name == "seed" and value is not None and not 0 <= value <= LARGEST_SEED:
            raise ValueError(f"{place}seed={value} is no seed; use a whole number from 0 to {LARGEST_SEED}")
        if most and any(each is not None and each > most for each in numbers):
            raise ValueError(f"{place}{name}={value}: no network is so large; use up to {most:,}")
        if most and len(numbers) > LEVELS:
            raise ValueError(f"{place}{name} has {len(numbers)} numbers, one a level; use up to {LEVELS}")
        for each in numbers:
            _check_sizes(each, f"{place}{name}.")


def to_dict(config: Any) -> dict[str, Any]:
    """Plain data of a settings object: dictionaries, lists, strings, numbers."""

    def plain(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [plain(item) for item in value]
        return value

    return typing.cast(dict[str, Any], plain(dataclasses.asdict(config)))


def to_yaml(config: Any, *, without: Collection[str] = ()) -> str:
    """YAML of a settings object, complete but for the fields `without`, in the order of its fields."""
    values = {key: value for key, value in to_dict(config).items() if key not in without}
    return yaml.safe_dump({"format": FORMAT, **values}, sort_keys=False, allow_unicode=True, width=110)


def from_yaml(cls: type[T], text: str, *, where: str = "") -> T:
    """A settings object from the text of a YAML file; `where` names it in errors."""
    return from_dict(cls, parse_yaml(text, where=where), where=where)


def parse_yaml(text: str, *, where: str = "") -> dict[str, Any]:
    """The mapping of a YAML text, its format number checked and removed."""
    try:
        values = _read_yaml(text)
    except ValueError as error:
        raise ValueError(f"{where or 'the settings'} cannot be read as YAML: {error}") from None
    if not isinstance(values, dict):
        found = "empty" if values is None else "a list" if isinstance(values, list) else "a single value"
        raise ValueError(f"{where or 'the settings'} must be `key: value` lines, and is {found}")
    check_format(values.pop("format", FORMAT), where)
    return values


def check_format(number: Any, where: str) -> None:
    """Refuse settings of a newer unnoise."""
    if not isinstance(number, int) or number < 1:
        raise ValueError(f"{where or 'the settings'}: format {number!r} is not a whole number from 1")
    if number > FORMAT:
        raise ValueError(
            f"{where or 'the settings'}: written by a newer unnoise (format {number}; this one reads up to "
            f"{FORMAT}); update unnoise to use it"
        )


def override(values: dict[str, Any], assignments: Iterable[Assignment], cls: type) -> dict[str, Any]:
    """A copy of `values` with each assignment made. Unknown paths are errors."""
    merged = copy.deepcopy(values)
    for assignment in assignments:
        path, value = assignment if isinstance(assignment, tuple) else _parse_assignment(assignment)
        keys = path.split(".")
        _check_path(cls, merged, keys, path)
        place = merged
        for key in keys[:-1]:
            if not isinstance(place.get(key), dict):
                place[key] = {}
            place = place[key]
        place[keys[-1]] = value
    return merged


def _parse_assignment(text: str) -> tuple[str, Any]:
    path, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"--set {text}: write it as name=value, such as --set optimizer.lr=2e-4")
    try:
        return path.strip(), _read_yaml(value)
    except ValueError as error:
        raise ValueError(f"--set {path.strip()}: the value cannot be read as YAML: {error}") from None


def merge(base: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the entries of `over` laid over it, mapping by mapping."""
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if both else value
    return merged


def differences(old: Any, new: Any) -> list[str]:
    """Settings whose values differ, as "optimizer.lr: 0.0001 -> 0.0002"; empty when equal.

    old, new: settings objects, or plain data of `to_dict`.
    """

    def leaves(values: Mapping[str, Any], prefix: str) -> dict[str, Any]:
        flat: dict[str, Any] = {}
        for key, value in values.items():
            name = f"{prefix}{key}"
            flat.update(leaves(value, f"{name}.") if isinstance(value, Mapping) else {name: value})
        return flat

    before, after = (leaves(v if isinstance(v, Mapping) else to_dict(v), "") for v in (old, new))
    return [
        f"{key}: {before.get(key)} -> {after.get(key)}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    ]


def read_config(cls: type[T], path: Path, assignments: Iterable[Assignment] = ()) -> T:
    """A settings object from a YAML file and overrides."""
    values = parse_yaml(read_text(path), where=str(path))
    return from_dict(cls, override(values, assignments, cls), where=str(path))


def read_text(path: Path) -> str:
    """The text of a settings file; ValueError when it is none."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not a text file; settings are YAML") from None


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint such as '; did you mean "cosine"?', or nothing."""
    match = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f'; did you mean "{match[0]}"?' if match else ""


def _field_type(cls: Any, name: str) -> Any:
    hint = typing.get_type_hints(cls).get(name)
    if isinstance(hint, types.UnionType):
        choices = [a for a in typing.get_args(hint) if a is not type(None)]
        hint = choices[0] if len(choices) == 1 else hint
    return hint


def _check_path(cls: Any, values: Any, keys: list[str], path: str) -> None:
    """Refuse a path that leads nowhere among the settings `values` of class `cls`."""
    for depth, key in enumerate(keys):
        cls = _member(cls, values)
        if not dataclasses.is_dataclass(cls):
            raise ValueError(f"--set {path}: {'.'.join(keys[:depth])} holds a value, not further settings")
        names = [f.name for f in dataclasses.fields(cls)]
        if key not in names:
            raise ValueError(f"unknown setting {path}{nearest(key, names)} (there are: {', '.join(names)})")
        cls = _field_type(cls, key)
        values = values.get(key) if isinstance(values, Mapping) else None


def _member(cls: Any, values: Any) -> Any:
    """Which class of a union by kind the values are of; any other class is itself."""
    choices = members(cls)
    if not choices:
        return cls
    default = next(iter(choices))
    return choices.get(kind_of(values or {}, default) or default, choices[default])


_RULES = {
    "dataclass_type": "use settings of its own, `name: value`",
    "union_tag_not_found": "use settings of its own, `name: value`, of which `kind` says what they are for",
    "tuple_type": "use a list, such as [1, 2]",
    "invalid_key": "names of settings are text",
}
"""Errors of validation -> the rule, where its own words are about Python."""


def _explain(cls: Any, error: ValidationError, where: str) -> str:
    """One line for the first thing that is wrong."""
    first = error.errors()[0]
    prefix = f"{where}: " if where else ""
    owner, place = _place(cls, first["loc"])
    name = ".".join(place)
    if first["type"] == "unexpected_keyword_argument":
        names = [f.name for f in dataclasses.fields(owner)] if dataclasses.is_dataclass(owner) else []
        return f"{prefix}unknown setting {name}{nearest(place[-1], names)} (there are: {', '.join(names)})"
    if first["type"] == "union_tag_invalid":
        return f"{prefix}{name}.kind = {first['ctx']['tag']!r}: use {first['ctx']['expected_tags']}"
    if first["type"] == "missing":
        return f"{prefix}{name} is missing; it has no default"
    message = _RULES.get(first["type"]) or first["msg"][0].lower() + first["msg"][1:]
    return f"{prefix}{name} = {first['input']!r}: {message}"


def _place(cls: Any, steps: Iterable[int | str]) -> tuple[Any, list[str]]:
    """The class that holds what is at the end of the steps, and their names: a kind on the way is no name."""
    owner, here = cls, cls
    place: list[str] = []
    for step in steps:
        if choices := members(here):
            here = choices[str(step)]
        elif isinstance(step, int) and place:
            here = next(iter(typing.get_args(here)), here)
            place[-1] += f"[{step}]"
        else:
            owner, here = here, _field_type(here, str(step)) if dataclasses.is_dataclass(here) else here
            place.append(str(step))
    return owner, place
