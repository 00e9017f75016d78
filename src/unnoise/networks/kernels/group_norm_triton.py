"""The operator of group_norm.py on a GPU, in Triton, which CUDA builds of torch bring along.

x is read as rows of channels: (B, H * W, C), contiguous in that order. Statistics are merged from means and
squared deviations of blocks of rows (Chan, Golub & LeVeque 1983), never a difference of large sums; every sum
is taken in an order that depends on the shape alone, so that a training step repeats to the bit.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

TILE = 4096
"""Values that a program holds at once."""
PARTS = 64
"""Blocks that a picture's rows are divided into at most."""


def forward(
    x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float, silu: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """(y, mean, rstd) as `group_norm_silu` says."""
    b, c, h, w = x.shape
    y, mean, rstd = torch.empty_like(x), *(x.new_empty(b, groups, dtype=torch.float32) for _ in range(2))
    if not x.numel():
        return y, mean, rstd
    shape = _Shape(h * w, c, groups)
    centre, spread = (x.new_empty(b, shape.parts, c, dtype=torch.float32) for _ in range(2))
    _moments[b, shape.parts](x, centre, spread, *shape.rows)
    _merge[b, groups](centre, spread, mean, rstd, eps, *shape.merging)
    _apply[b, shape.parts](x, weight, bias, mean, rstd, y, groups, silu, *shape.rows)
    return y, mean, rstd


def backward(
    x: Tensor, dy: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, rstd: Tensor, groups: int, silu: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, weight and bias from that of y."""
    b, c, h, w = x.shape
    dx, dweight, dbias = torch.empty_like(x), torch.empty_like(weight), torch.empty_like(bias)
    if not x.numel():
        return dx, dweight.zero_(), dbias.zero_()
    shape = _Shape(h * w, c, groups)
    by_weight, by_bias = (x.new_empty(b, shape.parts, c, dtype=torch.float32) for _ in range(2))
    pulls = x.new_empty(2, b, groups, dtype=torch.float32)
    _slopes[b, shape.parts](x, dy, weight, bias, mean, rstd, by_weight, by_bias, groups, silu, *shape.rows)
    _gather[b, groups](by_weight, by_bias, weight, dweight, dbias, pulls[0], pulls[1], *shape.merging)
    _pull[b, shape.parts](x, dy, weight, bias, mean, rstd, pulls[0], pulls[1], dx, groups, silu, *shape.rows)
    return dx, dweight, dbias


class _Shape:
    """How the rows of a picture are divided among programs."""

    def __init__(self, rows: int, channels: int, groups: int) -> None:
        wide = triton.next_power_of_2(channels)
        tile = max(1, TILE // wide)
        self.parts = min(PARTS, triton.cdiv(rows, tile))
        each = triton.cdiv(triton.cdiv(rows, self.parts), tile) * tile
        self.parts = triton.cdiv(rows, each)
        self.rows: tuple[Any, ...] = (rows, each, self.parts, channels, tile, wide)
        size = channels // groups
        self.merging: tuple[Any, ...] = (
            *(rows, each, self.parts, channels, size),
            *(triton.next_power_of_2(self.parts), triton.next_power_of_2(size)),
        )


# ruff: noqa: ANN001, ANN202 Triton reads annotations as types of its own
# fmt: off
@triton.jit
def _moments(
    x, centre, spread, rows, each, parts, channels: tl.constexpr, tile: tl.constexpr, wide: tl.constexpr,
):
    """Mean and sum of squared deviations of every channel over one block of rows."""
    picture, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    column = tl.arange(0, wide)
    inside = column < channels
    mean, square, seen = tl.zeros([wide], tl.float32), tl.zeros([wide], tl.float32), 0.0
    end = tl.minimum(rows, (part + 1) * each)
    for start in range(part * each, end, tile):
        row = start + tl.arange(0, tile)
        mask = (row < end)[:, None] & inside[None, :]
        place = (picture * rows + row)[:, None] * channels + column[None, :]
        values = tl.load(x + place, mask=mask, other=0.0).to(tl.float32)
        count = tl.minimum(tile, end - start).to(tl.float32)
        here = tl.sum(values, 0) / count
        apart = tl.where(mask, values - here[None, :], 0.0)
        step = here - mean
        total = seen + count
        square += tl.sum(apart * apart, 0) + step * step * (seen * count / total)
        mean += step * (count / total)
        seen = total
    place = (picture * parts + part) * channels + column
    tl.store(centre + place, mean, mask=inside)
    tl.store(spread + place, square, mask=inside)


@triton.jit
def _merge(
    centre, spread, mean, rstd, eps, rows, each, parts, channels: tl.constexpr, size: tl.constexpr,
    many: tl.constexpr, broad: tl.constexpr,
):
    """Mean and 1 / standard deviation of one group from those of its channels and blocks."""
    picture, group = tl.program_id(0).to(tl.int64), tl.program_id(1)
    part, column = tl.arange(0, many), tl.arange(0, broad)
    mask = (part < parts)[:, None] & (column < size)[None, :]
    place = (picture * parts + part)[:, None] * channels + group * size + column[None, :]
    means = tl.load(centre + place, mask=mask, other=0.0)
    squares = tl.load(spread + place, mask=mask, other=0.0)
    count = tl.minimum(each, rows - part * each).to(tl.float32)[:, None]
    whole = rows * size
    middle = tl.sum(tl.sum(tl.where(mask, means * count, 0.0), 1), 0) / whole
    apart = means - middle
    square = tl.sum(tl.sum(tl.where(mask, squares + count * apart * apart, 0.0), 1), 0)
    place = picture * tl.num_programs(1) + group
    tl.store(mean + place, middle)
    tl.store(rstd + place, 1 / tl.sqrt_rn(square / whole + eps))


@triton.jit
def _apply(
    x, weight, bias, mean, rstd, y, groups, silu: tl.constexpr, rows, each, parts, channels:
    tl.constexpr, tile: tl.constexpr, wide: tl.constexpr,
):
    """y = act((x - mean) rstd weight + bias) of one block of rows."""
    picture, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    column = tl.arange(0, wide)
    inside = column < channels
    group = picture * groups + column // (channels // groups)
    centre = tl.load(mean + group, mask=inside, other=0.0)
    factor = tl.load(rstd + group, mask=inside, other=0.0)
    factor = factor * tl.load(weight + picture * channels + column, mask=inside, other=0.0)
    shift = tl.load(bias + picture * channels + column, mask=inside, other=0.0)
    end = tl.minimum(rows, (part + 1) * each)
    for start in range(part * each, end, tile):
        row = start + tl.arange(0, tile)
        mask = (row < end)[:, None] & inside[None, :]
        place = (picture * rows + row)[:, None] * channels + column[None, :]
        values = tl.load(x + place, mask=mask, other=0.0).to(tl.float32)
        values = (values - centre[None, :]) * factor[None, :] + shift[None, :]
        if silu:
            values = values * tl.sigmoid(values)
        tl.store(y + place, values.to(y.dtype.element_ty), mask=mask)


@triton.jit
def _slope(values, slope, weight, bias, silu: tl.constexpr):
    """Gradient before the activation, from the normalised values and that of y."""
    if silu:
        before = values * weight[None, :] + bias[None, :]
        open_ = tl.sigmoid(before)
        slope = slope * open_ * (1 + before * (1 - open_))
    return slope


@triton.jit
def _slopes(
    x, dy, weight, bias, mean, rstd, by_weight, by_bias, groups, silu: tl.constexpr, rows, each, parts,
    channels: tl.constexpr, tile: tl.constexpr, wide: tl.constexpr,
):
    """What one block of rows adds to the gradients of weight and bias."""
    picture, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    column = tl.arange(0, wide)
    inside = column < channels
    group = picture * groups + column // (channels // groups)
    centre = tl.load(mean + group, mask=inside, other=0.0)
    scale = tl.load(rstd + group, mask=inside, other=0.0)
    factor = tl.load(weight + picture * channels + column, mask=inside, other=0.0)
    shift = tl.load(bias + picture * channels + column, mask=inside, other=0.0)
    of_weight, of_bias = tl.zeros([wide], tl.float32), tl.zeros([wide], tl.float32)
    end = tl.minimum(rows, (part + 1) * each)
    for start in range(part * each, end, tile):
        row = start + tl.arange(0, tile)
        mask = (row < end)[:, None] & inside[None, :]
        place = (picture * rows + row)[:, None] * channels + column[None, :]
        values = tl.load(x + place, mask=mask, other=0.0).to(tl.float32)
        values = (values - centre[None, :]) * scale[None, :]
        slope = tl.load(dy + place, mask=mask, other=0.0).to(tl.float32)
        slope = tl.where(mask, _slope(values, slope, factor, shift, silu), 0.0)
        of_weight += tl.sum(tl.where(mask, slope * values, 0.0), 0)
        of_bias += tl.sum(slope, 0)
    place = (picture * parts + part) * channels + column
    tl.store(by_weight + place, of_weight, mask=inside)
    tl.store(by_bias + place, of_bias, mask=inside)


@triton.jit
def _gather(
    by_weight, by_bias, weight, dweight, dbias, along, apart, rows, each, parts, channels: tl.constexpr,
    size: tl.constexpr, many: tl.constexpr, broad: tl.constexpr,
):
    """Gradients of weight and bias of one group, and the two means that its statistics feed back to x."""
    picture, group = tl.program_id(0).to(tl.int64), tl.program_id(1)
    part, column = tl.arange(0, many), tl.arange(0, broad)
    inside = column < size
    mask = (part < parts)[:, None] & inside[None, :]
    place = (picture * parts + part)[:, None] * channels + group * size + column[None, :]
    of_weight = tl.sum(tl.load(by_weight + place, mask=mask, other=0.0), 0)
    of_bias = tl.sum(tl.load(by_bias + place, mask=mask, other=0.0), 0)
    place = picture * channels + group * size + column
    factor = tl.load(weight + place, mask=inside, other=0.0)
    tl.store(dweight + place, of_weight, mask=inside)
    tl.store(dbias + place, of_bias, mask=inside)
    whole = rows * size
    place = picture * tl.num_programs(1) + group
    tl.store(along + place, tl.sum(factor * of_weight, 0) / whole)
    tl.store(apart + place, tl.sum(factor * of_bias, 0) / whole)


@triton.jit
def _pull(
    x, dy, weight, bias, mean, rstd, along, apart, dx, groups, silu: tl.constexpr, rows, each, parts,
    channels: tl.constexpr, tile: tl.constexpr, wide: tl.constexpr,
):
    """dx = rstd (slope weight - mean(slope weight) - x^ mean(slope weight x^)) of one block of rows."""
    picture, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    column = tl.arange(0, wide)
    inside = column < channels
    group = picture * groups + column // (channels // groups)
    centre = tl.load(mean + group, mask=inside, other=0.0)
    scale = tl.load(rstd + group, mask=inside, other=0.0)
    by_value = tl.load(along + group, mask=inside, other=0.0)
    by_all = tl.load(apart + group, mask=inside, other=0.0)
    factor = tl.load(weight + picture * channels + column, mask=inside, other=0.0)
    shift = tl.load(bias + picture * channels + column, mask=inside, other=0.0)
    end = tl.minimum(rows, (part + 1) * each)
    for start in range(part * each, end, tile):
        row = start + tl.arange(0, tile)
        mask = (row < end)[:, None] & inside[None, :]
        place = (picture * rows + row)[:, None] * channels + column[None, :]
        values = tl.load(x + place, mask=mask, other=0.0).to(tl.float32)
        values = (values - centre[None, :]) * scale[None, :]
        slope = tl.load(dy + place, mask=mask, other=0.0).to(tl.float32)
        slope = _slope(values, slope, factor, shift, silu) * factor[None, :]
        slope = scale[None, :] * (slope - by_all[None, :] - values * by_value[None, :])
        tl.store(dx + place, slope.to(dx.dtype.element_ty), mask=mask)
