"""How many bits a model spends on pictures: the variational bound with all of its terms (DDPM Eq. 5).

Ho, Jain, Abbeel 2020, arXiv 2006.11239; Nichol & Dhariwal 2021, arXiv 2102.09672. All values are bits per
dimension (pixel and channel) unless said otherwise, computed in float32 with float64 means.
"""

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unnoise.config.load import to_dict
from unnoise.config.requests import LikelihoodRequest
from unnoise.data import Dataset, order
from unnoise.diffusion.condition import Condition
from unnoise.diffusion.likelihood import BitsPerDim, bits_per_dim, rate_distortion
from unnoise.diffusion.noise import SeededNoise
from unnoise.diffusion.prediction import Denoise, Prediction
from unnoise.diffusion.schedule import At
from unnoise.diffusion.spacing import space
from unnoise.diffusion.transforms import clip_x0
from unnoise.images import to_images
from unnoise.model import Model

ROWS = 10
"""Of the rate-distortion table, as in DDPM's appendix."""
OnStep = Callable[[int, int], None]
"""(network calls done, of how many), a call being one picture at one step; raise to stop."""


@dataclass(frozen=True)
class Estimate:
    """A mean over pictures with its standard error, nan for one picture."""

    mean: float
    error: float


@dataclass(frozen=True)
class Exchange:
    """What has been sent and what is still wrong, once `steps` reverse steps are done (DDPM's table)."""

    steps: int
    rate: float
    """Bits per dimension sent."""
    distortion: float
    """Root mean square error of the picture predicted then, in grey levels of 0..255."""


@dataclass(frozen=True, eq=False)
class Likelihood:
    """The bound of a model on pictures. Tensors have an entry a step, the least noisy first."""

    total: Estimate
    """prior + the sum of `terms`: what a lossless code of the pictures needs at most."""
    prior: Estimate
    terms: Tensor
    """(S,) L_0, L_1, ... float64; L_0 is the discrete decoder."""
    errors: Tensor
    """(S,) standard errors of the terms."""
    x0_mse: Tensor
    """(S,) mean square error of the predicted picture, of [-1, 1]."""
    eps_mse: Tensor
    """(S,) of the predicted noise."""
    rates: Tensor
    """(S,) bits per dimension sent once x_i is known (`rate_distortion`)."""
    distortions: Tensor
    """(S,) root mean square error of the picture predicted from x_i, grey levels of 0..255."""
    timesteps: tuple[int, ...]
    """Which of the training steps the entries are, from 0."""
    training_steps: int
    pictures: int
    conditioned: str
    """What the model was told of the pictures."""
    request: LikelihoodRequest

    @property
    def decoder(self) -> float:
        """L_0: bits for the last step, from the nearly clean picture to grey levels; "distortion" in DDPM."""
        return float(self.terms[0])

    @property
    def rate(self) -> float:
        """The rest of the bound: prior + L_1 + L_2 + ..."""
        return self.total.mean - self.decoder

    @property
    def exchange(self) -> tuple[Exchange, ...]:
        """Rate against distortion in ten rows: all reverse steps done, nine tenths of them, ..., a tenth."""
        count = len(self.rates)
        done = sorted({max(1, round(count * k / ROWS)) for k in range(1, ROWS + 1)}, reverse=True)
        return tuple(
            Exchange(d, float(self.rates[count - d]), float(self.distortions[count - d])) for d in done
        )

    @property
    def whole(self) -> bool:
        """Whether every training step is in it, as in published bounds."""
        return len(self.timesteps) == self.training_steps

    def facts(self) -> dict[str, Any]:
        """Plain data for JSON; what is not finite becomes None."""

        def plain(value: float) -> float | None:
            return value if math.isfinite(value) else None

        columns = {"bits": self.terms, "error": self.errors, "x0_mse": self.x0_mse, "eps_mse": self.eps_mse}
        terms = [
            {"step": step, **{name: plain(float(column[i])) for name, column in columns.items()}}
            for i, step in enumerate(self.timesteps)
        ]
        return {
            "bits_per_dim": self.total.mean,
            "error": plain(self.total.error),
            "prior": self.prior.mean,
            "rate": self.rate,
            "decoder": self.decoder,
            "pictures": self.pictures,
            "steps": len(self.timesteps),
            "training_steps": self.training_steps,
            "conditioned": self.conditioned,
            "request": to_dict(self.request),
            "rate_distortion": [to_dict(row) for row in self.exchange],
            "terms": terms,
        }


def likelihood(
    model: Model, dataset: Dataset, request: LikelihoodRequest, *, on_step: OnStep | None = None
) -> Likelihood:
    """The bound of `model` on pictures of `dataset`, one network call a picture and step.

    Pictures are cut from the middle and not mirrored; which ones and their noise are functions of the seed.
    ValueError when model and pictures do not fit.
    """
    _check(model, dataset, request)
    steps = space("" if request.steps == "all" else request.steps, model.schedule.steps)
    schedule = model.schedule.respaced(steps)
    places, conditioned = _labels(model, dataset, request)
    chosen = order.indices(request.seed, len(dataset), 0, request.n)
    parts = []
    with _evaluating(model):
        for start in range(0, request.n, request.batch_size):
            ids = chosen[start : start + request.batch_size]
            counted = _counted(model, request, start, len(ids), schedule.steps, on_step)
            label = None if places is None else torch.from_numpy(places[ids]).to(model.device)
            x0 = to_images(dataset.take(ids).pixels).to(model.device)
            noise = SeededNoise(request.seed, ids.tolist())
            parts.append(bits_per_dim(counted, x0, schedule, cond=Condition(label=label), noise=noise))
    bits = _joined(parts)
    rates, distortions = rate_distortion(bits)
    return Likelihood(
        total=_estimate(bits.total),
        prior=_estimate(bits.prior),
        terms=bits.vlb.mean(0),
        errors=_errors(bits.vlb),
        x0_mse=bits.x0_mse.mean(0),
        eps_mse=bits.eps_mse.mean(0),
        rates=rates,
        distortions=distortions,
        timesteps=tuple(steps.tolist()),
        training_steps=model.schedule.steps,
        pictures=request.n,
        conditioned=conditioned,
        request=request,
    )


def _check(model: Model, dataset: Dataset, request: LikelihoodRequest) -> None:
    size, channels = model.config.image_size, model.config.channels
    if model.config.low_res:
        raise ValueError(
            "this model is an upsampler: its bits depend on the small pictures that it is given, and are not "
            "measured; name a model that draws alone"
        )
    if model.first_stage is not None:
        raise ValueError(
            "this model draws latents: bits of pictures would need a decoder that gives probabilities; name "
            "a model of pixels"
        )
    if (dataset.size, dataset.channels) != (size, channels):
        raise ValueError(
            f"{dataset.report.source} has {_shape(dataset.size, dataset.channels)} pictures, the model knows "
            f"{_shape(size, channels)} ones; name such data, or cut them: size={size}, channels={channels}"
        )
    if not 1 <= request.n <= len(dataset):
        raise ValueError(
            f"n={request.n} does not fit {dataset.report.source}, which has {len(dataset)} pictures; use "
            f"1..{len(dataset)}"
        )
    if request.batch_size < 1:
        raise ValueError(f"batch_size={request.batch_size} is too small; use 1 or more")


def _shape(size: int | None, channels: int | None) -> str:
    kind = {1: "grey", 3: "RGB"}.get(channels or 0, f"{channels}-channel")
    return f"{size}x{size} {kind}"


def _labels(model: Model, dataset: Dataset, request: LikelihoodRequest) -> tuple[np.ndarray | None, str]:
    """The model's class of every picture of the data set, None for a model without classes; and in words."""
    rows = model.config.class_rows
    if rows is None:
        return None, "nothing: the model is unconditional"
    if not request.labels or dataset.labels is None:
        if model.null_label is None:
            why = "labels are off" if dataset.labels is not None else f"{dataset.report.source} has no labels"
            raise ValueError(
                f"{why}, and this model cannot do without: it was trained with label_dropout=0; give it "
                "pictures with their classes"
            )
        return np.full(len(dataset), model.null_label, np.int64), "no class (the null class)"
    known = model.classes or tuple(map(str, range(rows - (model.null_label is not None))))
    unknown = [name for name in dataset.classes if name not in known]
    if unknown:
        raise ValueError(
            f"class {unknown[0]!r} of {dataset.report.source} is none of the model's ({', '.join(known[:5])}"
            f"{', ...' if len(known) > 5 else ''}); name data of its classes, or leave labels out"
        )
    place = np.array([known.index(name) for name in dataset.classes], np.int64)
    return place[dataset.labels], "each picture's class"


def _counted(
    model: Model, request: LikelihoodRequest, start: int, count: int, steps: int, on_step: OnStep | None
) -> Denoise:
    """The model's denoiser as the bound is measured with, telling how many calls are done."""
    denoise: Denoise = clip_x0(model.denoiser) if request.clip else model.denoiser
    done, total = start * steps, request.n * steps

    def counted(x: Tensor, at: At, cond: Condition) -> Prediction:
        nonlocal done
        prediction = denoise(x, at, cond)
        done += count
        if on_step is not None:
            on_step(done, total)
        return prediction

    return counted


@contextlib.contextmanager
def _evaluating(model: Model) -> Iterator[None]:
    """Dropout off and all in float32 meanwhile: near t = T the terms are differences of near equals."""
    network: Any = model.network
    training, dtype = network.training, network.compute_dtype
    network.eval()
    network.compute_dtype = None
    try:
        yield
    finally:
        network.train(training)
        network.compute_dtype = dtype


def _joined(parts: list[BitsPerDim]) -> BitsPerDim:
    """All batches as one, float64 on the CPU."""

    def join(field: str) -> Tensor:
        return torch.cat([getattr(part, field).double().cpu() for part in parts])

    return BitsPerDim(*(join(field) for field in ("total", "prior", "vlb", "x0_mse", "eps_mse")))


def _errors(values: Tensor) -> Tensor:
    """Standard errors of the means over rows; nan for one row."""
    count = len(values)
    spread = values.std(0) if count > 1 else torch.full(values.shape[1:], math.nan, dtype=values.dtype)
    return spread / math.sqrt(count)


def _estimate(values: Tensor) -> Estimate:
    return Estimate(float(values.mean()), float(_errors(values)))
