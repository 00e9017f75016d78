"""What each process of test_distributed runs: a tiny training that writes down everything it draws."""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from tests.train.gans import tiny_gan
from tests.train.test_autoencoder import VQ, tiny_stage
from tests.train.test_noisy_classifier import config as noisy_config
from tests.train.test_noisy_classifier import shades
from tests.train.tiny import tiny_config, tiny_data
from unnoise import distributed
from unnoise.config.load import merge
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

    def observing(self: Any, aside: Any, *, steps: int) -> None:
        times.append(aside["i"].clone())
        observe(self, aside, steps=steps)

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


def classify(run: Path) -> None:
    """Train a classifier of noisy pictures in `run`."""
    changes = {"batch_size": 7, "micro_batch": 2, "steps": 4, "sample_every": 4, "optimizer": {"eps": 1e-3}}
    train(noisy_config(**changes), run, dataset=shades())


def play(run: Path) -> None:
    """Train a GAN in `run`. Norms see three pictures, whether of a process or of a micro-batch."""
    changes = {"micro_batch": 3, "steps": 4, "sample_every": 4, "optimizer": {"eps": 1e-3}}
    train(tiny_gan(**changes), run, dataset=tiny_data())


def rebuild(kind: str, run: Path) -> None:
    """Train a first stage of a kind in `run`, its adversary from step 2 on.

    The adversary's norms and balance see three pictures, whether of a process or of a micro-batch. Codes stay
    where they are, as each process offers latents of its own for them.
    """
    changes: dict[str, Any] = {
        "autoencoder": {"network": {"dropout": 0.0}, "adversary": {"start": 2}},
        "micro_batch": 3, "steps": 6, "log_every": 1, "sample_every": 6, "optimizer": {"eps": 1e-3},
    }  # fmt: skip
    codes = merge(VQ, {"autoencoder": {"revive_after": 0}})
    train(tiny_stage(**merge(codes if kind == "vq" else {}, changes)), run, dataset=tiny_data())


if __name__ == "__main__":
    # One group for all: torchrun's store keeps the addresses of an earlier one.
    with distributed.processes("cpu"):
        record(Path(sys.argv[1]), json.loads(sys.argv[2]))
        classify(Path(sys.argv[3]))
        play(Path(sys.argv[4]))
        rebuild("kl", Path(sys.argv[5]))
        rebuild("vq", Path(sys.argv[6]))
