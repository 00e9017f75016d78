"""Which type a network computes in."""

import functools
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from unnoise.networks.encoder_unet import EncoderUNet
from unnoise.networks.unet import UNet

N = TypeVar("N", UNet, EncoderUNet)


def to_half_torso(network: N, dtype: torch.dtype = torch.float16) -> N:
    """ADM's half-precision layout, in place: convolutions of all blocks, and activations between.

    Norms, time and class embeddings, projections of them and the final layers stay float32.
    """
    torso = [network.input_blocks, network.middle_block]
    if isinstance(network, UNet):
        torso.append(network.output_blocks)
    for blocks in torso:
        for module in blocks.modules():
            if isinstance(module, nn.Conv1d | nn.Conv2d):
                module.to(dtype)
    network.compute_dtype = dtype
    return network


def compute_dtype(precision: str, device: torch.device) -> torch.dtype:
    """The type of a network's activations: for "auto" bfloat16 where the hardware has arithmetic for it."""
    if precision != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[precision]
    if device.type == "cuda":
        fast = torch.cuda.get_device_capability(device) >= (8, 0)
    else:
        fast = device.type == "cpu" and _cpu_has_bfloat16()
    return torch.bfloat16 if fast else torch.float32


@functools.cache
def _cpu_has_bfloat16() -> bool:
    # torch's own questions are private, or newer than the oldest torch that is supported.
    try:
        flags = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        return False
    return bool(flags & {"avx512_bf16", "amx_bf16", "bf16"})  # the last is Arm's name
