"""What classifier guidance adds to sampling beyond its two networks: a guided step beside the model's forward
pass and the classifier's forward pass with the gradient to its input, each timed alone.
"""

import argparse
import statistics
import tempfile
from pathlib import Path

import torch

from benchmarks.metrics_timing import Contestant, race
from unnoise.config.model import ModelConfig
from unnoise.config.requests import GenerateRequest
from unnoise.config.schema import NoisyClassifierConfig
from unnoise.diffusion.condition import Condition
from unnoise.diffusion.noise import SeededNoise
from unnoise.diffusion.walk import run as walk
from unnoise.model import build_model
from unnoise.modelfile import ModelInfo
from unnoise.networks.settings import EncoderUNetSettings, UNetSettings
from unnoise.noisy_classifier import build_noisy_classifier, save_noisy_classifier
from unnoise.planning import Plan, plan
from unnoise.runtime import keep_freed_memory

SIZE, CLASSES, STEPS = 32, 10, 6
SAMPLERS = ("ddpm", "ddim")


def prepare(folder: Path, sampler: str, batch: int, precision: str) -> Plan:
    """A class-conditional ADM U-Net and a classifier of the same width, all weights random."""
    body = {"width": 64, "channel_mult": (1, 2, 2), "attention": (2, 4), "head_channels": 32, "depth": 2}
    network = UNetSettings(in_channels=3, out_channels=6, classes=CLASSES, updown_blocks=True, **body)
    info = ModelInfo(classes=tuple(map(str, range(CLASSES))))
    model = build_model(ModelConfig(network=network, image_size=SIZE, channels=3), info)
    settings = EncoderUNetSettings(image_size=SIZE, in_channels=3, classes=CLASSES, **body)
    classifier = build_noisy_classifier(NoisyClassifierConfig(network=settings), info)
    with torch.no_grad():
        for p in (*model.network.parameters(), *classifier.network.parameters()):
            p.add_(torch.randn_like(p), alpha=0.01)
    model.network.eval().requires_grad_(False)
    save_noisy_classifier(folder / "classifier.safetensors", classifier)
    request = GenerateRequest(
        n=batch, batch_size=batch, sampler=sampler, steps=str(STEPS), precision=precision,
        classifier=str(folder / "classifier.safetensors"), scale=1.0,
    )  # fmt: skip
    return plan(model, request)


def contestants(ready: Plan) -> list[Contestant]:
    """STEPS calls of each network alone, and STEPS guided steps."""
    batch = ready.request.n
    like = torch.empty(batch, *ready.shape)
    noise = SeededNoise(0, range(batch))
    cond = Condition(label=torch.arange(batch) % CLASSES)
    path = ready.schedule.path(like)
    x = noise(like, step=-1, draw=0)
    guide = ready.guide
    assert guide is not None

    def model_alone() -> None:
        with torch.no_grad():
            for at in path[:-1]:
                ready.denoise(x, at, cond)

    def classifier_alone() -> None:
        for at in path[:-1]:
            guide(x, at, cond)

    def guided() -> None:
        for _ in walk(ready.sampler, ready.denoise, x, path, cond=cond, noise=noise, guide=guide):
            pass

    return [
        Contestant("model: forward", model_alone),
        Contestant("classifier: forward, gradient to x", classifier_alone),
        Contestant("guided sampling", guided),
    ]


def run(args: argparse.Namespace) -> None:
    """One table a sampler and precision."""
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    for precision in ("float32", "bfloat16"):
        for sampler in SAMPLERS:
            with tempfile.TemporaryDirectory() as folder:
                field = contestants(prepare(Path(folder), sampler, args.batch, precision))
            for c in field:
                c.call()
            race(field, args.rounds)
            print(f"\nclassifier guidance, {sampler}, {precision}, batch {args.batch} of {SIZE}x{SIZE}")
            for c in field:
                print(f"{c.name:40}{1e3 * statistics.median(c.wall) / STEPS:8.0f} ms a step")
            model, classifier, whole = (c.wall for c in field)
            ratio = statistics.median(w / (a + b) for a, b, w in zip(model, classifier, whole, strict=True))
            print(f"guided sampling costs {ratio:.2f}x the sum of the two (at most 1.25x)", flush=True)
