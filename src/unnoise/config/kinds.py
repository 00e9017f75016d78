"""Settings of one of several kinds: a union of dataclasses whose field `kind` says which is meant."""

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any


def members(annotation: Any) -> dict[str, Any]:
    """Kind -> dataclass of a union by kind, the default first; empty for any other annotation."""
    if typing.get_origin(annotation) not in (types.UnionType, typing.Union):
        return {}
    found = typing.get_args(annotation)
    if not all(dataclasses.is_dataclass(each) for each in found):
        return {}
    return {each.kind: each for each in found if "kind" in {f.name for f in dataclasses.fields(each)}}


def kind_of(value: Any, default: str) -> str | None:
    """The kind that plain data, or an object of settings, is of; None for anything else."""
    kind = value.get("kind", default) if isinstance(value, Mapping) else getattr(value, "kind", None)
    return None if kind is None else str(kind)


class ByKind:
    """Annotates a union of dataclasses: `kind` alone decides which one plain data become, not a best match.

    Validation asks annotations for their rule by the method below, so that nothing here names its library.
    """

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> dict[str, Any]:
        """The rule: a union told apart by its tag."""
        choices = members(source)
        default = next(iter(choices))
        return {
            "type": "tagged-union",
            "choices": {kind: handler.generate_schema(each) for kind, each in choices.items()},
            "discriminator": lambda value: kind_of(value, default),
        }
