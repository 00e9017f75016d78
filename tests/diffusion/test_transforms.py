"""Transforms keep x0 and eps consistent, and leave what they must not touch."""

from dataclasses import replace

import pytest
import torch

from unnoise.diffusion.condition import Condition
from unnoise.diffusion.prediction import Prediction, eps_from_x0
from unnoise.diffusion.schedule import NoiseSchedule, make_betas
from unnoise.diffusion.transforms import clip_x0, dynamic_threshold, quantize_x0

X = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
AT = NoiseSchedule.from_betas(make_betas("linear", 100)).at(torch.tensor([0, 10, 50, 99]), X)


def denoise(x, at, cond):
    x0 = 1.7 * x
    return Prediction(x0, eps_from_x0(x, x0, at), torch.ones_like(x), 3 * x, 0.5 * x)


PLAIN = denoise(X, AT, Condition())


def assert_rest_stays(changed: Prediction) -> None:
    for name in ("var_fraction", "mean", "log_variance"):
        assert torch.equal(getattr(changed, name), getattr(PLAIN, name)), name


def test_clip() -> None:
    clipped = clip_x0(denoise)(X, AT, Condition())
    assert torch.equal(clipped.x0, PLAIN.x0.clamp(-1, 1))
    torch.testing.assert_close(clipped.eps, eps_from_x0(X, clipped.x0, AT))
    assert_rest_stays(clipped)
    wide = clip_x0(denoise, -100, 100)(X, AT, Condition())
    torch.testing.assert_close(wide.eps, PLAIN.eps)


def test_dynamic_threshold() -> None:
    """The share of pixels at the limit is 1 - percentile, the limit is 1, small pictures stay."""
    done = dynamic_threshold(denoise, 0.9)(X, AT, Condition())
    assert done.x0.abs().max() <= 1
    for before, after in zip(PLAIN.x0, done.x0, strict=True):
        share = (after.abs() == 1).double().mean().item()
        assert abs(share - 0.1) < 2 / after.numel()
        inside = after.abs() < 1
        ratio = before[inside] / after[inside]
        assert ratio.min() > 1 and torch.allclose(ratio, ratio[0].expand_as(ratio))
    torch.testing.assert_close(done.eps, eps_from_x0(X, done.x0, AT))
    assert_rest_stays(done)

    def small(x, at, cond):
        return replace(denoise(x, at, cond), x0=0.1 * x)

    torch.testing.assert_close(dynamic_threshold(small, 0.9)(X, AT, Condition()).x0, 0.1 * X)
    with pytest.raises(ValueError, match="percentile=99.5"):
        dynamic_threshold(denoise, 99.5)


def test_quantize() -> None:
    quantized = quantize_x0(denoise, torch.round)(X, AT, Condition())
    assert torch.equal(quantized.x0, PLAIN.x0.round()) and torch.equal(quantized.eps, PLAIN.eps)
    assert_rest_stays(quantized)
