"""The other player of a GAN: the discriminator with an optimiser of its own, and what it says of the game."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from unnoise import distributed
from unnoise.config.schema import GanConfig, TrainConfig
from unnoise.networks.projection_discriminator import ProjectionDiscriminator
from unnoise.networks.spectral import iterate
from unnoise.train.augment import augmented
from unnoise.train.building import compute_in
from unnoise.train.optim import (
    gradient_norm,
    learning_rate,
    make_optimizer,
    moments_of,
    restore_moments,
    set_learning_rate,
)


@dataclass(frozen=True, eq=False)
class Seen:
    """Of one micro-batch: real pictures, drawn ones of the same classes, and how both are changed."""

    real: Tensor
    """(B, C, H, W) in [-1, 1]."""
    fake: Tensor
    label: Tensor | None = None
    changes: tuple[Tensor, Tensor] | None = None
    """Of the real and of the drawn ones, (B, augment.NUMBERS) each."""


@dataclass(frozen=True)
class Verdict:
    """What the discriminator said in its last step."""

    real: float = 0.0
    """Mean score of real pictures; with the hinge loss 1 is enough."""
    fake: float = 0.0
    """Of drawn ones; -1 is enough."""
    accuracy: float = 0.0
    """Share of both that it told right."""
    loss: float = 0.0
    grad_norm: float = 0.0


class Opponent:
    """A discriminator that learns by the hinge loss (Lim & Ye 2017, arXiv 1705.02894)."""

    def __init__(self, config: TrainConfig, device: torch.device) -> None:
        assert config.gan is not None, "settings are resolved"
        self.settings: GanConfig = config.gan
        self.batch_size = config.batch_size
        self.network = ProjectionDiscriminator(self.settings.discriminator).to(device).requires_grad_(False)
        compute_in(self.network, config.precision, device)
        self.rate = replace(config.optimizer, lr=self.settings.discriminator_lr or config.optimizer.lr)
        self.optimizer = make_optimizer(self.network.parameters(), self.rate)
        self.done = 0
        """Steps of the generator behind it."""
        self.steps = config.steps
        """Of the run, as it was last told."""
        self.verdict = Verdict()

    def scores(self, images: Tensor, label: Tensor | None, changes: Tensor | None) -> Tensor:
        """(B,): above 0 looks real. Gradients reach the images alone, but for its own step."""
        if changes is not None:
            images = augmented(images, changes, self.settings.augment)
        found: Tensor = self.network(images, label)
        return found

    def learn(self, seen: Sequence[Callable[[], Seen]], steps: int) -> None:
        """A turn within one of a run's steps, on this process's micro-batches, each made when asked for."""
        parameters = list(self.network.parameters())
        self.network.requires_grad_(True)
        self.optimizer.zero_grad(set_to_none=True)
        totals = torch.zeros(4, device=parameters[0].device)
        for make in seen:
            totals += self._backward(make())
        grads = [p.grad for p in parameters if p.grad is not None]
        distributed.add_up([*grads, totals])
        norm = gradient_norm(parameters)
        if torch.isfinite(norm):
            set_learning_rate(self.optimizer, learning_rate(self.rate, self.done, steps))
            self.optimizer.step()
            iterate(self.network)
        self.optimizer.zero_grad(set_to_none=True)
        self.network.requires_grad_(False)
        self.verdict = Verdict(*totals.tolist(), norm.item())

    def count(self, steps: int) -> None:
        """One of a run's steps is done."""
        self.done, self.steps = self.done + 1, steps

    def _backward(self, seen: Seen) -> Tensor:
        """Leave the gradient of its share of the batch; (4,): score of real and of drawn, accuracy, loss."""
        penalised = self.settings.r1 > 0
        real = seen.real.detach().requires_grad_(penalised)
        changes = None if seen.changes is None else torch.cat(seen.changes)
        both = None if seen.label is None else torch.cat([seen.label, seen.label])
        on_real, on_fake = self.scores(torch.cat([real, seen.fake]), both, changes).chunk(2)
        loss = F.relu(1 - on_real).sum() + F.relu(1 + on_fake).sum()
        if penalised:
            (slope,) = torch.autograd.grad(on_real.sum(), real, create_graph=True)
            loss = loss + self.settings.r1 / 2 * slope.square().sum()
        (loss / self.batch_size).backward()
        right = ((on_real > 0).sum() + (on_fake < 0).sum()) / 2
        return torch.stack([on_real.sum(), on_fake.sum(), right, loss]).detach() / self.batch_size

    def state_dict(self) -> dict[str, Tensor]:
        """Everything that a checkpoint must hold of it."""
        numbers = [self.done, self.steps, *asdict(self.verdict).values()]
        return {
            "numbers": torch.tensor(numbers, dtype=torch.float64),
            **{f"network.{name}": value for name, value in self.network.state_dict().items()},
            **{
                f"optimizer.{name}": value for name, value in moments_of(self.optimizer, self.network).items()
            },
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take it back."""
        done, steps, *verdict = state["numbers"].tolist()
        self.done, self.steps, self.verdict = int(done), int(steps), Verdict(*verdict)
        self.network.load_state_dict(_below(state, "network."))
        restore_moments(self.optimizer, self.network, _below(state, "optimizer."))


def _below(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
