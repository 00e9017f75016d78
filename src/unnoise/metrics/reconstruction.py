"""How near a reconstruction is to its picture: PSNR, SSIM, LPIPS, and consistency after down-sampling.

For autoencoders, super-resolution and inpainting. Pictures are pairs, uint8 or float (B, H, W, C) of 0..255;
every function gives one number a pair. rFID is the Frechet distance of the reconstructions against their
pictures.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from unnoise.networks.lpips import Lpips

PEAK = 255.0


def _pair(real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
    if real.shape != fake.shape or real.ndim != 4:
        raise ValueError(
            f"pictures {tuple(real.shape)} and reconstructions {tuple(fake.shape)} are no pairs; "
            "expected (B, H, W, C) twice"
        )
    return real.permute(0, 3, 1, 2).double(), fake.permute(0, 3, 1, 2).double()


def psnr(*, real: Tensor, fake: Tensor) -> Tensor:
    """Peak signal-to-noise ratio 10 log10(255^2 / mean squared error), dB, (B,); infinite for equal
    pictures.
    """
    a, b = _pair(real, fake)
    return 10 * torch.log10(PEAK**2 / (a - b).square().mean((1, 2, 3)))


def _window(size: int, std: float) -> Tensor:
    x = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    w = torch.exp(-x.square() / (2 * std * std))
    return w / w.sum()


def ssim(*, real: Tensor, fake: Tensor, window: int = 11, std: float = 1.5) -> Tensor:
    """Structural similarity (Wang et al. 2004): Gaussian window 11, sigma 1.5, K1 0.01, K2 0.03, population
    moments.

    The mean over channels and over positions where the whole window fits; (B,), 1 for equal pictures. Needs
    11 pixels a side.
    """
    a, b = _pair(real, fake)
    if min(a.shape[2:]) < window:
        raise ValueError(f"pictures of {a.shape[3]}x{a.shape[2]} are smaller than SSIM's window of {window}")
    kernel = _window(window, std).to(a.device)
    channels = a.shape[1]

    def blur(x: Tensor) -> Tensor:
        x = F.conv2d(x, kernel.view(1, 1, -1, 1).expand(channels, 1, -1, 1), groups=channels)
        return F.conv2d(x, kernel.view(1, 1, 1, -1).expand(channels, 1, 1, -1), groups=channels)

    mean_a, mean_b = blur(a), blur(b)
    var_a, var_b = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2
    both = blur(a * b) - mean_a * mean_b
    c1, c2 = (0.01 * PEAK) ** 2, (0.03 * PEAK) ** 2
    value = (
        (2 * mean_a * mean_b + c1) * (2 * both + c2) / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
    )
    return value.mean((1, 2, 3))


def lpips(network: Lpips, *, real: Tensor, fake: Tensor) -> Tensor:
    """LPIPS of each pair, (B,); grey pictures are repeated to three channels."""
    a, b = (x.float() / (PEAK / 2) - 1 for x in _pair(real, fake))
    if a.shape[1] == 1:
        a, b = a.expand(-1, 3, -1, -1), b.expand(-1, 3, -1, -1)
    with torch.no_grad():
        value: Tensor = network(a, b)
    return value.flatten().double()


def shrunk(pixels: Tensor, factor: int) -> Tensor:
    """Pictures (B, k h, k w, C) averaged over k x k areas: float64 (B, h, w, C), not rounded."""
    return F.avg_pool2d(pixels.permute(0, 3, 1, 2).double(), factor).permute(0, 2, 3, 1)


def downsampled_psnr(*, low: Tensor, fake: Tensor) -> Tensor:
    """Consistency of super-resolution: PSNR in dB of the area-averaged result against its low-resolution
    input, (B,).

    low: (B, h, w, C); fake: (B, k h, k w, C) with one whole factor k.
    """
    factors = {fake.shape[1] / low.shape[1], fake.shape[2] / low.shape[2]}
    factor = factors.pop()
    if factors or factor != int(factor):
        raise ValueError(
            f"{tuple(fake.shape[1:3])} is not a whole multiple of {tuple(low.shape[1:3])}; crop one of them"
        )
    return psnr(real=low.double(), fake=shrunk(fake, int(factor)))
