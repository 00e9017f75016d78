"""What each process of test_distributed runs: a tiny training that writes down everything it draws."""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from tests.train.tiny import tiny_config, tiny_data
from unnoise import distributed
from unnoise.train import diffusion, train


def record(run: Path, config: dict[str, Any]) -> None:
    """Train in `run`; leave rank 0's and rank 1's draws beside it."""
    drawn: dict[str, torch.Tensor] = {}
    times: list[torch.Tensor] = []
    draw, observe = diffusion.DiffusionJob.draw, diffusion.DiffusionJob.observe

    def drawing(self: Any, step: int, positions: range) -> Any:
        batch = draw(self, step, positions)
        for name in ("pixels", "eps", "u", "label"):
            drawn[f"{name}.{step}"] = getattr(batch, name).clone()
        return batch

    def observing(self: Any, aside: Any) -> None:
        times.append(aside["i"].clone())
        observe(self, aside)

    diffusion.DiffusionJob.draw = drawing  # type: ignore[method-assign]
    diffusion.DiffusionJob.observe = observing  # type: ignore[method-assign]
    rank = []
    settings = tiny_config(**config)
    share = distributed.share
    distributed.share = lambda count: (rank.append(distributed.rank()), share(count))[1]  # type: ignore
    try:
        train(settings, run, dataset=tiny_data(settings.seed))
    finally:
        diffusion.DiffusionJob.draw, diffusion.DiffusionJob.observe = draw, observe  # type: ignore
        distributed.share = share
    save_file(drawn | {"times": torch.stack(times)}, run.with_name(f"{run.name}-rank{rank[0]}.safetensors"))


if __name__ == "__main__":
    record(Path(sys.argv[1]), json.loads(sys.argv[2]))
