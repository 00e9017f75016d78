"""The Inception network that FID, sFID and the Inception Score are defined by, for inference only.

It is InceptionV3 (Szegedy et al. 2015, arXiv 1512.00567) as the TensorFlow graph of 2015-12-05 has it, which
differs from torchvision's: 1008 outputs, average pools that leave padding out, a maximum pool in the last
block (Mixed_7c), TensorFlow 1's bilinear resize in front. Weights come under the names of torch-fidelity's
published file (`Mixed_6d.branch1x1.conv.weight`). Batch normalisation is folded into the convolutions, 1x1
convolutions that read the same tensor are computed as one, and the average pool of a pool branch, which
commutes with its 1x1 convolution, comes after it, where there are fewer channels.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIDE = 299
"""Height and width that pictures are resized to."""
BATCH_NORM_EPS = 1e-3
SPATIAL_CHANNELS = 7
"""sFID reads the first 7 of the 192 channels of Mixed_6d.branch1x1: 17 * 17 * 7 = 2023 numbers."""

Kernel = tuple[int, int]

FUSED = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_convolution_pointwise")
"""Whether this torch has the kernel that its own compiler uses for a convolution and what follows it."""


def _block_convs() -> dict[str, tuple[int, int, Kernel]]:
    """Name -> (input channels, output channels, kernel) of the 94 convolutions."""
    one, three, five, row, column = (1, 1), (3, 3), (5, 5), (1, 7), (7, 1)
    convs: dict[str, tuple[int, int, Kernel]] = {
        "Conv2d_1a_3x3": (3, 32, three),
        "Conv2d_2a_3x3": (32, 32, three),
        "Conv2d_2b_3x3": (32, 64, three),
        "Conv2d_3b_1x1": (64, 80, one),
        "Conv2d_4a_3x3": (80, 192, three),
    }

    def add(block: str, **branches: tuple[int, int, Kernel]) -> None:
        convs.update({f"{block}.{name}": spec for name, spec in branches.items()})

    for block, width, pooled in (("Mixed_5b", 192, 32), ("Mixed_5c", 256, 64), ("Mixed_5d", 288, 64)):
        add(
            block,
            branch1x1=(width, 64, one),
            branch5x5_1=(width, 48, one),
            branch5x5_2=(48, 64, five),
            branch3x3dbl_1=(width, 64, one),
            branch3x3dbl_2=(64, 96, three),
            branch3x3dbl_3=(96, 96, three),
            branch_pool=(width, pooled, one),
        )
    add(
        "Mixed_6a",
        branch3x3=(288, 384, three),
        branch3x3dbl_1=(288, 64, one),
        branch3x3dbl_2=(64, 96, three),
        branch3x3dbl_3=(96, 96, three),
    )
    for block, mid in (("Mixed_6b", 128), ("Mixed_6c", 160), ("Mixed_6d", 160), ("Mixed_6e", 192)):
        add(
            block,
            branch1x1=(768, 192, one),
            branch7x7_1=(768, mid, one),
            branch7x7_2=(mid, mid, row),
            branch7x7_3=(mid, 192, column),
            branch7x7dbl_1=(768, mid, one),
            branch7x7dbl_2=(mid, mid, column),
            branch7x7dbl_3=(mid, mid, row),
            branch7x7dbl_4=(mid, mid, column),
            branch7x7dbl_5=(mid, 192, row),
            branch_pool=(768, 192, one),
        )
    add(
        "Mixed_7a",
        branch3x3_1=(768, 192, one),
        branch3x3_2=(192, 320, three),
        branch7x7x3_1=(768, 192, one),
        branch7x7x3_2=(192, 192, row),
        branch7x7x3_3=(192, 192, column),
        branch7x7x3_4=(192, 192, three),
    )
    for block, width in (("Mixed_7b", 1280), ("Mixed_7c", 2048)):
        add(
            block,
            branch1x1=(width, 320, one),
            branch3x3_1=(width, 384, one),
            branch3x3_2a=(384, 384, (1, 3)),
            branch3x3_2b=(384, 384, (3, 1)),
            branch3x3dbl_1=(width, 448, one),
            branch3x3dbl_2=(448, 384, three),
            branch3x3dbl_3a=(384, 384, (1, 3)),
            branch3x3dbl_3b=(384, 384, (3, 1)),
            branch_pool=(width, 192, one),
        )
    return convs


CONVS = _block_convs()


def published_shapes() -> dict[str, tuple[int, ...]]:
    """Key -> shape of every tensor that the network reads from the published file."""
    shapes: dict[str, tuple[int, ...]] = {"fc.weight": (1008, 2048), "fc.bias": (1008,)}
    for name, (width, out, kernel) in CONVS.items():
        shapes[f"{name}.conv.weight"] = (out, width, *kernel)
        for tensor in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{name}.bn.{tensor}"] = (out,)
    return shapes


def _lerp(x: Tensor, out: int, dim: int, align_corners: bool) -> Tensor:
    """One direction of the resize: x[lo] + (x[hi] - x[lo]) * fraction, source = index * scale in float32."""
    size = x.shape[dim]
    scale = (size - 1) / max(1, out - 1) if align_corners else size / out
    source = torch.arange(out, dtype=torch.float32, device=x.device) * torch.tensor(
        scale, dtype=torch.float32, device=x.device
    )
    lo = source.long().clamp_max(size - 1)
    hi = (lo + 1).clamp_max(size - 1)
    fraction = (source - lo).to(x.dtype).view([-1 if d == dim else 1 for d in range(x.ndim)])
    low = x.index_select(dim, lo)
    return torch.lerp(low, x.index_select(dim, hi), fraction)


def resize_tf1(x: Tensor, size: tuple[int, int], *, align_corners: bool = False) -> Tensor:
    """TensorFlow 1's bilinear resize: source = index * (in / out), no half-pixel shift, no antialiasing.

    x: (B, C, H, W) float of any range; size: (height, width); returns (B, C, *size). The last rows and
    columns repeat the border. `align_corners` takes (in - 1) / (out - 1).
    """
    if tuple(x.shape[2:]) == tuple(size):
        return x
    return _lerp(_lerp(x, size[1], 3, align_corners), size[0], 2, align_corners)


def _conv_relu(x: Tensor, weight: Tensor, bias: Tensor, stride: int, padding: Kernel) -> Tensor:
    """relu(conv(x)); on a CPU in float32 by oneDNN's fused kernel, which saves a pass over memory."""
    fusible = x.device.type == "cpu" and x.dtype == weight.dtype == torch.float32
    if FUSED and fusible and not torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu"):
        fused = torch.ops.mkldnn._convolution_pointwise
        out: Tensor = fused(x, weight, bias, padding, (stride, stride), (1, 1), 1, "relu", [], "")
        return out
    return F.relu_(F.conv2d(x, weight, bias, stride, padding))


class _Conv(nn.Module):
    """relu(conv(x)) with the batch normalisation folded in; several names make one convolution of one
    input.
    """

    weight: Tensor
    bias: Tensor

    def __init__(
        self, state: Mapping[str, Tensor], *names: str, stride: int = 1, padding: int | Kernel = 0
    ) -> None:
        super().__init__()
        weights, biases = [], []
        for name in names:
            scale = state[f"{name}.bn.weight"].double() / torch.sqrt(
                state[f"{name}.bn.running_var"].double() + BATCH_NORM_EPS
            )
            weights.append(state[f"{name}.conv.weight"].double() * scale[:, None, None, None])
            biases.append(
                state[f"{name}.bn.bias"].double() - scale * state[f"{name}.bn.running_mean"].double()
            )
        self.register_buffer(
            "weight", torch.cat(weights).float().contiguous(memory_format=torch.channels_last)
        )
        self.register_buffer("bias", torch.cat(biases).float())
        self.splits = [len(b) for b in biases]
        self.stride = stride
        self.padding = (padding, padding) if isinstance(padding, int) else padding

    def forward(self, x: Tensor) -> Tensor:
        return _conv_relu(x, self.weight, self.bias, self.stride, self.padding)


def _stack(state: Mapping[str, Tensor], block: str, *branches: str) -> nn.Sequential:
    """Convolutions one after the other, same-padded, stride 1."""
    convs = []
    for branch in branches:
        kernel = CONVS[f"{block}.{branch}"][2]
        convs.append(_Conv(state, f"{block}.{branch}", padding=(kernel[0] // 2, kernel[1] // 2)))
    return nn.Sequential(*convs)


class _Heads(nn.Module):
    """The 1x1 convolutions of a block as one; with `pool` the last is the pool branch, averaged (padding left
    out) before its relu.
    """

    def __init__(self, state: Mapping[str, Tensor], block: str, *branches: str, pool: bool) -> None:
        super().__init__()
        self.conv = _Conv(state, *(f"{block}.{branch}" for branch in branches))
        self.pool = pool

    def forward(self, x: Tensor) -> list[Tensor]:
        conv, splits = self.conv, self.conv.splits
        if not self.pool:
            return list(conv(x).split(splits, 1))
        last = sum(splits[:-1])
        heads = _conv_relu(x, conv.weight[:last], conv.bias[:last], 1, (0, 0)).split(splits[:-1], 1)
        pooled = F.conv2d(x, conv.weight[last:], conv.bias[last:])
        pooled = F.avg_pool2d(pooled, 3, stride=1, padding=1, count_include_pad=False)
        return [*heads, F.relu_(pooled)]


class _BlockA(nn.Module):
    """Mixed_5b, 5c, 5d: 35x35."""

    def __init__(self, state: Mapping[str, Tensor], block: str) -> None:
        super().__init__()
        self.heads = _Heads(
            state, block, "branch1x1", "branch5x5_1", "branch3x3dbl_1", "branch_pool", pool=True
        )
        self.five = _stack(state, block, "branch5x5_2")
        self.dbl = _stack(state, block, "branch3x3dbl_2", "branch3x3dbl_3")

    def forward(self, x: Tensor) -> Tensor:
        direct, five, double, pooled = self.heads(x)
        return torch.cat([direct, self.five(five), self.dbl(double), pooled], 1)


class _BlockB(nn.Module):
    """Mixed_6a: 35x35 to 17x17."""

    def __init__(self, state: Mapping[str, Tensor], block: str) -> None:
        super().__init__()
        self.three = _Conv(state, f"{block}.branch3x3", stride=2)
        self.dbl = nn.Sequential(
            *_stack(state, block, "branch3x3dbl_1", "branch3x3dbl_2"),
            _Conv(state, f"{block}.branch3x3dbl_3", stride=2),
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.three(x), self.dbl(x), F.max_pool2d(x, 3, 2)], 1)


class _BlockC(nn.Module):
    """Mixed_6b to 6e: 17x17. Also returns branch1x1, which sFID reads in Mixed_6d."""

    def __init__(self, state: Mapping[str, Tensor], block: str) -> None:
        super().__init__()
        self.heads = _Heads(
            state, block, "branch1x1", "branch7x7_1", "branch7x7dbl_1", "branch_pool", pool=True
        )
        self.seven = _stack(state, block, "branch7x7_2", "branch7x7_3")
        self.dbl = _stack(state, block, *(f"branch7x7dbl_{i}" for i in (2, 3, 4, 5)))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        direct, seven, double, pooled = self.heads(x)
        return torch.cat([direct, self.seven(seven), self.dbl(double), pooled], 1), direct


class _BlockD(nn.Module):
    """Mixed_7a: 17x17 to 8x8."""

    def __init__(self, state: Mapping[str, Tensor], block: str) -> None:
        super().__init__()
        self.heads = _Heads(state, block, "branch3x3_1", "branch7x7x3_1", pool=False)
        self.three = _Conv(state, f"{block}.branch3x3_2", stride=2)
        self.seven = nn.Sequential(
            *_stack(state, block, "branch7x7x3_2", "branch7x7x3_3"),
            _Conv(state, f"{block}.branch7x7x3_4", stride=2),
        )

    def forward(self, x: Tensor) -> Tensor:
        three, seven = self.heads(x)
        return torch.cat([self.three(three), self.seven(seven), F.max_pool2d(x, 3, 2)], 1)


class _BlockE(nn.Module):
    """Mixed_7b and 7c: 8x8. 7c pools by maximum, which does not commute with a convolution: its pool branch
    stays apart.
    """

    def __init__(self, state: Mapping[str, Tensor], block: str, *, maximum: bool) -> None:
        super().__init__()
        heads = ["branch1x1", "branch3x3_1", "branch3x3dbl_1"] + ([] if maximum else ["branch_pool"])
        self.heads = _Heads(state, block, *heads, pool=not maximum)
        self.pool = _Conv(state, f"{block}.branch_pool") if maximum else None
        self.three = nn.ModuleList(_stack(state, block, f"branch3x3_2{s}") for s in "ab")
        self.dbl = _stack(state, block, "branch3x3dbl_2")
        self.split = nn.ModuleList(_stack(state, block, f"branch3x3dbl_3{s}") for s in "ab")

    def forward(self, x: Tensor) -> Tensor:
        direct, three, double, *rest = self.heads(x)
        pooled = self.pool(F.max_pool2d(x, 3, 1, 1)) if self.pool is not None else rest[0]
        double = self.dbl(double)
        return torch.cat(
            [direct, *(conv(three) for conv in self.three), *(conv(double) for conv in self.split), pooled], 1
        )


@dataclass(frozen=True, eq=False)
class InceptionTaps:
    """What the network yields for B pictures; every tensor float32."""

    pool: Tensor  # (B, 2048): pool_3, the features of FID, precision and recall
    spatial: Tensor  # (B, 2023): the first 7 channels of mixed_6/conv in H, W, C order, the features of sFID
    logits_unbiased: Tensor  # (B, 1008): pool @ W^T, no bias: the Inception Score's
    logits: Tensor  # (B, 1008)
    pool64: Tensor  # (B, 64): mean after the first maximum pool
    pool192: Tensor  # (B, 192): mean after the second
    pool768: Tensor  # (B, 768): mean after Mixed_6e


class InceptionV3(nn.Module):
    """The TF-ported InceptionV3 over uint8 pictures; built from a state dict in the published names, which it
    checks strictly.
    """

    fc_weight: Tensor
    fc_bias: Tensor

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        super().__init__()
        _check(state)
        self.stem1 = nn.Sequential(
            _Conv(state, "Conv2d_1a_3x3", stride=2),
            _Conv(state, "Conv2d_2a_3x3"),
            _Conv(state, "Conv2d_2b_3x3", padding=1),
        )
        self.stem2 = nn.Sequential(_Conv(state, "Conv2d_3b_1x1"), _Conv(state, "Conv2d_4a_3x3"))
        self.fives = nn.Sequential(*(_BlockA(state, f"Mixed_5{s}") for s in "bcd"))
        self.down1 = _BlockB(state, "Mixed_6a")
        self.sixes = nn.ModuleList(_BlockC(state, f"Mixed_6{s}") for s in "bcde")
        self.down2 = _BlockD(state, "Mixed_7a")
        self.sevens = nn.Sequential(
            _BlockE(state, "Mixed_7b", maximum=False), _BlockE(state, "Mixed_7c", maximum=True)
        )
        self.register_buffer("fc_weight", state["fc.weight"].float().clone())
        self.register_buffer("fc_bias", state["fc.bias"].float().clone())
        self.eval()

    def forward(self, pixels: Tensor) -> InceptionTaps:
        """Every tap of uint8 (or 0..255 float) pictures (B, 3, H, W) of any size."""
        x = (resize_tf1(pixels.float(), (SIDE, SIDE)) - 128) / 128
        x = x.to(self.fc_weight.dtype).contiguous(memory_format=torch.channels_last)
        x = F.max_pool2d(self.stem1(x), 3, 2)
        pool64 = x.mean((2, 3))
        x = F.max_pool2d(self.stem2(x), 3, 2)
        pool192 = x.mean((2, 3))
        x = self.down1(self.fives(x))
        direct = []
        for block in self.sixes:
            x, head = block(x)
            direct.append(head)
        pool768 = x.mean((2, 3))
        pool = self.sevens(self.down2(x)).mean((2, 3))
        unbiased = F.linear(pool, self.fc_weight)
        return InceptionTaps(
            pool=pool.float(),
            spatial=direct[2][:, :SPATIAL_CHANNELS].permute(0, 2, 3, 1).flatten(1).float(),
            logits_unbiased=unbiased.float(),
            logits=(unbiased + self.fc_bias).float(),
            pool64=pool64.float(),
            pool192=pool192.float(),
            pool768=pool768.float(),
        )


def _check(state: Mapping[str, Tensor]) -> None:
    expected = published_shapes()
    found = {
        key: tuple(value.shape) for key, value in state.items() if not key.endswith("num_batches_tracked")
    }
    wrong = sorted(key for key in expected.keys() | found.keys() if expected.get(key) != found.get(key))
    if wrong:
        key = wrong[0]
        raise ValueError(
            f"these are not the weights of the FID Inception network: {len(wrong)} tensors differ, first "
            f"{key} (found {found.get(key)}, expected {expected.get(key)}); "
            "use pt_inception-2015-12-05-6726825d.pth"
        )
