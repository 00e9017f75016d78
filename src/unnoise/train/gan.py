"""Training a GAN (a compact BigGAN: Brock, Donahue, Simonyan 2019, arXiv 1809.11096).

The loop optimises the generator; the discriminator is the job's own and takes its steps after each of them,
on real pictures of its own and on pictures that the new generator draws.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from unnoise.config.load import to_dict
from unnoise.config.requests import GenerateRequest
from unnoise.config.schema import TrainConfig
from unnoise.data import Dataset, order
from unnoise.data.split import hold_out
from unnoise.diffusion.noise import seeded_generator
from unnoise.gan import STANDING_BATCH, STANDING_BATCHES, GanModel, averaged, build_gan, save_gan
from unnoise.generate import draw
from unnoise.images import save_png, to_images
from unnoise.job import sheet
from unnoise.modelfile import ModelInfo
from unnoise.networks.spectral import iterate
from unnoise.planning import plan
from unnoise.train.augment import NUMBERS
from unnoise.train.building import compute_in, data_summary, drawn_weights
from unnoise.train.gan_health import Health, spectrum, verdict
from unnoise.train.job import Losses
from unnoise.train.opponent import Opponent, Seen

WARM = 10
"""A generator is young for this part of its steps: nobody is told then that it draws few pictures."""


@dataclass(frozen=True, eq=False)
class GanBatch:
    """All that a step of both players asks for. K: steps of the discriminator."""

    step: int
    pixels: Tensor
    """uint8 (B, K, H, W, C): real pictures for each of its steps."""
    z: Tensor
    """(B, 1 + K, latent): for the generator's step, then for each of the discriminator's."""
    label: Tensor | None = None
    """(B, 1 + K) int64, of what is drawn; in the discriminator's steps of the real pictures too."""
    changes: Tensor | None = None
    """(B, 1 + 2 K, augment.NUMBERS): of the generator's pictures, then of real and of drawn ones in turn."""

    def __len__(self) -> int:
        return len(self.z)

    def take(self, rows: slice) -> "GanBatch":
        """Some of the rows."""
        return self._map(lambda value: value[rows])

    def to(self, device: torch.device) -> "GanBatch":
        """On a device."""
        return self._map(lambda value: value.to(device, non_blocking=True))

    def pin(self) -> "GanBatch":
        """In page-locked memory."""
        return self._map(Tensor.pin_memory)

    def labels(self, k: int) -> Tensor | None:
        """Classes of the generator's step (0) or of a step of the discriminator (from 1)."""
        return None if self.label is None else self.label[:, k]

    def change(self, k: int) -> Tensor | None:
        """How some pictures are changed."""
        return None if self.changes is None else self.changes[:, k]

    def _map(self, change: Callable[[Tensor], Tensor]) -> "GanBatch":
        return replace(
            self,
            pixels=change(self.pixels),
            z=change(self.z),
            label=None if self.label is None else change(self.label),
            changes=None if self.changes is None else change(self.changes),
        )


class GanJob:
    """One GAN learning one data set. Settings are complete (config.resolve)."""

    groups = ()

    def __init__(self, config: TrainConfig, dataset: Dataset, device: torch.device) -> None:
        assert config.gan is not None, "settings are resolved"
        self.config, self.settings = config, config.gan
        held_out = None
        self.dataset, self.identity = dataset, dataset.fingerprint
        if self.settings.held_out:
            self.dataset, held_out = hold_out(dataset, self.settings.held_out)
        info = ModelInfo(
            classes=dataset.classes, preset=config.preset, data=data_summary(dataset, len(self.dataset))
        )
        with drawn_weights(config.seed):
            self.model = build_gan(self.settings.generator, info).to(device)
            self.opponent = Opponent(config, device)
        compute_in(self.model.network, config.precision, device)
        self.health = Health(self.dataset, held_out, config.seed, device)
        self.warning = ""
        self._seen: list[GanBatch] = []
        self._step = -1

    @property
    def network(self) -> nn.Module:
        """The generator."""
        return self.model.network

    def draw(self, step: int, positions: range) -> GanBatch:
        """The pictures, z, classes and changes at these positions of a step's global batch."""
        config, settings = self.config, self.settings
        turns, size = settings.discriminator_steps, config.batch_size
        mine = np.arange(positions.start, positions.stop)
        places = mine + step * size
        real = [self.dataset.batch(step, mine + (step * turns + turn) * size) for turn in range(turns)]
        z = torch.empty(len(mine), 1 + turns, settings.generator.latent)
        for row, place in zip(z, places.tolist(), strict=True):
            row.normal_(generator=seeded_generator(config.seed, "z", place))
        label, changes = None, None
        if settings.generator.classes is not None:
            # Classes of real pictures, each drawn as often; the generator's are of the step before.
            known = [self.dataset.labels_at(mine + max(0, step * turns - 1) * size), *(r.label for r in real)]
            label = torch.stack([each for each in known if each is not None], dim=1)
        if settings.augment:
            count = (1 + 2 * turns) * NUMBERS
            numbers = order.uniforms(config.seed, "augment", places, count).astype(np.float32)
            changes = torch.from_numpy(numbers).view(len(mine), 1 + 2 * turns, NUMBERS)
        return GanBatch(step, torch.stack([r.pixels for r in real], dim=1), z, label, changes)

    def losses(self, network: nn.Module, batch: GanBatch) -> Losses:
        """-D(G(z)), with what the discriminator said in its last step."""
        if batch.step != self._step:
            self._seen, self._step = [], batch.step
        self._seen.append(batch)
        label = batch.labels(0)
        loss = -self.opponent.scores(network(batch.z[:, 0], label), label, batch.change(0))
        scores = {}
        if self.opponent.done:
            last = self.opponent.verdict
            values = {
                **{"d/real": last.real, "d/fake": last.fake, "d/margin": last.real - last.fake},
                **{"d/accuracy": last.accuracy, "d/loss": last.loss, "d/grad_norm": last.grad_norm},
            }
            scores = {name: torch.full_like(loss, value) for name, value in values.items()}
        return Losses(loss, scores=scores)

    def observe(self, aside: Mapping[str, Tensor], *, steps: int) -> None:
        """The turns of the discriminator, after a step of the generator."""
        iterate(self.network)
        for turn in range(self.settings.discriminator_steps):
            self.opponent.learn([partial(self._pair, batch, turn) for batch in self._seen], steps)
        self.opponent.count(steps)
        self._seen = []

    @torch.no_grad()
    def _pair(self, batch: GanBatch, turn: int) -> Seen:
        """Real and drawn pictures of a turn; the generator's norms see this micro-batch."""
        label = batch.labels(1 + turn)
        real, fake = batch.change(1 + 2 * turn), batch.change(2 + 2 * turn)
        return Seen(
            to_images(batch.pixels[:, turn]),
            self.network(batch.z[:, 1 + turn], label),
            label,
            None if real is None or fake is None else (real, fake),
        )

    def state_dict(self) -> dict[str, Tensor]:
        """The opponent with its optimiser."""
        return {f"opponent.{name}": value for name, value in self.opponent.state_dict().items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take it back."""
        self._seen, self._step = [], -1
        self.opponent.load_state_dict({k.removeprefix("opponent."): v for k, v in state.items()})

    def averaged(self, weights: Mapping[str, Tensor]) -> GanModel:
        """A model of its own around an average, with standing statistics of its own."""
        return GanModel(averaged(self.model.network, weights), self.model.info)

    def telling(self, model: GanModel) -> None:
        """A GAN is told a class alone."""

    def save(
        self,
        path: Path,
        weights: Mapping[str, Tensor],
        *,
        step: int,
        rate: float,
        scores: Mapping[str, float] | None = None,
    ) -> None:
        """Write a model file, with what was measured of it."""
        model = self.averaged(weights)
        info = replace(model.info, step=step, ema_rate=rate, scores=dict(scores or {}))
        save_gan(path, replace(model, info=info))

    @property
    def sampled(self) -> int:
        """A grid with what is measured beside it, where features cost about as much again as drawing."""
        return 2 * self.passes(self._shown + self.health.passes)

    def passes(self, pictures: int) -> int:
        """What drawing so many with standing statistics of their own costs, in thirds of a step a picture.

        A step of both players costs about 6 passes of the generator and 7 for each turn of the discriminator,
        where the networks are alike and a backward pass costs two forward ones.
        """
        pictures += STANDING_BATCHES * STANDING_BATCH
        return round(3 * pictures / (6 + 7 * self.settings.discriminator_steps))

    @property
    def _shown(self) -> int:
        classes = len(self.dataset.classes)
        return self.config.sample_count or (8 * classes if 1 < classes <= 10 else 64)

    def sample(
        self, path: Path, weights: Mapping[str, Tensor], *, on_step: Callable[[], None]
    ) -> dict[str, float]:
        """Draw a grid, the same z every time, and see how healthy both players are."""
        on_step()
        model = self.averaged(weights)
        request = GenerateRequest(n=self._shown, seed=self.config.seed, precision=self.config.precision)
        ready = plan(model, request)
        pixels = torch.cat([batch.pixels for batch in draw(ready, ready.ids, lambda _: on_step())])
        save_png(path, sheet(ready, pixels.numpy()), to_dict(request))
        measured = self.health.diversity(model)
        on_step()
        young = self.opponent.done < self.opponent.steps // WARM
        self.warning = "" if young else verdict(measured)
        measured |= self.health.scores(model, self.opponent)
        players = {"generator": self.network, "discriminator": self.opponent.network}
        spectra = {
            f"health/{owner}/{name}": value
            for owner, network in players.items()
            for name, value in spectrum(network).items()
        }
        return {f"health/{name}": value for name, value in measured.items()} | spectra
