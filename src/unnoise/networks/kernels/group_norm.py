"""Group normalisation, modulation and SiLU as one operator on channels-last tensors: group_norm.c on a CPU,
group_norm_triton.py on a GPU.

A registered operator rather than an autograd.Function, so that torch.compile takes it as it is. Its backward
pass cannot be differentiated again; UNNOISE_KERNELS=off gives PyTorch's operators, which can.
"""

import importlib.util

import torch
from torch import Tensor

from unnoise.networks.kernels.build import library, wanted

DTYPES = {
    "cpu": (torch.float32, torch.bfloat16),
    "cuda": (torch.float32, torch.bfloat16, torch.float16),
}
"""Kind of device -> the types of x that its kernels take."""


def is_available(device: str = "cpu") -> bool:
    """Whether kernels are there for a kind of device; compiles the CPU's on the first call."""
    if device == "cuda":
        return wanted() and importlib.util.find_spec("triton") is not None
    return device == "cpu" and library() is not None


# What torch.compiler.assume_constant_result does; calling it would import the compiler, 3 s at every start.
is_available._dynamo_marked_constant = True  # type: ignore[attr-defined]


def takes(device: str, dtype: torch.dtype) -> bool:
    """Whether there are kernels for tensors of this type on this kind of device."""
    return dtype in DTYPES.get(device, ()) and is_available(device)


def is_usable(x: Tensor) -> bool:
    """Whether the operator takes x: channels-last, and there are kernels for its device and type."""
    return x.is_contiguous(memory_format=torch.channels_last) and takes(x.device.type, x.dtype)


@torch.library.custom_op("unnoise::group_norm_silu", mutates_args=(), device_types="cpu")
def group_norm_silu(
    x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float, silu: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """(y, mean, rstd) of y = act((x - mean) rstd weight + bias), act = SiLU or identity.

    x: (B, C, H, W) channels-last; weight, bias: (B, C) float32; mean, rstd: (B, groups) float32.
    """
    b, c, h, w = x.shape
    y, mean, rstd = torch.empty_like(x), *(x.new_empty(b, groups, dtype=torch.float32) for _ in range(2))
    tensors = (x, weight.contiguous(), bias.contiguous(), y, mean, rstd)
    _call("group_norm_forward", tensors, (b, h * w, c, groups), eps, silu)
    return y, mean, rstd


@group_norm_silu.register_kernel("cuda")
def _(
    x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float, silu: bool
) -> tuple[Tensor, Tensor, Tensor]:
    from unnoise.networks.kernels import group_norm_triton

    with torch.cuda.device(x.device):
        return group_norm_triton.forward(x, weight.contiguous(), bias.contiguous(), groups, eps, silu)


@group_norm_silu.register_fake
def _(
    x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float, silu: bool
) -> tuple[Tensor, Tensor, Tensor]:
    like = x.new_empty(x.shape[0], groups, dtype=torch.float32)
    return torch.empty_like(x), like, torch.empty_like(like)


@torch.library.custom_op("unnoise::group_norm_silu_backward", mutates_args=(), device_types="cpu")
def group_norm_silu_backward(
    x: Tensor, dy: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, rstd: Tensor, groups: int, silu: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, weight and bias from that of y."""
    b, c, h, w = x.shape
    weight, bias, dy = (
        weight.contiguous(),
        bias.contiguous(),
        dy.contiguous(memory_format=torch.channels_last),
    )
    dx, dweight, dbias = torch.empty_like(x), torch.empty_like(weight), torch.empty_like(bias)
    tensors = (x, dy, weight, bias, mean, rstd, dx, dweight, dbias)
    _call("group_norm_backward", tensors, (b, h * w, c, groups), silu)
    return dx, dweight, dbias


@group_norm_silu_backward.register_kernel("cuda")
def _(
    x: Tensor, dy: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, rstd: Tensor, groups: int, silu: bool
) -> tuple[Tensor, Tensor, Tensor]:
    from unnoise.networks.kernels import group_norm_triton

    dy = dy.contiguous(memory_format=torch.channels_last)
    weight, bias = weight.contiguous(), bias.contiguous()
    with torch.cuda.device(x.device):
        return group_norm_triton.backward(x, dy, weight, bias, mean, rstd, groups, silu)


@group_norm_silu_backward.register_fake
def _(
    x: Tensor, dy: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, rstd: Tensor, groups: int, silu: bool
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(x), weight.new_empty(weight.shape), bias.new_empty(bias.shape)


def _setup(ctx, inputs, output) -> None:  # noqa: ANN001 the types are torch's own
    x, weight, bias, groups, _, silu = inputs
    ctx.save_for_backward(x, weight, bias, *output[1:])
    ctx.options = (groups, silu)
    ctx.mark_non_differentiable(*output[1:])


def _backward(ctx, dy: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN001
    x, weight, bias, mean, rstd = ctx.saved_tensors
    grads = group_norm_silu_backward(x, dy.to(x.dtype), weight, bias, mean, rstd, *ctx.options)
    return *grads, None, None, None


group_norm_silu.register_autograd(_backward, setup_context=_setup)


def _call(name: str, tensors: tuple[Tensor, ...], sizes: tuple[int, ...], *options: float) -> None:
    kernels = library()
    assert kernels is not None
    call = getattr(kernels, f"{name}_{str(tensors[0].dtype).removeprefix('torch.')}")
    if not call(*(t.data_ptr() for t in tensors), *sizes, *options, torch.get_num_threads()):
        raise MemoryError(f"no memory for the scratch of {name}")
