"""Pictures larger than those of training, denoised square by square (arXiv 2112.10752)."""

from dataclasses import replace

import torch
from torch import Tensor

from unnoise.diffusion.condition import Condition
from unnoise.diffusion.prediction import Denoise, Prediction, x0_from_eps
from unnoise.diffusion.schedule import At
from unnoise.tiles import Tiling, apply_tiled


def patchwise(denoise: Denoise, tiling: Tiling) -> Denoise:
    """eps of every square of x, blended where squares overlap; x0 re-derived. Memory is that of one square.

    A `concat` of the size of x is cut with it; of another size, every square is told all of it. ValueError
    for a model that predicts the mean, whose parts do not blend.
    """

    def wide(x: Tensor, at: At, cond: Condition) -> Prediction:
        if max(x.shape[2:]) <= tiling.size:
            return denoise(x, at, cond)
        channels = x.shape[1]
        beside = cond.concat if cond.concat is not None and cond.concat.shape[2:] == x.shape[2:] else None
        fractions = False

        def square(tile: Tensor) -> Tensor:
            nonlocal fractions
            told = cond if beside is None else replace(cond, concat=tile[:, channels:])
            found = denoise(tile[:, :channels], at, told)
            if found.mean is not None or found.log_variance is not None:
                raise ValueError(
                    "this model predicts means or variances of its own, which squares cannot be put together "
                    "from; draw at the size of training, or leave patch out"
                )
            fractions = found.var_fraction is not None
            return found.eps if found.var_fraction is None else torch.cat([found.eps, found.var_fraction], 1)

        whole = apply_tiled(square, x if beside is None else torch.cat([x, beside], 1), tiling)
        eps = whole[:, :channels]
        return Prediction(
            x0=x0_from_eps(x, eps, at), eps=eps, var_fraction=whole[:, channels:] if fractions else None
        )

    return wide
