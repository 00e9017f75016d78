"""How pictures are read, for commands that measure them: what errors of `data` advise works here too."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unnoise.config.requests import EvaluateRequest

if TYPE_CHECKING:
    from unnoise.config.schema import DataConfig

OPTIONS = {"data.size": "size", "data.channels": "channels", "data.cache": "cache"}
"""Settings that are options of the commands as well."""
SETTABLE = ("labels", "label_field", "background", "strict", "max_pixels", "hub_limit")

Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="NAME=VALUE", help="How pictures are read, as of `train`: data.labels=none."
    ),
]


def apart(texts: Sequence[str]) -> tuple[list[str], list[str]]:
    """Those that say how pictures are read, and the others."""
    mine = [text for text in texts if text.startswith("data.")]
    return mine, [text for text in texts if not text.startswith("data.")]


def settings_of_data(texts: Sequence[str], **own: Any) -> tuple["DataConfig", dict[str, Any]]:
    """(how pictures are read, the options `own` with those that the texts give)."""
    from unnoise.config.load import from_dict, override

    values = override({}, texts, EvaluateRequest)
    for text in texts:
        name = text.partition("=")[0].strip()
        value = values["data"].get(name.removeprefix("data.")) if name.startswith("data.") else None
        if name in OPTIONS and own.get(OPTIONS[name]) in (None, value):
            own[OPTIONS[name]] = value
        elif name in OPTIONS:
            raise ValueError(f"--set {text}: --{OPTIONS[name]} is {own[OPTIONS[name]]}; drop one of them")
        elif name.removeprefix("data.") not in SETTABLE or not name.startswith("data."):
            known = ", ".join([*OPTIONS, *(f"data.{each}" for each in SETTABLE)])
            raise ValueError(f"--set {text}: it sets how pictures are read; name one of {known}")
    data = from_dict(EvaluateRequest, values).data
    return data, own
