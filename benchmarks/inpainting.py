"""What holding the known part of a picture adds to sampling: inpainting by replacement and by resampling
beside plain sampling of as many calls of the network, and reconstruction guidance beside both.
"""

import argparse
import statistics
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.metrics_timing import Contestant, race
from unnoise.config.model import ModelConfig
from unnoise.config.requests import GenerateRequest
from unnoise.diffusion.condition import Condition
from unnoise.diffusion.constrain import AtEnd, Constraint, hold_known, resampling_path
from unnoise.diffusion.noise import SeededNoise
from unnoise.diffusion.prediction import Denoise
from unnoise.diffusion.reconstruction import pigdm
from unnoise.diffusion.schedule import At
from unnoise.diffusion.walk import run as walk
from unnoise.model import build_model
from unnoise.modelfile import ModelInfo
from unnoise.networks.settings import UNetSettings
from unnoise.planning import Plan, plan
from unnoise.runtime import keep_freed_memory

SIZE, STEPS, JUMP, REPEATS = 32, 6, 2, 2
MOST = 1.1
"""What inpainting may cost, times plain sampling."""


def prepare(sampler: str, batch: int, steps: int, precision: str) -> Plan:
    """An ADM U-Net, all weights random."""
    network = UNetSettings(
        in_channels=3, out_channels=6, width=64, channel_mult=(1, 2, 2), attention=(2, 4), head_channels=32,
        depth=2, updown_blocks=True,
    )  # fmt: skip
    model = build_model(ModelConfig(network=network, image_size=SIZE, channels=3), ModelInfo())
    with torch.no_grad():
        for p in model.network.parameters():
            p.add_(torch.randn_like(p), alpha=0.01)
    model.network.eval().requires_grad_(False)
    request = GenerateRequest(
        n=batch, batch_size=batch, sampler=sampler, steps=str(steps), precision=precision
    )
    return plan(model, request)


def contestants(sampler: str, batch: int, precision: str) -> list[tuple[Contestant, int]]:
    """Each with its calls of the network."""
    ready = prepare(sampler, batch, STEPS, precision)
    like = torch.empty(batch, *ready.shape)
    noise = SeededNoise(0, range(batch))
    x, known = noise(like, step=-1, draw=0), noise(like, step=-1, draw=1).clamp(-1, 1)
    mask = torch.zeros(SIZE, SIZE)
    mask[:, : SIZE // 2] = 1
    held = hold_known(known, mask)
    path = ready.schedule.path(like)
    again = resampling_path(ready.schedule, like, jump=JUMP, repeats=REPEATS)
    calls = sum(bool(to.i[0] < at.i[0]) for at, to in zip(again, again[1:], strict=False))
    longer = prepare(sampler, batch, calls, precision)
    longer_path = longer.schedule.path(like)

    def drawn(denoise: Denoise, path: list[At], constraint: Constraint | None) -> Callable[[], Tensor]:
        def draw() -> Tensor:
            *_, end = walk(
                ready.sampler, denoise, x, path, cond=Condition(), noise=noise, constraint=constraint
            )
            return end.x

        return draw

    pulled = pigdm(ready.denoise, held)
    return [
        (Contestant("plain sampling", drawn(ready.denoise, path, None)), STEPS),
        (Contestant("replacement", drawn(ready.denoise, path, held)), STEPS),
        (Contestant("plain sampling", drawn(ready.denoise, longer_path, None)), calls),
        (Contestant("RePaint", drawn(ready.denoise, again, held)), calls),
        (Contestant("PiGDM", drawn(pulled, path, AtEnd(held))), STEPS),
    ]


def run(args: argparse.Namespace) -> None:
    """One table a sampler."""
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    for sampler in ("ddpm", "ddim"):
        field = contestants(sampler, args.batch, "float32")
        for c, _ in field:
            c.call()
        race([c for c, _ in field], args.rounds)
        print(f"\ninpainting, {sampler}, float32, batch {args.batch} of {SIZE}x{SIZE}")
        for c, calls in field:
            print(f"{c.name:24}{calls:4} calls{1e3 * statistics.median(c.wall) / calls:8.0f} ms a call")
        plain, replaced, longer, repainted, pulled = (c.wall for c, _ in field)
        for name, walls, beside in (
            ("replacement", replaced, plain), ("RePaint", repainted, longer), ("PiGDM", pulled, plain),
        ):  # fmt: skip
            ratio = statistics.median(a / b for a, b in zip(walls, beside, strict=True))
            least = "" if name == "PiGDM" else f" (at most {MOST}x)"
            print(f"{name} costs {ratio:.2f}x plain sampling of as many calls{least}", flush=True)
