"""A request made ready for a GAN: one pass from z to picture, as `planning.Plan` for a diffusion model."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unnoise.classes import find_class
from unnoise.config.load import to_dict
from unnoise.config.requests import GenerateRequest
from unnoise.diffusion.noise import SeededNoise
from unnoise.gan import GanModel, truncated
from unnoise.images import to_pixels
from unnoise.networks.precision import compute_dtype

KNOWN = (*("n", "labels", "truncation", "seed", "first", "batch_size", "exact", "precision", "device"),)
"""Options of drawing that mean something to a GAN."""


@dataclass(frozen=True, eq=False)
class GanPlan:
    """A request made ready for one GAN: everything checked, nothing drawn."""

    request: GenerateRequest
    model: GanModel
    labels: tuple[int, ...]
    """Classes that the pictures take in turn; empty without classes."""
    dtype: torch.dtype
    """Type that the generator computes in."""

    steps = 1
    """From z to picture."""
    low_res = telling = None
    """A GAN is told a class alone."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of all classes, their numbers where they have none; empty without classes."""
        return self.model.class_names

    @property
    def files(self) -> Mapping[str, str]:
        """The pictures depend on no file besides the model's."""
        return {}

    @property
    def precision(self) -> str:
        """Name of the type that the generator computes in."""
        return str(self.dtype).removeprefix("torch.")

    @property
    def device(self) -> torch.device:
        """Where the generator is."""
        return self.model.device

    @property
    def picture(self) -> tuple[int, int, int]:
        """(C, H, W) of a picture."""
        settings = self.model.settings
        assert settings.out_channels and settings.image_size, "settings are complete"
        return settings.out_channels, settings.image_size, settings.image_size

    def to_pixels(self, x: Tensor) -> Tensor:
        """uint8 (B, H, W, C) on the CPU of what was drawn."""
        return to_pixels(x).cpu()

    @property
    def ids(self) -> range:
        """The pictures asked for."""
        return range(self.request.first, self.request.first + self.request.n)

    def label(self, k: int) -> int | None:
        """The class of picture k."""
        return self.labels[k % len(self.labels)] if self.labels else None

    def name(self, k: int) -> str:
        """The class name of picture k; "" without a class."""
        label = self.label(k)
        return "" if label is None else self.classes[label]

    @property
    def turn(self) -> list[str]:
        """Names of the classes that pictures take in turn."""
        return [self.name(k) for k in range(len(self.labels))]

    @torch.no_grad()
    def draw(self, ids: Sequence[int]) -> Tensor:
        """Images (B, C, H, W) in [-1, 1] of the pictures `ids`: functions of the seed and their index."""
        noise = SeededNoise(self.request.seed, ids, "z")
        z = noise(torch.empty(len(ids), self.model.settings.latent), step=-1, draw=0)
        label = torch.tensor([self.label(k) for k in ids], device=self.device) if self.labels else None
        generator = self.model.generator(self.request.truncation)
        before, training = generator.compute_dtype, generator.training
        generator.compute_dtype = None if self.dtype == torch.float32 else self.dtype
        generator.eval()
        try:
            images: Tensor = generator(truncated(z, self.request.truncation).to(self.device), label)
        finally:
            generator.compute_dtype = before
            generator.train(training)
        broken = (~torch.isfinite(images)).flatten(1).any(1).tolist()
        if any(broken):
            names = ", ".join(str(k) for k, bad in zip(ids, broken, strict=True) if bad)
            raise FloatingPointError(f"not a number in picture {names}; try precision float32")
        return images


def plan_gan(model: GanModel, request: GenerateRequest) -> GanPlan:
    """Check a request against a GAN. ValueError names an option that means nothing to it."""
    default = to_dict(GenerateRequest(guidance=1.0))
    for name, value in to_dict(request).items():
        if name not in KNOWN and value != default[name]:
            raise ValueError(
                f"{name}={value} means nothing to a GAN, which draws in one step; leave it out (it has: "
                f"{', '.join(KNOWN)})"
            )
    if request.truncation is not None and not 0 < request.truncation < math.inf:
        raise ValueError(f"truncation={request.truncation:g} leaves no z; use more than 0, or leave it out")
    return GanPlan(request, model, _labels(model, request), compute_dtype(request.precision, model.device))


def _labels(model: GanModel, request: GenerateRequest) -> tuple[int, ...]:
    classes = model.class_names
    if request.labels and not classes:
        raise ValueError(
            f"label {request.labels[0]!r}: this GAN is unconditional, it knows no classes; leave labels out"
        )
    return tuple(find_class(label, classes) for label in request.labels) or tuple(range(len(classes)))
