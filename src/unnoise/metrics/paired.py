"""Metrics of pairs: sample k is the reconstruction, enlargement or completion of reference picture k."""

import torch
from torch import Tensor

from unnoise.config.requests import EvaluateRequest
from unnoise.metrics import weights as store
from unnoise.metrics.intervals import interval, mean_error
from unnoise.metrics.reconstruction import downsampled_psnr, lpips, psnr, shrunk, ssim
from unnoise.metrics.result import Metric
from unnoise.metrics.sources import Pictures
from unnoise.networks.lpips import Lpips


def check_pairs(request: EvaluateRequest, samples: Pictures, real: Pictures | None) -> None:
    """Refuse two sides that are no pairs."""
    if real is None:
        raise ValueError("--paired needs the reference's pictures; name a folder, zip, npz or data set")
    if samples.n != real.n or samples.shape != real.shape:
        raise ValueError(
            f"{samples.n} samples of {samples.shape} and {real.n} pictures of {real.shape} are no pairs; "
            "leave paired out or make them match"
        )
    factor, sides = request.consistency, real.shape[:2]
    if factor is not None and (factor < 2 or any(side % factor for side in sides)):
        raise ValueError(
            f"consistency={factor} does not divide pictures of {sides[1]}x{sides[0]}; use the whole number, "
            "2 or more, that they were enlarged by"
        )


def paired_metrics(
    request: EvaluateRequest, samples: Pictures, real: Pictures, opened: tuple[Lpips | None, str]
) -> list[Metric]:
    """PSNR, SSIM, LPIPS with the network that was opened, and consistency: means over the pairs with their
    intervals.
    """
    network, label = opened
    found: dict[str, list[Tensor]] = {}
    for begin in range(0, samples.n, request.batch_size):
        ids = range(begin, min(begin + request.batch_size, samples.n))
        a, b = real.take(ids), samples.take(ids)
        found.setdefault("PSNR", []).append(psnr(real=a, fake=b))
        if min(real.shape[:2]) >= 11:
            found.setdefault("SSIM", []).append(ssim(real=a, fake=b))
        if request.consistency is not None:
            name = f"consistency[{request.consistency}x]"
            low = shrunk(a, request.consistency)
            found.setdefault(name, []).append(downsampled_psnr(low=low, fake=b))
        if network is not None:
            found.setdefault(label, []).append(lpips(network, real=a, fake=b))
    out = []
    for name, parts in found.items():
        values = torch.cat(parts)
        equal = int(torch.isinf(values).sum())
        kept = values[torch.isfinite(values)]
        mean = float(kept.mean()) if len(kept) else float("inf")
        span = interval(mean, mean_error(kept)) if request.bootstrap and len(kept) > 1 else None
        out.append(
            Metric(
                name=name,
                value=mean,
                better="lower" if name == label else "higher",
                interval=span,
                note=f"{equal} equal pairs left out" if equal else "",
            )
        )
    return out


def open_lpips(request: EvaluateRequest, warnings: list[str]) -> tuple[Lpips | None, str]:
    """The network of LPIPS and what it is called; None, and a warning, where its weights are not here."""
    try:
        path = store.find(store.LPIPS_SHIFT_TOLERANT, request.lpips or None)
    except ValueError as error:
        if request.lpips:
            raise
        warnings.append(f"LPIPS is left out: {error}")
        return None, "LPIPS"
    state = store.read(path)
    tolerant = any(key.endswith(".filt") for key in state)
    return Lpips.from_state(state), "LPIPS[shift-tolerant]" if tolerant else "LPIPS"
