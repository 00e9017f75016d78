"""A U-Net that names codes of a codebook instead of values, as latent diffusion's `n_embed` option has it."""

from typing import Any

from torch import Tensor, nn

from unnoise.networks.layers import Conv2d
from unnoise.networks.norm import GroupNorm
from unnoise.networks.settings import UNetSettings
from unnoise.networks.unet import UNet


class CodeUNet(nn.Module):
    """Logits over the codes at every position = CodeUNet(x, t, cond), of the U-Net's last activations.

    The original keeps the layers that predict values beside these, unused, as this does: `unet.out`.
    """

    def __init__(self, settings: UNetSettings, codes: int) -> None:
        super().__init__()
        if settings.patch > 1:
            raise ValueError(f"patch={settings.patch}: codes are of single positions; use patch=1")
        self.unet = UNet(settings)
        width = int(settings.channel_mult[0] * settings.width)
        self.id_predictor = nn.Sequential(GroupNorm(width), Conv2d(width, codes, 1))

    def forward(self, x: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        """x: (B, C, H, W), t: (B,) -> (B, codes, H, W)."""
        return self.id_predictor(self.unet.features(x, t, cond))
