"""Metrics of pairs: sample k is the reconstruction of reference picture k."""

import torch
from torch import Tensor

from unnoise.config.schema import EvaluateRequest
from unnoise.metrics import weights as store
from unnoise.metrics.intervals import interval, mean_error
from unnoise.metrics.reconstruction import lpips, psnr, ssim
from unnoise.metrics.result import Metric
from unnoise.metrics.sources import Pictures
from unnoise.networks.lpips import Lpips


def paired_metrics(
    request: EvaluateRequest, samples: Pictures, real: Pictures, warnings: list[str]
) -> list[Metric]:
    """PSNR, SSIM and, where its weights are, LPIPS: means over the pairs with their intervals."""
    if samples.n != real.n or samples.shape != real.shape:
        raise ValueError(
            f"{samples.n} samples of {samples.shape} and {real.n} pictures of {real.shape} are no pairs; "
            "leave paired out or make them match"
        )
    network, label = _network(request, warnings)
    found: dict[str, list[Tensor]] = {}
    for begin in range(0, samples.n, request.batch_size):
        ids = range(begin, min(begin + request.batch_size, samples.n))
        a, b = real.take(ids), samples.take(ids)
        found.setdefault("PSNR", []).append(psnr(real=a, fake=b))
        if min(real.shape[:2]) >= 11:
            found.setdefault("SSIM", []).append(ssim(real=a, fake=b))
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


def _network(request: EvaluateRequest, warnings: list[str]) -> tuple[Lpips | None, str]:
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
