"""What a network is told besides x and t."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Condition:
    """Conditions of a batch, already encoded; a field that is None is not given to the network."""

    label: Tensor | None = None
    """(B,) int64 class index."""
    context: Tensor | None = None
    """(B, L, D) tokens for cross-attention."""
    context_mask: Tensor | None = None
    """(B, L) bool, True where a token counts."""
    concat: Tensor | None = None
    """(B, C', H', W'), laid beside x on the channels by the network, which may resample it to x's size."""
    level: Tensor | None = None
    """(B,) float32 in [0, 1]: sigma of the noise laid over `concat` (diffusion/low_res.py)."""
    parts: Mapping[str, Tensor] | None = None
    """What a network with encoders of its own makes context and concat of, by name: (B, ...) each."""

    def map(self, change: Callable[[Tensor], Tensor]) -> "Condition":
        """The condition with `change` applied to every field that is set, and to every part."""
        changed: dict[str, Any] = {
            name: None if value is None else change(value) for name, value in self._fields().items()
        }
        if self.parts is not None:
            changed["parts"] = {name: change(value) for name, value in self.parts.items()}
        return Condition(**changed)

    def _fields(self) -> dict[str, Tensor | None]:
        return {name: value for name, value in vars(self).items() if name != "parts"}

    def to(self, device: torch.device | str) -> "Condition":
        """The condition on a device."""
        return self.map(lambda value: value.to(device))

    def take(self, rows: slice | Tensor) -> "Condition":
        """The condition of some rows of the batch."""
        return self.map(lambda value: value[rows])


def null(
    cond: Condition, drop: Mapping[str, Tensor | float | None], *, where: Tensor | None = None
) -> Condition:
    """The condition with the fields in `drop` replaced by their null values, in the rows `where` (B,) bool.

    A value broadcasts to its field: `drop={"label": 10}` for a model whose null class is 10. None takes the
    field away, which must then be for all rows. Other fields stay, so that conditions drop and guide
    separately. A name may also be that of a part.
    """
    if cond.parts is not None:
        known = {name: value for name, value in drop.items() if name in cond.parts}
        parts = {
            name: _replaced(value, known[name], where) if name in known else value
            for name, value in cond.parts.items()
        }
        cond = replace(cond, parts=parts)
        drop = {name: value for name, value in drop.items() if name not in known}
    names = [field.name for field in fields(Condition) if field.name != "parts"]
    changed: dict[str, Any] = {}
    for name, value in drop.items():
        if name not in names:
            raise ValueError(f"drop={name!r} is not a condition; use {', '.join(names)}")
        old: Tensor | None = getattr(cond, name)
        if old is None:
            raise ValueError(f"drop={name!r}: this condition has no {name}; drop what it has")
        if value is None:
            if where is not None:
                raise ValueError(
                    f"drop={name!r}: None takes {name} from all rows; give a null value for some"
                )
            changed[name] = None
            continue
        changed[name] = _replaced(old, value, where)
    return replace(cond, **changed)


def _replaced(old: Tensor, value: Tensor | float | None, where: Tensor | None) -> Tensor:
    """`value` in the rows `where`, or in all."""
    if value is None:
        raise ValueError(
            "a part of a condition cannot be taken away, its encoder needs one; give a null value"
        )
    new = torch.as_tensor(value, dtype=old.dtype, device=old.device).expand_as(old)
    if where is None:
        return new
    return torch.where(where.to(old.device).view(-1, *(1,) * (old.ndim - 1)), new, old)


def cat(conds: Sequence[Condition]) -> Condition:
    """Conditions of batches laid one behind the other; all must have the same fields."""
    joined: dict[str, Any] = {}
    for field in fields(Condition):
        values = [getattr(cond, field.name) for cond in conds]
        if any(value is None for value in values):
            if any(value is not None for value in values):
                raise ValueError(
                    f"only some of {len(conds)} conditions have {field.name}; give it to all or none"
                )
        elif field.name == "parts":
            joined["parts"] = {name: torch.cat([value[name] for value in values]) for name in values[0]}
        else:
            joined[field.name] = torch.cat(values)
    return Condition(**joined)
