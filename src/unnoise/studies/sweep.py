"""A sweep: a grid over the options of drawing, each point drawn from the same noise and measured against one
reference (Dhariwal & Nichol 2021, Figures 4 and 5; arXiv 2105.05233).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from unnoise.config.load import to_dict
from unnoise.config.requests import EvaluateRequest
from unnoise.config.studies import SweepRequest
from unnoise.distributed import choose_device
from unnoise.gan import GanModel
from unnoise.metrics.evaluate import check_most, evaluate
from unnoise.metrics.result import COMPARED, Evaluation, read_evaluation
from unnoise.metrics.sources import open_pictures
from unnoise.model import Model
from unnoise.outputs import check_folder
from unnoise.planning import plan
from unnoise.studies.grid import MODEL, Axis, Cell, cells, read_axes
from unnoise.studies.models import open_model
from unnoise.studies.points import Stage, Yardstick, measure_point, open_yardstick, point_at
from unnoise.studies.swept import Sweep, Swept, summary

POINTS = "points"
MOST_POINTS = 10_000
"""Of a grid, all of which are planned before the first is drawn."""
Shape = tuple[int, int, int]
Say = Callable[[str], None]


@dataclass(frozen=True)
class Other:
    """Samples that somebody else drew, or an evaluation of them."""

    name: str
    path: str
    n: int
    """Pictures to measure; 0 for an evaluation."""


def sweep(
    request: SweepRequest, out: Path, *, stage: Stage = lambda *_: None, say: Say = lambda _: None
) -> Sweep:
    """Draw and measure every point of the grid under `out`; what is there already is reused.

    ValueError, before anything is drawn, for a grid, a model, a reference or others' samples that cannot
    work. `stage` is told of progress, `say` of every point that is done.
    """
    check_folder(out, "sweep")
    if not request.evaluate.against:
        raise ValueError("--against is missing; name the real pictures or a reference file")
    models, axes = _axes(request)
    n = request.evaluate.n
    if n is None or n < 2:
        raise ValueError(f"n={n} pictures a point are not enough; use 2 or more")
    check_most("n", n)
    base = replace(request.generate, n=n, device="auto")
    grid = list(cells(models.texts, axes, base))
    device = str(choose_device(request.generate.device))
    shape = _check(grid, device, request.preset)
    others = _others(request, shape)
    yardstick = open_yardstick(request.evaluate, shape, stage)
    several = tuple(axis for axis in (models, *axes) if len(axis.texts) > 1)
    points: list[Swept] = []
    model, hashed, name = None, "", ""
    for index, cell in enumerate(grid):
        if model is None or name != cell.model:
            model = None  # free the last one first
            (model, hashed), name = open_model(cell.model, device, request.preset), cell.model
        points.append(_measured(cell, model, hashed, several, out, yardstick, stage, floor=index == 0))
        say(f"{index + 1}/{len(grid)}  {summary(points[-1].name, points[-1].evaluation)}")
    also = [(other.name, _measure_other(other, yardstick, stage)) for other in others]
    for named, evaluation in also:
        say(f"also  {summary(named, evaluation)}")
    heard = [*yardstick.warnings, *(w for e in [p.evaluation for p in points] for w in e.warnings)]
    found = Sweep(
        axes=several,
        points=tuple(points),
        also=tuple(also),
        against=request.evaluate.against,
        n=n,
        warnings=(*dict.fromkeys(heard), *_warnings(points, also, n)),
    )
    found.save(out)
    return found


def _axes(request: SweepRequest) -> tuple[Axis, tuple[Axis, ...]]:
    """The models and the other axes."""
    axes = read_axes(request.grid)
    named = next((axis for axis in axes if axis.name == MODEL), None)
    if named and request.models:
        raise ValueError("models are named twice, as an argument and by --grid model=; use one of them")
    models = named or Axis(MODEL, request.models, request.models)
    if not models.texts:
        raise ValueError("no model named; give a model file, a run directory or --grid model=one,another")
    if len(set(models.texts)) < len(models.texts):
        raise ValueError(f"a model is named twice ({', '.join(models.texts)}); name each once")
    rest = tuple(axis for axis in axes if axis.name != MODEL)
    points = math.prod(len(axis.texts) for axis in (models, *rest))
    if points > MOST_POINTS:
        raise ValueError(f"the grid has {points:,} points; name fewer values, for {MOST_POINTS:,} at most")
    if not rest and len(models.texts) == 1 and not request.also:
        raise ValueError("the grid is empty; add --grid option=value,value, such as --grid guidance=1,2,4")
    return models, rest


def _check(grid: Sequence[Cell], device: str, preset: str) -> Shape:
    """Refuse what a model cannot draw; the shape of all their pictures."""
    shapes: dict[str, Shape] = {}
    model: Model | GanModel | None = None
    for cell in grid:
        if model is None or cell.model not in shapes:
            model = None
            model, _ = open_model(cell.model, device, preset)
        shapes[cell.model] = plan(model, cell.request).picture
    first, shape = next(iter(shapes.items()))
    for name, other in shapes.items():
        if other != shape:
            raise ValueError(
                f"{first} draws {_size(shape)} and {name} {_size(other)}; sweep models of one size"
            )
    return shape


def _size(shape: Shape) -> str:
    return f"{shape[2]}x{shape[1]} with {shape[0]} channels"


def _measured(
    cell: Cell,
    model: Model | GanModel,
    hashed: str,
    several: Sequence[Axis],
    out: Path,
    yardstick: Yardstick,
    stage: Stage,
    *,
    floor: bool,
) -> Swept:
    ready = plan(model, cell.request)
    point, name = point_at(ready, hashed, out / POINTS), cell.name(axis.name for axis in several)
    try:
        evaluation = measure_point(point, yardstick, stage, floor=floor)
    except FloatingPointError as error:
        raise FloatingPointError(f"{name or cell.model}: {error}") from None
    return Swept(
        name=name,
        texts=cell.texts,
        request=to_dict(ready.request),
        steps=ready.steps,
        training_step=model.info.step,
        evaluation=evaluation,
        folder=point.folder,
    )


def _others(request: SweepRequest, shape: Shape) -> list[Other]:
    """Other people's samples, opened to see that they can be measured."""
    found: list[Other] = []
    for text in request.also:
        name, equals, path = text.partition("=")
        if not equals or Path(text).exists():
            name, path = Path(text).stem, text
        if any(other.name == name for other in found):
            raise ValueError(f"--also has two samples called {name}; name them with --also NAME=PATH")
        if path.endswith(".json"):
            read_evaluation(Path(path))
            found.append(Other(name, path, 0))
            continue
        pictures = open_pictures(path, request.evaluate)
        if pictures.shape[2] != shape[0] or pictures.n < 2:
            what = f"{pictures.n} pictures with {pictures.shape[2]} channels"
            raise ValueError(
                f"--also {path}: {what} cannot stand beside samples with {shape[0]}; convert them first"
            )
        found.append(Other(name, path, min(pictures.n, request.evaluate.n or pictures.n)))
    return found


def _measure_other(other: Other, yardstick: Yardstick, stage: Stage) -> Evaluation:
    request: EvaluateRequest = yardstick.request
    if other.n:
        return evaluate(replace(request, samples=other.path, n=other.n, floor=False), on_progress=stage)
    return read_evaluation(Path(other.path))


def _warnings(points: Sequence[Swept], also: Sequence[tuple[str, Evaluation]], n: int) -> list[str]:
    """What a reader of the figures must know."""
    out = []
    if len(points) > 1:
        out.append(
            f"the best of {len(points)} points on the same {n:,} pictures each looks better than it is; draw "
            "it again with another seed for a number to report"
        )
    protocol = points[0].evaluation.protocol
    for name, evaluation in also:
        other = evaluation.protocol
        differing = [key for key in COMPARED if other.get(key) != protocol.get(key)]
        if differing:
            facts = ", ".join(f"{key} {other.get(key)}, not {protocol.get(key)}" for key in differing)
            out.append(f"{name} is not measured alike: {facts}")
    return out
