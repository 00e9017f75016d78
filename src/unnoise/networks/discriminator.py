"""PatchGAN, the discriminator of first stages (Isola et al. 2017, arXiv 1611.07004).

Parameter names are those of taming-transformers without their `loss.discriminator.`.
"""

import torch
from torch import Tensor, nn

from unnoise.networks.first_stage_settings import DiscriminatorSettings
from unnoise.networks.layers import Conv2d

SLOPE = 0.2
"""Of the activations below 0."""
MOST = 8
"""Layers grow to this multiple of the first one's width."""


class ActNorm(nn.Module):
    """scale * (x + loc), set by the first batch in training so that channels have mean 0 and deviation 1.

    Kingma & Dhariwal 2018 (Glow, arXiv 1807.03039), section 3.1.
    """

    initialized: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.loc = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.scale = nn.Parameter(torch.ones(1, channels, 1, 1))
        self.register_buffer("initialized", torch.tensor(0, dtype=torch.uint8))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        if self.training and not self.initialized:
            with torch.no_grad():
                self.loc.copy_(-x.mean((0, 2, 3), keepdim=True))
                self.scale.copy_(1 / (x.std((0, 2, 3), keepdim=True) + 1e-6))
                self.initialized.fill_(1)
        return self.scale * (x + self.loc)


class Discriminator(nn.Module):
    """Logits of "this patch is real", one for each place of a small map."""

    def __init__(self, settings: DiscriminatorSettings, channels: int) -> None:
        super().__init__()
        settings.check()
        self.settings = settings
        width, by_batch = settings.width, settings.norm == "batch"
        layers: list[nn.Module] = [Conv2d(channels, width, 4, stride=2, padding=1), nn.LeakyReLU(SLOPE)]
        for number in range(1, settings.layers + 1):
            wider = settings.width * min(2**number, MOST)
            stride = 2 if number < settings.layers else 1
            layers += [
                Conv2d(width, wider, 4, stride=stride, padding=1, bias=not by_batch),
                nn.BatchNorm2d(wider) if by_batch else ActNorm(wider),
                nn.LeakyReLU(SLOPE),
            ]
            width = wider
        self.main = nn.Sequential(*layers, Conv2d(width, 1, 4, stride=1, padding=1))
        self.apply(_initialise)
        self.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Tensor:
        """(B, channels, H, W) -> (B, 1, h, w)."""
        return self.main(images.contiguous(memory_format=torch.channels_last))

    @property
    def least_side(self) -> int:
        """Pixels that both sides of a picture must have."""
        # The last two layers of kernel 4, stride 1 and padding 1 take a position each.
        return 3 * 2**self.settings.layers


def _initialise(module: nn.Module) -> None:
    """DCGAN's start (Radford et al. 2016): weights with deviation 0.02."""
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)
