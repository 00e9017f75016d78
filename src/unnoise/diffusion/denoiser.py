"""A network read as a Prediction: the only place that knows what a network's output means."""

from dataclasses import replace
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from unnoise.diffusion.condition import Condition
from unnoise.diffusion.prediction import DECODERS, Prediction, posterior_mean
from unnoise.diffusion.schedule import At

Predicts = Literal["eps", "x0", "v", "mean"]
Variance = Literal["fixed_small", "fixed_large", "learned", "learned_range"]


class Denoiser(nn.Module):
    """A network, called as network(x, t, cond), with what it predicts and the variance it implies.

    learned and learned_range networks have twice the channels: the prediction, then the variance.
    `v_posterior` is the share of beta in the variance fixed_small (latent diffusion).
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        predicts: Predicts = "eps",
        variance: Variance = "fixed_small",
        v_posterior: float = 0.0,
    ) -> None:
        super().__init__()
        if predicts not in get_args(Predicts):
            raise ValueError(f"predicts={predicts!r} is unknown; use one of {', '.join(get_args(Predicts))}")
        if variance not in get_args(Variance):
            raise ValueError(f"variance={variance!r} is unknown; use one of {', '.join(get_args(Variance))}")
        if not 0 <= v_posterior <= 1 or (v_posterior and variance != "fixed_small"):
            raise ValueError(
                f"v_posterior={v_posterior:g} with variance={variance}: it is the share of beta in the "
                "variance fixed_small; use 0..1 with that one, 0 with others"
            )
        self.network = network
        self.v_posterior = v_posterior
        self.predicts: Predicts = predicts
        self.variance: Variance = variance

    @property
    def learns_variance(self) -> bool:
        """Whether half of the network's channels are a variance."""
        return self.variance in ("learned", "learned_range")

    def raw(self, x: Tensor, at: At, cond: Condition) -> Tensor:
        """The network's output, at least float32: (B, C, H, W), or (B, 2 C, H, W) with a variance."""
        output: Tensor = self.network(x, at.t, cond)
        return output.to(torch.promote_types(output.dtype, torch.float32))

    def split(self, output: Tensor) -> tuple[Tensor, Tensor | None]:
        """The channels that predict and those of the variance, if there are any."""
        if not self.learns_variance:
            return output, None
        said, variance = output.chunk(2, dim=1)
        return said, variance

    def decode(self, output: Tensor, x: Tensor, at: At) -> Prediction:
        """The output of `raw` at x as a Prediction."""
        said, variance = self.split(output)
        assert said.shape == x.shape, f"the network answered {tuple(output.shape)} for {tuple(x.shape)}"
        prediction = DECODERS[self.predicts](x, said, at)
        if self.variance == "learned_range":
            assert variance is not None
            return replace(prediction, var_fraction=(variance + 1) / 2)
        if self.variance == "learned":
            return replace(prediction, log_variance=variance)
        if self.variance == "fixed_large":
            return replace(prediction, log_variance=at.scales.log_variance_large)
        if self.v_posterior:
            mixed = at.schedule.mixed_variance(self.v_posterior).log()
            return replace(prediction, log_variance=at.cast(mixed[at.i]))
        return prediction

    def target(self, x0: Tensor, x: Tensor, at: At, *, eps: Tensor) -> Tensor:
        """What the predicting channels should say at x = alpha x0 + sigma eps."""
        if self.predicts == "eps":
            return eps
        if self.predicts == "x0":
            return x0
        if self.predicts == "v":
            return at.scales.alpha * eps - at.scales.sigma * x0
        return posterior_mean(x0, x, at)

    def forward(self, x: Tensor, at: At, cond: Condition) -> Prediction:
        """What the network says about x, (B, C, H, W)."""
        return self.decode(self.raw(x, at, cond), x, at)
