"""What latents are for: drawing 64x64 pictures in the latents of a first stage beside drawing their pixels
with a U-Net of the same width and depth, decoding included; and training steps fed from the cache of latents
beside steps on a batch that lies in memory.
"""

import argparse
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.metrics_timing import Contestant, race
from unnoise.config.requests import GenerateRequest
from unnoise.config.resolve import resolve
from unnoise.config.schema import DataConfig, TrainConfig
from unnoise.data import open_data
from unnoise.first_stage import FirstStage, make_first_stage, save_first_stage
from unnoise.generate import draw
from unnoise.images import to_images
from unnoise.model import Model, build_model
from unnoise.planning import plan
from unnoise.presets import load_preset
from unnoise.runtime import keep_freed_memory
from unnoise.train.diffusion import DiffusionJob
from unnoise.train.latents import open_first_stage, open_latents
from unnoise.train.loop import fit
from unnoise.train.noised import DiffusionBatch
from unnoise.train.signals import Interruption
from unnoise.train.state import new_state

SIZE, STEPS, PICTURES = 64, 10, 512
TRAINED = 12
"""Training steps a round."""


def first_stage(folder: Path) -> Path:
    """kl-f4-tiny with fresh weights: time does not depend on what it has learned."""
    config = load_preset("kl-f4-tiny").config.autoencoder
    assert config is not None
    stage = make_first_stage(replace(config, network=replace(config.network, in_channels=3)))
    save_first_stage(folder / "stage.safetensors", stage)
    return folder / "stage.safetensors"


def recipe(stage: Path | None, batch: int, folder: Path) -> TrainConfig:
    """latent-64 for a first stage, or the same U-Net on pixels."""
    config = load_preset("latent-64").config
    data = DataConfig(source=str(folder / "made.npz"), size=SIZE, channels=3, flip=True, labels="none",
                      cache=str(folder))  # fmt: skip
    config = replace(
        config, data=data, batch_size=batch, steps=TRAINED, sample_every=0, save_every=10**9, compile="off",
        precision="float32", device="cpu", first_stage=str(stage or ""),
    )  # fmt: skip
    if stage is None:
        config = replace(config, latents=replace(config.latents, required=False))
    return config


def made_up(folder: Path) -> None:
    """Pictures of noise, as an npz."""
    pixels = np.random.default_rng(0).integers(0, 256, (PICTURES, SIZE, SIZE, 3), dtype=np.uint8)
    np.savez(folder / "made.npz", pixels)


def model_for(config: TrainConfig, stage: FirstStage | None) -> Model:
    """A model with random weights, whose layers that start at zero do not."""
    settings = resolve(config, size=SIZE, channels=3, classes=0).model
    model = build_model(settings, first_stage=stage)
    with torch.no_grad():
        for p in model.network.parameters():
            p.add_(torch.randn_like(p), alpha=0.01)
    model.network.eval().requires_grad_(False)
    return model


def sampling(folder: Path, stage_file: Path, batch: int) -> list[Contestant]:
    """STEPS steps of DDIM to uint8 pictures, in pixels and in latents."""

    def contestant(name: str, model: Model) -> Contestant:
        ready = plan(model, GenerateRequest(n=batch, batch_size=batch, steps=str(STEPS), precision="float32"))
        return Contestant(name, lambda: [b.pixels for b in draw(ready, ready.ids)])

    pixels = model_for(recipe(None, batch, folder), None)
    config, stage = open_first_stage(recipe(stage_file, batch, folder), torch.device("cpu"))
    assert stage is not None and config.model.latent is not None
    config = replace(
        config, model=replace(config.model, latent=replace(config.model.latent, first_stage=stage.hash))
    )
    latents = model_for(config, stage)
    both = [contestant("pixels", pixels), contestant("latents, decoded", latents)]
    once = torch.zeros(batch, *latents.config.shape)
    return [*both, Contestant("decoding alone", lambda: latents.decode(once))]


class InMemory:
    """A job that finds its batch in memory, whatever the step."""

    def __init__(self, job: DiffusionJob) -> None:
        self.job = job
        self.batch = job.draw(0, range(job.config.batch_size))

    def draw(self, step: int, positions: range) -> DiffusionBatch:
        return self.batch

    def __getattr__(self, name: str) -> Any:
        return getattr(self.job, name)


def training(folder: Path, stage_file: Path, batch: int) -> list[Contestant]:
    """TRAINED steps of the training loop, from the cache and from memory; encoding a batch of pictures."""
    device = torch.device("cpu")
    config, stage = open_first_stage(recipe(stage_file, batch, folder), device)
    assert stage is not None
    dataset = open_data(config.data, seed=config.seed)
    config, source = open_latents(config, dataset, stage, lambda event: None, device)
    config = resolve(config, size=SIZE, channels=3, classes=0)

    def steps(make: Callable[[DiffusionJob], Any]) -> Callable[[], Any]:
        job = make(DiffusionJob(config, dataset, device, source))
        state = new_state(job, config)

        def call() -> None:
            state.step = 0
            with Interruption() as interruption:
                fit(state, state.network, config, None, lambda event: None, interruption)

        return call

    images = to_images(dataset.take(np.arange(batch)).pixels)
    return [Contestant("batch in memory", steps(InMemory)),
            Contestant("from cached latents", steps(lambda job: job)),
            Contestant("encoding a batch", lambda: stage.encode(images))]  # fmt: skip


def run(args: argparse.Namespace) -> None:
    """Both tables."""
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made_up(folder)
        stage = first_stage(folder)
        drawn, trained = sampling(folder, stage, args.batch), training(folder, stage, args.batch)
        for field in (drawn, trained):
            for c in field:
                c.call()
            race(field, args.rounds)
    print(f"\ndrawing {args.batch} pictures of {SIZE}x{SIZE} in {STEPS} steps, float32")
    for c in drawn:
        print(f"{c.name:24}{args.batch / statistics.median(c.wall):9.2f} images/s")
    ratio = statistics.median(a / b for a, b in zip(drawn[0].wall, drawn[1].wall, strict=True))
    print(f"latents draw {ratio:.1f}x as many (at least 8x)")
    print(f"\ntraining latent-64, batch {args.batch}")
    for c in trained[:2]:
        print(f"{c.name:24}{TRAINED / statistics.median(c.wall):9.2f} steps/s")
    encoding, steps = (statistics.median(c.wall) for c in (trained[2], trained[1]))
    print(f"encoding at every step would add {100 * encoding * TRAINED / steps:.0f} %")
    ratio = statistics.median(a / b for a, b in zip(trained[0].wall, trained[1].wall, strict=True))
    print(f"from the cache {100 * ratio:.0f} % of the rate of data in memory (at least 90 %)", flush=True)
