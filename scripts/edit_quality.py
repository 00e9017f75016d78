"""How good edits of held-out pictures are: LPIPS and a Frechet distance beside OpenCV, bicubic and grey.

    python scripts/edit_quality.py runs/fashion fashion-mnist:test -n 1000 --told --out quality
    python scripts/edit_quality.py runs/emoji emoji64/test -n 500 --tasks box,half,strokes,lines,colour,x2,x4

Every hole is drawn once by each method. All around it the results are the pictures themselves, so that
distances of whole pictures are those of what is in the hole. Prints a table in Markdown with 95 % intervals
and writes a sheet of pictures a task. OpenCV's `inpaint` stands in the table where it is installed (pip
install opencv-python-headless), and a line says so where it is not.
"""

import argparse
import importlib.util
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from unnoise.classes import match_classes
from unnoise.config.requests import EditRequest, GenerateRequest
from unnoise.config.schema import DataConfig
from unnoise.data import Batch, open_data
from unnoise.data.masks import draw_masks
from unnoise.distributed import choose_device
from unnoise.edit import colorize, consistency, inpaint, upscale
from unnoise.images import grid
from unnoise.metrics import weights
from unnoise.metrics.extractors import open_features
from unnoise.metrics.features import Names, Table
from unnoise.metrics.frechet import frechet_distance
from unnoise.metrics.intervals import frechet_error, mean_error
from unnoise.metrics.reconstruction import lpips
from unnoise.metrics.statistics import Moments
from unnoise.model import Model, load_model
from unnoise.networks.lpips import Lpips

BLOCK, SHOWN, SEED = 64, 8, 0
HOLES = ("box", "half", "strokes", "lines")
Method = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Pictures (N, H, W, C) and their holes (N, H, W), or what is known of them -> results (N, H, W, C)."""


def holes(task: str, count: int, side: int) -> np.ndarray:
    """(count, side, side) bool: every second line, or a hole that is drawn for each picture."""
    if task == "lines":
        return np.broadcast_to((np.arange(side) % 2 == 1)[None, :, None], (count, side, side)).copy()
    drawn = draw_masks(task, side, side, seed=SEED, places=np.arange(count))
    return np.asarray(drawn[:, 0])


def of_opencv(name: str) -> Method:
    """OpenCV's inpainting, "telea" or "ns", radius 3."""
    cv2: Any = importlib.import_module("cv2")
    flag = {"telea": cv2.INPAINT_TELEA, "ns": cv2.INPAINT_NS}[name]

    def fill(pictures: np.ndarray, hole: np.ndarray) -> np.ndarray:
        done = [
            cv2.inpaint(np.ascontiguousarray(picture.squeeze()), each.astype(np.uint8), 3, flag)
            for picture, each in zip(pictures, hole, strict=True)
        ]
        return np.stack(done).reshape(pictures.shape)

    return fill


def enlarged(small: np.ndarray, factor: int) -> np.ndarray:
    """(N, h, w, C) by Pillow's bicubic filter."""
    size = (small.shape[2] * factor, small.shape[1] * factor)
    done = [Image.fromarray(each.squeeze()).resize(size, Image.Resampling.BICUBIC) for each in small]
    return np.stack([np.asarray(each) for each in done]).reshape(len(small), size[1], size[0], -1)


def shrunk(pictures: np.ndarray, factor: int) -> np.ndarray:
    """Means of blocks, rounded: what is enlarged."""
    count, height, width, channels = pictures.shape
    blocks = pictures.reshape(count, height // factor, factor, width // factor, factor, channels)
    return blocks.mean((2, 4)).round().astype(np.uint8)


def of_model(
    model: Model, task: str, method: str, said: dict[str, tuple[str, ...]], chosen: argparse.Namespace
) -> Method:
    """One result of each picture."""
    sampler = "ddpm" if method == "particles" else chosen.sampler
    drawn = GenerateRequest(
        n=1,
        steps=chosen.steps,
        sampler=sampler,
        guidance=chosen.guidance,
        seed=SEED,
        batch_size=BLOCK,
        **said,
    )
    extra: dict[str, Any] = {"jump": chosen.jump, "repeats": chosen.repeats} if method == "repaint" else {}
    if method == "particles":
        extra = {"particles": chosen.particles}
    kind = {"colour": "colorize"}.get(task, "upscale" if task.startswith("x") else "inpaint")
    factor = int(task[1:]) if kind == "upscale" else None
    request = EditRequest(kind=kind, method=method, factor=factor, generate=drawn, **extra)

    def draw(pictures: np.ndarray, hole: np.ndarray) -> np.ndarray:
        if kind == "inpaint":
            batches = inpaint(model, list(pictures), request, masks=list(hole))
        else:
            batches = (colorize if kind == "colorize" else upscale)(model, list(pictures), request)
        return np.concatenate([batch.pixels.numpy() for batch in batches])

    return draw


class Gauge:
    """Measures results against the real pictures."""

    def __init__(self, features: str, device: str) -> None:
        self.network = open_features(features, device=device)
        self.names = Names(self.network.name)
        try:
            self.lpips: Lpips | None = Lpips.from_state(
                weights.read(weights.find(weights.LPIPS_SHIFT_TOLERANT))
            )
        except ValueError as problem:
            print(f"LPIPS is left out: {problem}", file=sys.stderr)
            self.lpips = None

    def features(self, pixels: np.ndarray) -> torch.Tensor:
        """(N, D) in float64 of the column that the Frechet distance reads."""
        found = []
        for start in range(0, len(pixels), BLOCK):
            table = Table.of(self.network(torch.from_numpy(pixels[start : start + BLOCK].copy())))
            found.append(torch.as_tensor(table.load(table.frechet)).double())
        return torch.cat(found)

    def line(self, real: np.ndarray, fake: np.ndarray) -> str:
        """The two distances with their intervals."""
        reference = Moments.of(self.features(real)).gaussian()
        table = self.features(fake)
        distance = frechet_distance(real=reference, fake=Moments.of(table).gaussian())
        error = frechet_error(real=reference, fake=table)
        if self.lpips is None:
            return f"- | {distance:.2f} ± {1.96 * error:.2f}"
        both = [torch.from_numpy(np.ascontiguousarray(each)).split(BLOCK) for each in (real, fake)]
        parts = [lpips(self.lpips, real=a, fake=b) for a, b in zip(*both, strict=True)]
        value = torch.cat(parts)
        return f"{value.mean():.4f} ± {1.96 * mean_error(value):.4f} | {distance:.2f} ± {1.96 * error:.2f}"


def rows_of(
    task: str, real: np.ndarray, model: Model, said: dict[str, tuple[str, ...]], chosen: argparse.Namespace
) -> tuple[np.ndarray, np.ndarray, dict[str, Method]]:
    """What is known, as a picture and as it is given, the holes, and the methods of a task."""
    given, hole = real, np.zeros(real.shape[:3], bool)
    methods: dict[str, Method] = {}
    if task in HOLES:
        hole = holes(task, len(real), real.shape[1])
        given = np.where(hole[..., None], 128, real).astype(np.uint8)
        if importlib.util.find_spec("cv2"):
            methods |= {f"OpenCV {name}": of_opencv(name) for name in ("telea", "ns")}
        else:
            print("OpenCV is not installed, so it is not in the table", file=sys.stderr)
    elif task == "colour":
        given = np.repeat(real.mean(3, keepdims=True).round().astype(np.uint8), real.shape[3], 3)
        methods["grey"] = lambda pictures, _: pictures
    else:
        factor = int(task[1:])
        given = shrunk(real, factor)
        methods["bicubic"] = lambda pictures, _: enlarged(pictures, factor)
    for method in chosen.methods.split(","):
        methods[method] = of_model(model, task, method, said, chosen)
    return given, hole, methods


def measure(
    task: str,
    real: np.ndarray,
    model: Model,
    said: dict[str, tuple[str, ...]],
    gauge: Gauge,
    chosen: argparse.Namespace,
) -> None:
    """A line a method, and the sheet."""
    given, hole, methods = rows_of(task, real, model, said, chosen)
    shown = [real[:SHOWN], given[:SHOWN] if given.shape == real.shape else _blocks(given, real)[:SHOWN]]
    for name, method in methods.items():
        began = time.monotonic()
        fake = method(given, hole)
        spent = time.monotonic() - began
        if task.startswith("x"):
            near = [
                consistency(small=torch.from_numpy(a), large=torch.from_numpy(b))
                for a, b in zip(given, fake, strict=True)
            ]
            facts = f"{np.median(near):.1f} dB"
        else:
            facts = "-"
        spent_each = 1000 * spent / len(real)
        print(f"| {task} | {name} | {gauge.line(real, fake)} | {facts} | {spent_each:.0f} |", flush=True)
        shown.append(fake[:SHOWN])
    if chosen.out:
        cells = np.stack(shown, 1).reshape(-1, *real.shape[1:])
        heads = ["real", "given", *methods]
        sheet = grid(cells, len(heads), heads * min(SHOWN, len(real)))
        chosen.out.mkdir(parents=True, exist_ok=True)
        Image.fromarray(sheet).save(chosen.out / f"{task}.png")


def _blocks(small: np.ndarray, real: np.ndarray) -> np.ndarray:
    factor = real.shape[1] // small.shape[1]
    return small.repeat(factor, 1).repeat(factor, 2)


def told(model: Model, classes: list[str], batch: Batch) -> dict[str, tuple[str, ...]]:
    """What the pictures are called, as fields of a GenerateRequest: captions for a model of words."""
    if model.info.vocabulary:
        if batch.caption is None:
            raise SystemExit("the pictures have no captions; leave --told out")
        return {"prompts": tuple(batch.caption)}
    if batch.label is None:
        raise SystemExit("the pictures have no classes; leave --told out")
    known = match_classes(classes, model.class_names, whose="the pictures")
    return {"labels": tuple(str(known[int(k)]) for k in batch.label)}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("model")
    parser.add_argument("data", help="Held-out pictures of the model's size.")
    parser.add_argument("-n", type=int, default=500, help="Pictures, the first ones of the seed's order.")
    parser.add_argument("--tasks", default="box,half,strokes,lines,x2,x4")
    parser.add_argument("--methods", default="replace,repaint,dps,pigdm")
    parser.add_argument("--told", action="store_true", help="Tell classes or captions.")
    parser.add_argument("--steps", default="50")
    parser.add_argument("--sampler", default="ddim")
    parser.add_argument("--guidance", type=float, default=1.0)
    parser.add_argument("--jump", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--particles", type=int, default=16)
    parser.add_argument("--features", default="unnoise-small")
    parser.add_argument("--out", type=Path, help="Folder for the sheets.")
    chosen = parser.parse_args()
    model = load_model(chosen.model, choose_device("auto"))
    config = model.config
    data = open_data(DataConfig(source=chosen.data, size=config.image_size, channels=config.channels))
    places = np.random.default_rng(SEED).permutation(len(data))[: chosen.n]
    batch = data.take(places)
    real = np.asarray(batch.pixels)
    said = told(model, data.classes, batch) if chosen.told else {}
    gauge = Gauge(chosen.features, str(choose_device("auto")))
    measured = f"LPIPS[shift-tolerant] | {gauge.names('FD')}"
    print(f"| task | method | {measured} | consistency, median | ms a picture |")
    print("|---|---|---|---|---|---|")
    for task in chosen.tasks.split(","):
        measure(task, real, model, said, gauge, chosen)


if __name__ == "__main__":
    main()
