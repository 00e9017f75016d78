"""A model told nothing: what classifier-free guidance compares with, and why some models cannot be."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from unnoise.diffusion.condition import Condition, null
from unnoise.model import Model
from unnoise.networks.conditioned import Conditioned
from unnoise.told import Teller


def check_guidance(model: Model, scale: float) -> None:
    """ValueError where a scale of classifier-free guidance cannot work with the model."""
    if not math.isfinite(scale):
        raise ValueError(f"guidance={scale:g} is no scale; use 1 (off) to 10")
    if scale != 1:
        nulls(model, model.teller, scale)


def nulls(model: Model, teller: Teller, scale: float) -> dict[str, Any]:
    """What guidance replaces in a condition, by its null values. ValueError where nothing was left out."""
    drop = dict(teller.untold)
    if model.null_label is not None:
        drop["label"] = model.null_label
    if not drop:
        raise ValueError(f"guidance={scale:g} cannot work with this model: {why_no_null(model)}; use 1")
    return drop


class Untold:
    """A condition -> the same with some of it replaced by null values, encoded anew once for each batch."""

    def __init__(self, model: Model, drop: Mapping[str, Any], shape: tuple[int, int, int]) -> None:
        self.model, self.drop, self.size = model, drop, torch.Size(shape[1:])
        self._last: tuple[Condition, Condition] | None = None

    def __call__(self, cond: Condition) -> Condition:
        """A walk asks with the same condition at every step."""
        if self._last is None or self._last[0] is not cond:
            self._last = cond, self._of(cond)
        return self._last[1]

    def _of(self, cond: Condition) -> Condition:
        network = self.model.network
        if not isinstance(network, Conditioned):
            return null(cond, self.drop)
        raw = replace(cond, context=None, context_mask=None, concat=None)
        encoded: Condition = network.encode(null(raw, self.drop), self.size)
        return encoded


def why_no_null(model: Model) -> str:
    """Why a model cannot draw untold, for an error."""
    if model.config.class_rows:
        return "it was trained without label dropout, so it cannot draw without a class"
    if model.config.told:
        return "it always was told something in training, so it cannot draw without"
    return "it is unconditional"
