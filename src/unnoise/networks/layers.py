"""Convolutions and linear maps that compute in the type of the activations they meet.

Parameters may stay float32 (master weights) while activations are bfloat16 or float16: the cast happens here,
at use, so one network serves float32, reduced precision and ADM's float16 torso without autocast.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def is_channels_last(x: Tensor) -> bool:
    """Whether the channels of (B, C, H, W) lie together in memory."""
    return x.is_contiguous(memory_format=torch.channels_last)


class Conv2d(nn.Conv2d):
    """A 2-d convolution in the type and memory layout of its input."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) -> (B, out, H', W'), of the type of x."""
        layout = torch.channels_last if is_channels_last(x) else torch.contiguous_format
        weight = self.weight.to(x.dtype, memory_format=layout)
        bias = None if self.bias is None else self.bias.to(x.dtype)
        if self.kernel_size == (1, 1) and x.device.type == "cpu" and is_channels_last(x):
            # As a convolution it would take PyTorch's slow path in float32 (docs/speed.md).
            return F.linear(x.permute(0, 2, 3, 1), weight[:, :, 0, 0], bias).permute(0, 3, 1, 2)
        return self._conv_forward(x, weight, bias)


class Linear(nn.Linear):
    """A linear map in the type of its input."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out), of the type of x."""
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return F.linear(x, self.weight.to(x.dtype), bias)


class LayerNorm(nn.LayerNorm):
    """Normalisation over the last dimension in the type of its input, statistics in float32."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) -> the same shape and type."""
        weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
        return F.layer_norm(x, self.normalized_shape, weight, bias, self.eps)


class PointwiseConv1d(nn.Conv1d):
    """A 1x1 convolution over positions, kept as (out, in, 1) like the published files, for (B, N, in)."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(channels_in, channels_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, in) -> (B, N, out): channels last, so that heads come out contiguous."""
        assert self.bias is not None
        return F.linear(x, self.weight[:, :, 0].to(x.dtype), self.bias.to(x.dtype))


def zeroed(module: nn.Module) -> nn.Module:
    """The module with all parameters 0: residual branches start as the identity (ADM, Ho et al.)."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


RSQRT2 = 1 / math.sqrt(2)


def residual(x: Tensor, h: Tensor, rescale: bool) -> Tensor:
    """Residual sum x + h, times 1/sqrt(2) if `rescale`, to keep its variance (arXiv 2011.13456)."""
    return torch.add(x, h) * RSQRT2 if rescale else x + h
