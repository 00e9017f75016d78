"""Which type a network computes in."""

import torch
from torch import nn

from unnoise.networks.unet import UNet


def to_half_torso(network: UNet, dtype: torch.dtype = torch.float16) -> UNet:
    """ADM's half-precision layout, in place: the convolutions of all blocks and the activations between.

    Norms, time and class embeddings, projections of them and the final layers stay float32, as in the original.
    """
    for blocks in (network.input_blocks, network.middle_block, network.output_blocks):
        for module in blocks.modules():
            if isinstance(module, nn.Conv1d | nn.Conv2d):
                module.to(dtype)
    network.compute_dtype = dtype
    return network
