"""A trained GAN: its generator, class names and standing statistics, in memory and as one file."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unnoise.config.load import FORMAT, from_dict, to_dict
from unnoise.diffusion.noise import seeded_generator
from unnoise.modelfile import (
    METADATA_KEY,
    ModelInfo,
    find_model,
    kind_of,
    put_weights,
    read_header,
    read_weights,
)
from unnoise.networks.gan_settings import GeneratorSettings
from unnoise.networks.generator import Generator, Standing
from unnoise.networks.spectral import iterate
from unnoise.tensorfile import write_tensors

KIND = "gan"
"""What the header of the file says that it holds."""
STANDING_BATCHES, STANDING_BATCH = 16, 64
"""Of fixed z and classes, over which standing statistics are measured."""
SETTLED = 20
"""Power iterations after which u belongs to an average's weights instead of to those of training."""


@dataclass(frozen=True, eq=False)
class GanModel:
    """A generator with the names of its classes. Its norms hold standing statistics of z as in training."""

    network: Generator
    info: ModelInfo = field(default_factory=ModelInfo)
    _truncated: dict[float, Generator] = field(default_factory=dict, repr=False)

    @property
    def settings(self) -> GeneratorSettings:
        """Of the generator."""
        return self.network.settings

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of their indices; empty for an unconditional model."""
        return self.info.classes

    @property
    def class_names(self) -> tuple[str, ...]:
        """What can be asked for: the names, or the numbers of classes that have none."""
        return self.classes or tuple(map(str, range(self.settings.classes or 0)))

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.network.linear.weight.device

    @property
    def meta(self) -> dict[str, Any]:
        """What the file says about the model, as plain data."""
        return {KIND: to_dict(self.settings), **to_dict(self.info)}

    def to(self, device: str | torch.device) -> "GanModel":
        """The same model on another device (its network is moved, not copied)."""
        self._truncated.clear()
        self.network.to(device)
        return self

    def generator(self, truncation: float | None = None) -> Generator:
        """The generator with standing statistics of z truncated so (Brock et al. 2019, section 3.1).

        Measured once for each truncation and kept; weights are shared. They are functions of the model and
        the truncation alone.
        """
        if truncation is None:
            return self.network
        if truncation not in self._truncated:
            self._truncated[truncation] = with_weights(
                self.network, measured_standing(self.network, truncation)
            )
        return self._truncated[truncation]

    def sample(self, **options: Any) -> Any:
        """Pictures drawn with the options of `GenerateRequest`; see `unnoise.generate.sample`."""
        from unnoise.generate import sample

        return sample(self, **options)


def truncated(z: Tensor, most: float | None) -> Tensor:
    """Standard normal numbers z -> numbers of the normal distribution cut to [-most, most].

    That of resampling whatever is larger (Brock et al. 2019), by quantiles: z' = Phi^-1(1/2 + (Phi(z) - 1/2)
    (2 Phi(most) - 1)), so that one z gives z' that move smoothly with `most`. None: z itself.
    """
    if most is None:
        return z
    root = 2**0.5
    share = torch.erf(torch.tensor(most / root, dtype=torch.float64))
    moved = root * torch.erfinv(torch.erf(z.cpu().double() / root) * share)
    return moved.clamp(-most, most).to(z.device, z.dtype)


@torch.no_grad()
def measured_standing(network: Generator, truncation: float | None = None) -> Mapping[str, Tensor]:
    """Standing statistics of a generator, by buffer: over fixed batches of z truncated so and classes."""
    settings, device = network.settings, network.linear.weight.device
    training, dtype = network.training, network.compute_dtype
    network.train()
    network.compute_dtype = None  # pictures of every precision share them
    try:
        with Standing(network) as standing:
            for number in range(STANDING_BATCHES):
                generator = seeded_generator(0, "standing", number)
                z = torch.randn(STANDING_BATCH, settings.latent, generator=generator)
                label = None
                if settings.classes is not None:
                    label = torch.randint(settings.classes, (STANDING_BATCH,), generator=generator).to(device)
                network(truncated(z, truncation).to(device), label)
    finally:
        network.train(training)
        network.compute_dtype = dtype
    return standing.found()


def with_weights(network: Generator, weights: Mapping[str, Tensor]) -> Generator:
    """A generator of its own like another one, not training, with some tensors replaced; it shares all."""
    with torch.device("meta"):
        like = Generator(network.settings)
    like.load_state_dict({**network.state_dict(), **weights}, assign=True)
    like.eval().requires_grad_(False)
    like.compute_dtype = network.compute_dtype
    return like


def averaged(network: Generator, weights: Mapping[str, Tensor]) -> Generator:
    """A generator around an average of a training network's weights, ready to draw."""
    own = {name: value.clone() for name, value in network.state_dict().items() if name not in weights}
    found = with_weights(network, {**own, **weights})
    iterate(found, SETTLED)
    found.load_state_dict({**found.state_dict(), **measured_standing(found)})
    return found


def build_gan(settings: GeneratorSettings, info: ModelInfo | None = None) -> GanModel:
    """A GAN with fresh weights, drawn by torch's generator, from complete settings (see config.resolve)."""
    info = info or ModelInfo()
    if info.classes and settings.classes != len(info.classes):
        raise ValueError(
            f"gan.generator.classes={settings.classes} does not fit {len(info.classes)} class names"
        )
    return GanModel(Generator(settings), info)


def save_gan(path: Path | str, model: GanModel, *, dtype: torch.dtype | None = None) -> None:
    """Write one safetensors file, atomically, its weights as `dtype` (None keeps their type)."""
    from unnoise import __version__

    info = replace(model.info, version=model.info.version or __version__)
    header = {"format": FORMAT, "kind": KIND, KIND: to_dict(model.settings), "info": to_dict(info)}
    write_tensors(Path(path), model.network.state_dict(), {METADATA_KEY: json.dumps(header)}, dtype=dtype)


def load_gan(path: Path | str, device: str | torch.device = "cpu") -> GanModel:
    """The GAN of a file, or of a run directory, ready to draw. ValueError when it is of another kind."""
    path = find_model(Path(path))
    header = read_header(path)
    if header.get("kind") != KIND:
        raise ValueError(f"{path} is {kind_of(header)}, not a GAN; train one with: unnoise train gan-28")
    settings = from_dict(GeneratorSettings, header.get(KIND, {}), where=str(path))
    info = from_dict(ModelInfo, header.get("info", {}), where=str(path))
    with torch.device("meta"):
        model = build_gan(settings, info)
    put_weights(model.network, read_weights(path), path)
    return model.to(device)
