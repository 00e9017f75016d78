"""First stages side by side on held-out pictures: how far, how sharp, how wide.

    python scripts/compare_stages.py emoji64/test runs/l1 runs/perceptual runs/adversarial

PSNR and LPIPS of reconstructions; their energy at high frequencies as a share of the real pictures' (below
100 % they are blurred, above they are noisy); the deviation of unscaled latents; of a codebook the share of
codes that are chosen, and as many codes as would carry the choices if all were equal. Of pictures in colour
the share of their variance that is kept, of grey, from red to blue, and from green to magenta. A line a run,
means with 95 % intervals over pictures.
"""

import argparse
import math

import torch
from torch import Tensor

from unnoise.config.schema import DataConfig
from unnoise.data import open_data, order
from unnoise.data.dataset import Dataset
from unnoise.distributed import choose_device
from unnoise.first_stage import FirstStage, load_first_stage
from unnoise.images import to_images, to_pixels
from unnoise.metrics.reconstruction import psnr
from unnoise.networks.autoencoder import KlAutoencoder
from unnoise.train.first_stage_losses import code_counts, perplexity
from unnoise.train.perceptual import Perceptual, choose, open_perceptual

BLOCK = 64
HIGH = 0.25
"""Cycles a pixel from which a frequency is high: half of the highest along an axis."""
COLOURS = ("lost", "square", "mean")
"""Of the axes of colour: squared errors, squares, means."""


def high_energy(images: Tensor) -> Tensor:
    """Mean square of what lies at high frequencies, (B,) of images (B, C, H, W)."""
    height, width = images.shape[2:]
    spectrum = torch.fft.fft2(images.double(), norm="ortho").abs().square()
    radius = torch.hypot(torch.fft.fftfreq(height)[:, None], torch.fft.fftfreq(width)[None])
    return (spectrum * (radius >= HIGH)).mean((1, 2, 3))


def opponent(images: Tensor) -> Tensor:
    """Grey, red to blue, green to magenta: three axes at right angles, (B, 3, H, W) of RGB images."""
    axes = torch.tensor([[1.0, 1, 1], [1, 0, -1], [-1, 2, -1]], dtype=torch.float64)
    return torch.einsum("ij,bjhw->bihw", axes / axes.norm(dim=1, keepdim=True), images.double())


def interval(values: Tensor) -> str:
    """Mean and half of its 95 % interval."""
    half = 1.96 * values.std().item() / math.sqrt(len(values))
    return f"{values.mean().item():7.3f} +- {half:.3f}"


@torch.no_grad()
def measured(stage: FirstStage, data: Dataset, places: Tensor, perceptual: Perceptual | None) -> str:
    """One line of the table."""
    kept: dict[str, list[Tensor]] = {
        name: [] for name in ("psnr", "lpips", "made", "real", "latents", *COLOURS)
    }
    counts: Tensor | float = 0.0
    gaussian = isinstance(stage.network, KlAutoencoder)
    for block in places.split(BLOCK):
        pixels = data.take(block).pixels
        images = to_images(pixels)
        seen = images.to(stage.device)
        latents = stage.encode(seen)
        fakes = stage.decode(latents).clamp(-1, 1)
        made = to_pixels(fakes).cpu()
        kept["psnr"].append(psnr(real=pixels, fake=made).clamp_max(100))
        if perceptual is not None:
            kept["lpips"].append(perceptual(seen, fakes).flatten().double().cpu())
        kept["made"].append(high_energy(to_images(made)))
        kept["real"].append(high_energy(images))
        if images.shape[1] == 3:
            axes = opponent(images)
            errors = (opponent(to_images(made)) - axes).square()
            for name, values in zip(COLOURS, (errors, axes.square(), axes), strict=True):
                kept[name].append(values.mean((2, 3)))
        encoded = stage.network.encode(seen)
        kept["latents"].append((encoded.chunk(2, 1)[0] if gaussian else encoded).flatten().cpu())
        if not gaussian:
            counts = counts + code_counts(
                stage.network.quantize.nearest(encoded), stage.network.settings.codes
            )
    found = {name: torch.cat(values) for name, values in kept.items() if values}
    energy = 100 * found["made"].sum() / found["real"].sum()
    line = f"{interval(found['psnr'])} dB"
    if perceptual is not None:
        line += f"   {interval(found['lpips'])}"
    line += f"   {energy:5.1f} %   {found['latents'].std():7.2f}"
    if "lost" in found:
        lost, square, mean = (found[name].mean(0) for name in COLOURS)
        line += "   " + " ".join(
            f"{round(100 * float(share)):3d} %" for share in 1 - lost / (square - mean**2)
        )
    if isinstance(counts, Tensor):
        used = 100 * (counts > 0).double().mean()
        line += f"   {used:.1f} % of {len(counts)}, as {perplexity(counts):.0f}"
    return line


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("data")
    parser.add_argument("first_stages", nargs="+")
    parser.add_argument("-n", type=int, default=1000, help="Pictures, chosen by the seed.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--lpips", default="auto", help="What compares pictures, as autoencoder.perceptual.")
    chosen = parser.parse_args()
    device = choose_device("auto")
    perceptual = open_perceptual(choose(chosen.lpips), device)
    name = "" if perceptual is None else perceptual.name
    for number, path in enumerate(chosen.first_stages):
        stage = load_first_stage(path, device)
        channels = stage.config.network.in_channels
        data = open_data(DataConfig(source=chosen.data, channels=channels, labels="none"))
        count = min(chosen.n, len(data))
        places = torch.from_numpy(order.pictures(chosen.seed, len(data), torch.arange(count).numpy()))
        if not number:
            print(f"{count:,} pictures of {chosen.data}")
            print(f"{'':30}{'PSNR':>16}   {name:>18}   high   latents' deviation   grey, r-b, g-m   codes")
        print(f"{path[-28:]:30}{measured(stage, data, places, perceptual)}", flush=True)


if __name__ == "__main__":
    main()
