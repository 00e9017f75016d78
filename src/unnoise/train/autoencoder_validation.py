"""What a first stage is worth: reconstructions of held-out pictures."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from unnoise.data import Dataset
from unnoise.first_stage import FirstStage, LatentStatistics, measure_latents
from unnoise.images import grid, to_images, to_pixels
from unnoise.metrics.extractors.classifier import SHIPPED, ClassifierFeatures
from unnoise.metrics.frechet import frechet_distance
from unnoise.metrics.reconstruction import psnr, ssim
from unnoise.metrics.statistics import Moments
from unnoise.networks.autoencoder import FirstStageNetwork, KlAutoencoder
from unnoise.networks.posterior import Posterior
from unnoise.train.first_stage_losses import code_counts, perplexity
from unnoise.train.perceptual import Perceptual
from unnoise.train.validation import chosen

MEASURED = 128
"""Pictures that a validation looks at, at most; the same ones every time."""
SHOWN = 24
"""Pictures of the sheet."""
PAIRS = 6
"""In a row."""
_BLOCK = 16
_WINDOW = 11
"""Pixels that SSIM needs a side."""


@dataclass(frozen=True, eq=False)
class AutoencoderValidation:
    """Held-out pictures, those that the seed chooses."""

    dataset: Dataset
    seed: int
    perceptual: Perceptual | None

    @property
    def passes(self) -> int:
        """Pictures that `measure` and `sheet` put through the network."""
        return len(self._places) + min(SHOWN, len(self._places))

    @torch.no_grad()
    def measure(self, network: FirstStageNetwork, on_step: Callable[[], None]) -> dict[str, float]:
        """Means of PSNR, SSIM and the perceptual distance; a Frechet distance; the codes in use.

        Its features are the shipped ones, and the pictures few: biased alike at every step.
        """
        found: dict[str, list[Tensor]] = {"psnr": []}
        sides: list[list[Tensor]] = [[], []]
        counts = torch.zeros(0)
        coloured = self.dataset.channels in (1, 3)
        features = ClassifierFeatures.open(device=str(_device(network))) if coloured else None
        for pixels in self._blocks():
            on_step()
            images = to_images(pixels).to(_device(network))
            encoded = network.encode(images)
            fakes = network.decode(_likeliest(network, encoded))
            made = to_pixels(fakes.cpu())
            found["psnr"].append(psnr(real=pixels, fake=made).clamp_max(100))
            if min(pixels.shape[1:3]) >= _WINDOW:
                found.setdefault("ssim", []).append(ssim(real=pixels, fake=made))
            if self.perceptual is not None:
                distance = self.perceptual(images, fakes.clamp(-1, 1)).flatten().double().cpu()
                found.setdefault(self.perceptual.name, []).append(distance)
            if features is not None:
                for side, given in zip(sides, (pixels, made), strict=True):
                    side.append(features(given).pool.cpu())
            if not isinstance(network, KlAutoencoder):
                codes = network.settings.codes
                new = code_counts(network.quantize.nearest(encoded), codes).cpu()
                counts = counts + new if len(counts) else new
        means = {name: torch.cat(values).mean().item() for name, values in found.items()}
        if len(self._places) > 1 and features is not None:
            real, fake = (Moments.of(torch.cat(side)).gaussian() for side in sides)
            means[f"FD[{SHIPPED}]"] = frechet_distance(real=real, fake=fake)
        if len(counts):
            means["codebook/usage"] = (counts > 0).double().mean().item()
            means["codebook/perplexity"] = perplexity(counts).item()
        return means

    @torch.no_grad()
    def sheet(self, network: FirstStageNetwork) -> np.ndarray:
        """Pictures beside their reconstructions, uint8 (height, width, 3)."""
        pixels = self.dataset.take(self._places[:SHOWN]).pixels
        images = to_images(pixels).to(_device(network))
        made = to_pixels(network.decode(_likeliest(network, network.encode(images))).cpu())
        heads = ["real", "reconstruction"] * min(PAIRS, len(pixels))
        return grid(torch.stack([pixels, made], 1).flatten(0, 1), len(heads), heads=heads)

    def latents(self, stage: FirstStage) -> LatentStatistics:
        """Mean and deviation of unscaled latents."""
        return measure_latents(stage.encode(to_images(pixels).to(stage.device)) for pixels in self._blocks())

    def _blocks(self) -> Iterator[Tensor]:
        for start in range(0, len(self._places), _BLOCK):
            yield self.dataset.take(self._places[start : start + _BLOCK]).pixels

    @property
    def _places(self) -> np.ndarray:
        return chosen(self.dataset, self.seed)[:MEASURED]


def _device(network: FirstStageNetwork) -> torch.device:
    return network.quant_conv.weight.device


def _likeliest(network: FirstStageNetwork, encoded: Tensor) -> Tensor:
    return Posterior.of(encoded).mean if isinstance(network, KlAutoencoder) else encoded
