"""LPIPS, a learned distance between pictures: Zhang et al. 2018 (arXiv 1801.03924), version 0.1 on VGG16.

Two sets of weights fit: the standard one, in the layout that latent-diffusion and taming-transformers keep
(`net.slice1.0.weight`, `lin0.model.1.weight`), and the shift-tolerant one of Ghildyal & Liu 2022 (arXiv
2207.13686), whose maximum pools have stride 1 followed by a blurring, strided filter (`net.slice2.5.filt`).
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDTHS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
"""Channels of the convolutions of each slice; a pool stands between slices."""
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)


class _Blur(nn.Module):
    """Maximum over 2x2 at stride 1, then a depthwise binomial filter at stride 2 over reflected borders
    (Zhang 2019).
    """

    filt: Tensor

    def __init__(self, width: int, taps: int) -> None:
        super().__init__()
        self.register_buffer("filt", torch.zeros(width, 1, taps, taps))

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(x, 2, 1)
        k = self.filt.shape[-1]
        x = F.pad(x, ((k - 1) // 2, k // 2, (k - 1) // 2, k // 2), mode="reflect")
        return F.conv2d(x, self.filt, stride=2, groups=x.shape[1])


def _slices(blur_taps: int) -> nn.Module:
    """VGG16 up to relu5_3 in five slices; layers keep the numbers they have in the published sequence."""
    net, number, width = nn.Module(), 0, 3
    for index, widths in enumerate(WIDTHS, start=1):
        layers = nn.Sequential()
        if index > 1:
            if blur_taps:
                layers.add_module(str(number + 1), _Blur(width, blur_taps))
                number += 2
            else:
                layers.add_module(str(number), nn.MaxPool2d(2, 2))
                number += 1
        for out in widths:
            layers.add_module(str(number), nn.Conv2d(width, out, 3, padding=1))
            layers.add_module(str(number + 1), nn.ReLU())
            number, width = number + 2, out
        net.add_module(f"slice{index}", layers)
    return net


class _Linear(nn.Module):
    """A 1x1 weighting behind a dropout, which gives its key the number 1."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.model = nn.Sequential(nn.Dropout(dropout), nn.Conv2d(width, 1, 1, bias=False))


class Lpips(nn.Module):
    """sum over layers of the mean over pixels of w . (unit(f(a)) - unit(f(b)))^2; always in evaluation mode.

    The originals train first stages with the dropout of these heads alive, since calling train() on a parent
    revives it: 6 % noise in the gradients. `dropout_in_training` asks for that; without it `train()` changes
    nothing.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, *, blur_taps: int = 0, dropout_in_training: bool = False) -> None:
        super().__init__()
        self.scaling_layer = nn.Module()
        self.scaling_layer.register_buffer("shift", torch.tensor(SHIFT).view(1, 3, 1, 1))
        self.scaling_layer.register_buffer("scale", torch.tensor(SCALE).view(1, 3, 1, 1))
        self.net = _slices(blur_taps)
        for i, widths in enumerate(WIDTHS):
            self.add_module(f"lin{i}", _Linear(widths[-1], 0.5 if dropout_in_training else 0.0))
        self.requires_grad_(False)
        self.eval()

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor], *, dropout_in_training: bool = False) -> "Lpips":
        """A network with published weights: standard or shift-tolerant, told apart by the filters."""
        filters = [v for k, v in state.items() if k.endswith(".filt")]
        model = cls(blur_taps=filters[0].shape[-1] if filters else 0, dropout_in_training=dropout_in_training)
        expected = {k: tuple(v.shape) for k, v in model.state_dict().items()}
        found = {k: tuple(v.shape) for k, v in state.items()}
        if expected != found:
            wrong = sorted(k for k in expected.keys() | found.keys() if expected.get(k) != found.get(k))
            raise ValueError(
                f"these are not LPIPS weights on VGG16: {len(wrong)} tensors differ, first {wrong[0]} "
                f"(found {found.get(wrong[0])}, expected {expected.get(wrong[0])})"
            )
        model.load_state_dict(dict(state))
        return model

    def features(self, images: Tensor) -> list[Tensor]:
        """relu1_2, relu2_2, relu3_3, relu4_3, relu5_3 of images (B, 3, H, W) in [-1, 1]."""
        scaling = self.scaling_layer
        x = (images - scaling.shift) / scaling.scale
        found = []
        for i in range(1, 6):
            x = getattr(self.net, f"slice{i}")(x)
            found.append(x)
        return found

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """The distance of each pair, (B, 1, 1, 1); a, b: (B, 3, H, W) in [-1, 1]. Differentiable in both."""
        total = a.new_zeros(len(a), 1, 1, 1)
        for i, (x, y) in enumerate(zip(self.features(a), self.features(b), strict=True)):
            difference = (_unit(x) - _unit(y)).square()
            total = total + getattr(self, f"lin{i}").model(difference).mean((2, 3), keepdim=True)
        return total


def _unit(x: Tensor) -> Tensor:
    """x / (|x| + 1e-10) over channels; the square root's gradient at 0 is kept finite."""
    squares = x.square().sum(1, keepdim=True)
    norm = torch.where(squares > 0, squares, 1.0).sqrt() * (squares > 0)
    return x / (norm + 1e-10)
