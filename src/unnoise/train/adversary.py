"""The other player in the training of a first stage: a discriminator with an optimiser of its own."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from unnoise import distributed
from unnoise.config.schema import AdversaryConfig, OptimizerConfig
from unnoise.networks.discriminator import Discriminator
from unnoise.train.first_stage_losses import DISCRIMINATION, deception
from unnoise.train.optim import (
    gradient_norm,
    learning_rate,
    make_optimizer,
    moments_of,
    restore_moments,
    set_learning_rate,
)

BETTER = 0.02
"""Reconstruction has stopped getting better when a window's mean error falls by less than this share."""
WINDOWS = 40
"""Windows in a run at most; one is never below 50 steps."""


class Adversary:
    """Begins at its step, or when reconstruction no longer gets better, half of the steps at the latest."""

    def __init__(
        self,
        config: AdversaryConfig,
        optimizer: OptimizerConfig,
        *,
        channels: int,
        batch_size: int,
        device: torch.device,
        dtype: torch.dtype | None,
    ) -> None:
        self.config, self.batch_size, self.dtype = config, batch_size, dtype
        self.network = Discriminator(config.network, channels).to(device).requires_grad_(False)
        self.rate = replace(optimizer, lr=config.lr or optimizer.lr)
        self.optimizer = make_optimizer(self.network.parameters(), self.rate)
        self.done = 0
        """Steps of the first stage behind it."""
        self.began = 0 if config.start == 0 else -1
        """The step that it began at; -1 before."""
        self.margin = 0.0
        """D(pictures) - D(reconstructions) in the last step: 0 when it cannot tell them apart."""
        self._sum, self._last = 0.0, float("inf")

    @property
    def active(self) -> bool:
        """Whether it plays."""
        return self.config.weight > 0 and self.began >= 0

    def deceived(self, reconstructions: Tensor) -> Tensor:
        """What the first stage minimises, (B,); gradients reach the reconstructions alone."""
        return deception(self._logits(reconstructions))

    def learn(self, seen: Sequence[tuple[Tensor, Tensor]], steps: int) -> None:
        """One of a run's steps, on (pictures, reconstructions) of every micro-batch of this process."""
        parameters = list(self.network.parameters())
        self.network.requires_grad_(True)
        self.optimizer.zero_grad(set_to_none=True)
        margins = []
        for images, fakes in seen:
            real, fake = self._logits(images), self._logits(fakes)
            (DISCRIMINATION[self.config.loss](real, fake).sum() / self.batch_size).backward()
            margins.append((real.detach().mean() - fake.detach().mean()) * len(images) / self.batch_size)
        grads = [p.grad for p in parameters if p.grad is not None]
        margin = torch.stack(margins).sum()
        distributed.add_up([*grads, margin])
        if torch.isfinite(gradient_norm(parameters)):
            set_learning_rate(self.optimizer, learning_rate(self.rate, self.done, steps))
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.network.requires_grad_(False)
        self.margin = margin.item()

    def count(self, error: float, steps: int) -> None:
        """One of a run's steps is done with this mean error, the same in all processes."""
        self.done += 1
        if self.began >= 0:
            return
        if self.config.start is not None:
            if self.done >= self.config.start:
                self.began = self.done
            return
        self._sum += error
        window = max(50, steps // WINDOWS)
        if self.done % window:
            return
        mean, self._sum = self._sum / window, 0.0
        if mean > (1 - BETTER) * self._last or self.done >= steps // 2:
            self.began = self.done
        self._last = mean

    def state_dict(self) -> dict[str, Tensor]:
        """Everything that a checkpoint must hold of it."""
        numbers = [self.done, self.began, self.margin, self._sum, self._last]
        return {
            "numbers": torch.tensor(numbers, dtype=torch.float64),
            **{f"network.{name}": value for name, value in self.network.state_dict().items()},
            **{
                f"optimizer.{name}": value for name, value in moments_of(self.optimizer, self.network).items()
            },
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take it back."""
        done, began, self.margin, self._sum, self._last = state["numbers"].tolist()
        self.done, self.began = int(done), int(began)
        self.network.load_state_dict(_below(state, "network."))
        restore_moments(self.optimizer, self.network, _below(state, "optimizer."))

    def _logits(self, images: Tensor) -> Tensor:
        return self.network(images.to(self.dtype or images.dtype)).float()


def _below(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
