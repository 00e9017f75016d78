"""The networks that are compared: the same ADM U-Net, built by us and by diffusers, each with its steps."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unnoise.diffusion.condition import Condition
from unnoise.networks.settings import UNetSettings
from unnoise.networks.unet import UNet
from unnoise.runtime import keep_freed_memory


@dataclass(frozen=True)
class Architecture:
    """One ADM U-Net: residual blocks that resample, AdaGN, attention at the given factors."""

    size: int = 32
    width: int = 64
    channel_mult: tuple[int, ...] = (1, 2, 2)
    depth: int = 2
    attention: tuple[int, ...] = (2, 4)
    head_channels: int = 32
    channels: int = 3


@dataclass(frozen=True, eq=False)
class Rival:
    """A network, how to call it, and what its optimiser holds."""

    network: nn.Module
    call: Callable[[Tensor, Tensor], Tensor]

    @property
    def parameters(self) -> int:
        return sum(p.numel() for p in self.network.parameters())


def unnoise(a: Architecture, precision: str, *, compiled: bool) -> Rival:
    """Ours with the defaults of training and sampling."""
    keep_freed_memory()
    network = UNet(
        UNetSettings(
            in_channels=a.channels,
            out_channels=2 * a.channels,
            width=a.width,
            depth=a.depth,
            channel_mult=a.channel_mult,
            attention=a.attention,
            head_channels=a.head_channels,
            updown_blocks=True,
        )
    )
    network.compute_dtype = None if precision == "float32" else torch.bfloat16
    call = torch.compile(network, dynamic=False) if compiled else network
    return Rival(network, lambda x, t: call(x, t, Condition()))


def diffusers(a: Architecture, precision: str, *, compiled: bool) -> Rival:
    """UNet2DModel with its own defaults; bfloat16 is autocast, as its training scripts have it."""
    from diffusers import UNet2DModel

    levels = range(len(a.channel_mult))
    attends = [2**level in a.attention for level in levels]
    network = UNet2DModel(
        sample_size=a.size,
        in_channels=a.channels,
        out_channels=2 * a.channels,
        block_out_channels=tuple(a.width * m for m in a.channel_mult),
        layers_per_block=a.depth,
        down_block_types=tuple("AttnDownBlock2D" if x else "ResnetDownsampleBlock2D" for x in attends),
        up_block_types=tuple("AttnUpBlock2D" if x else "ResnetUpsampleBlock2D" for x in reversed(attends)),
        downsample_type="resnet",
        upsample_type="resnet",
        attention_head_dim=a.head_channels,
        resnet_time_scale_shift="scale_shift",
        norm_num_groups=32,
        flip_sin_to_cos=True,
        freq_shift=0,
    )
    call = torch.compile(network, dynamic=False) if compiled else network

    def forward(x: Tensor, t: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            return call(x, t).sample

    return Rival(network, forward)


RIVALS = {"unnoise": unnoise, "diffusers": diffusers}


def inputs(a: Architecture, batch: int) -> tuple[Tensor, Tensor, Tensor]:
    """Noisy pictures, their steps, and the noise to be found."""
    g = torch.Generator().manual_seed(0)
    x, eps = torch.randn(2, batch, a.channels, a.size, a.size, generator=g)
    return x, torch.randint(0, 1000, (batch,), generator=g), eps


def forward_step(rival: Rival, a: Architecture, batch: int) -> Callable[[], None]:
    """One denoising step of a sampler: a forward pass without gradient and DDIM's update."""
    x, t, _ = inputs(a, batch)
    now, then = (math.cos(angle) for angle in (0.7, 0.6))

    def step() -> None:
        with torch.no_grad():
            eps = rival.call(x, t)[:, : a.channels].float()
            x0 = ((x - math.sqrt(1 - now**2) * eps) / now).clamp(-1, 1)
            torch.add(then * x0, eps, alpha=math.sqrt(1 - then**2))

    return step


def training_step(rival: Rival, a: Architecture, batch: int) -> Callable[[], None]:
    """Forward, backward, fused AdamW."""
    x, t, eps = inputs(a, batch)
    optimizer = torch.optim.AdamW(rival.network.parameters(), lr=1e-4, fused=True)

    def step() -> None:
        loss = (rival.call(x, t)[:, : a.channels].float() - eps).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


STEPS = {"forward": forward_step, "training": training_step}
