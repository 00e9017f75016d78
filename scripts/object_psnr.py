"""PSNR of a first stage's reconstructions over the object's own pixels, those that are not transparent.

    python scripts/object_psnr.py runs/stage emoji64/test

A white background is easy to keep and would hide what becomes of the object: it is left out here. For LPIPS
and the distance of whole pictures see `unnoise evaluate --paired`.
"""

import argparse

import torch
from torch import Tensor

from unnoise.config.schema import DataConfig
from unnoise.data import open_data
from unnoise.distributed import choose_device
from unnoise.first_stage import load_first_stage
from unnoise.images import to_images, to_pixels

BLOCK = 64


def over_white(pixels: Tensor) -> Tensor:
    """uint8 (B, H, W, 4) laid over white: uint8 (B, H, W, 3)."""
    colour, alpha = pixels[..., :3].float(), pixels[..., 3:].float() / 255
    return (colour * alpha + 255 * (1 - alpha)).round().to(torch.uint8)


def psnr(real: Tensor, fake: Tensor, counted: Tensor) -> Tensor:
    """dB of each picture over the pixels that count.

    real, fake: uint8 (B, H, W, 3); counted: bool (B, H, W).
    """
    error = (real.float() - fake.float()).square().mean(3)
    mean = (error * counted).sum((1, 2)) / counted.sum((1, 2)).clamp(min=1)
    return 10 * torch.log10(255**2 / mean.clamp(min=1e-6))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("first_stage")
    parser.add_argument("data", help="Pictures with transparency, such as OUT/test of `unnoise build emoji`.")
    parser.add_argument("-n", type=int, help="Pictures, the first ones; all by default.")
    chosen = parser.parse_args()
    stage = load_first_stage(chosen.first_stage, choose_device("auto"))
    data = open_data(DataConfig(source=chosen.data, channels=4, labels="none"))
    of_object, of_all, shares = [], [], []
    for start in range(0, min(chosen.n or len(data), len(data)), BLOCK):
        pixels = data.take(torch.arange(start, min(start + BLOCK, len(data)))).pixels
        real, object_ = over_white(pixels), pixels[..., 3] > 0
        with torch.no_grad():
            images = to_images(real).to(stage.device)
            fake = to_pixels(stage.decode(stage.encode(images))).cpu()
        of_object.append(psnr(real, fake, object_))
        of_all.append(psnr(real, fake, torch.ones_like(object_)))
        shares.append(object_.float().mean((1, 2)))
    values, share = torch.cat(of_object), torch.cat(shares).mean()
    print(
        f"{len(values):,} pictures: {values.mean():.2f} dB over the object ({share:.0%} of it), lowest "
        f"tenth {values.quantile(0.1):.2f}; {torch.cat(of_all).mean():.2f} dB over all pixels"
    )


if __name__ == "__main__":
    main()
