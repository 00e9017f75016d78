"""A pixel diffusion model, a latent one and a GAN, trained for the same time and measured by one evaluator.

Each is an ordinary run directory. Training continues where it stopped; what was measured is reused.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from unnoise.distributed import choose_device
from unnoise.gan import GanModel
from unnoise.generate import draw
from unnoise.metrics.collect import collect
from unnoise.metrics.result import Evaluation
from unnoise.metrics.sources import open_pictures
from unnoise.model import Model
from unnoise.modelfile import write_atomically
from unnoise.outputs import check_folder
from unnoise.planning import plan
from unnoise.studies.compared import Comparison, Contender, Spot
from unnoise.studies.contenders import STAGE, Prepared, Training, ways_to_draw
from unnoise.studies.judge import Judge, judge_of_classes, judge_of_clusters, repeats
from unnoise.studies.models import open_model
from unnoise.studies.points import Point, Stage, Yardstick, measure_point, point_at
from unnoise.studies.swept import summary
from unnoise.train import train
from unnoise.train.events import Event, Listener, Measured, TrainResult
from unnoise.train.run import BEST
from unnoise.words import duration

RUNS, POINTS, SPEED = "runs", "points", "speed.json"
TIMED = 64
"""Pictures that the speed of drawing is measured on, after a few that warm up."""
Show = Callable[[str, Path], AbstractContextManager[Listener]]
Say = Callable[[str], None]


def train_all(prepared: Prepared, out: Path, show: Show) -> Iterator[tuple[Training, TrainResult]]:
    """Train, or continue, one model after the other; ends with the first that was stopped or diverged.

    ValueError when a budget is shorter than one step.
    """
    check_folder(out, "comparison")
    for training in prepared.trainings:
        run = out / RUNS / training.name
        config = training.config
        if training.name == "latent":
            config = replace(config, first_stage=str(out / RUNS / STAGE))
        with show(training.name, run) as listener:
            result = train(
                config, run, dataset=prepared.dataset, on_event=_watched(prepared, training.name, listener)
            )
        yield training, result
        if result.stopped:
            return


def _watched(prepared: Prepared, name: str, listener: Listener) -> Listener:
    """A listener that refuses a budget which holds no step."""
    budget = prepared.seconds(name)

    def watch(event: Event) -> None:
        if isinstance(event, Measured) and event.step_seconds > budget:
            least = event.step_seconds / budget * prepared.request.minutes
            raise ValueError(
                f"budget: the {duration(budget)} of {name} are shorter than one step, which takes "
                f"{event.step_seconds:.2g} s; use {least:.2g}m or much more"
            )
        listener(event)

    return watch


def measure_all(
    prepared: Prepared,
    trained: Mapping[str, TrainResult],
    out: Path,
    *,
    stage: Stage = lambda *_: None,
    say: Say = lambda _: None,
) -> Comparison:
    """Draw from every model at all its settings and measure; what was measured is reused."""
    request, real, judge = prepared.request, _pool(prepared), _judge(prepared)
    device = str(choose_device(request.evaluate.device))
    contenders: list[Contender] = []
    heard = list(prepared.yardstick.warnings)
    for kind in request.models:
        model, hashed = open_model(str(_model_file(out / RUNS / kind)), device)
        points = [
            (setting, point_at(plan(model, asked), hashed, out / POINTS))
            for setting, asked in ways_to_draw(request, model)
        ]
        spots = []
        for setting, point in points:
            evaluation = measure_point(point, prepared.yardstick, stage, floor=not (contenders or spots))
            spots.append(_spot(setting, point, evaluation, prepared, judge, real))
            heard += evaluation.warnings
            say(summary(f"{kind}{f', {setting}' if setting else ''}", evaluation))
        contenders.append(_contender(kind, model, spots, trained, _speed(points[0][1])))
    found = Comparison(
        data=request.data,
        against=prepared.yardstick.request.against,
        n=request.evaluate.n or 0,
        minutes=request.minutes,
        classes=tuple(prepared.dataset.classes),
        judged=judge.accuracy,
        kinds=len(judge.real),
        contenders=tuple(contenders),
        warnings=(*dict.fromkeys(heard), *_uneven(contenders, request.minutes)),
    )
    found.save(out)
    return found


def _spot(
    setting: str, point: Point, evaluation: Evaluation, prepared: Prepared, judge: Judge, real: Tensor
) -> Spot:
    """What was measured, and what the judge finds in the features of the samples."""
    fake = _features(point, prepared.yardstick)
    return Spot(
        setting=setting,
        evaluation=evaluation,
        folder=point.folder,
        repeats=repeats(real, fake, prepared.request.seed),
        lost=judge.lost(fake, _asked(point, judge)),
        score=judge.score(fake),
    )


def _model_file(run: Path) -> Path:
    """The best average where one was kept, else the last."""
    best = run / BEST
    return best if best.exists() else run / "model.safetensors"


def _pool(prepared: Prepared) -> Tensor:
    table = prepared.yardstick.side.table
    assert table is not None, "refused when it was prepared"
    return table.load("pool")


def _judge(prepared: Prepared) -> Judge:
    """Of the classes of the pictures that are compared with, or of clusters of these."""
    request, dataset = prepared.request, prepared.dataset
    features = _pool(prepared)
    if prepared.request.evaluate.against or dataset.labels is None or len(dataset.classes) < 2:
        return judge_of_clusters(features, request.seed)
    label = torch.from_numpy(np.asarray(dataset.labels, np.int64))
    return judge_of_classes(features, label, len(dataset.classes), request.seed)


def _asked(point: Point, judge: Judge) -> Tensor | None:
    """Shares of the classes that were asked for; None where the judge knows no classes."""
    if judge.accuracy is None or not point.plan.labels:
        return None
    labels = torch.tensor([point.plan.label(k) for k in point.plan.ids])
    return torch.bincount(labels, minlength=len(judge.real)).double() / len(labels)


def _features(point: Point, yardstick: Yardstick) -> Tensor:
    """Of the point's samples, from the cache that measuring has filled."""
    request = replace(yardstick.request, samples=str(point.samples))
    pictures = open_pictures(str(point.samples), request, n=point.plan.request.n)
    found = collect(pictures, yardstick.network, cache=request.cache, batch_size=request.batch_size)
    return found.table.load("pool")


def _speed(point: Point) -> float:
    """Pictures a second, measured once and kept beside the point."""
    path = point.folder / SPEED
    if path.exists():
        return float(json.loads(path.read_text(encoding="utf-8"))["pictures_per_second"])
    ready = point.plan
    count = min(TIMED, ready.request.n)
    list(draw(ready, range(min(4, count))))
    began = time.perf_counter()
    list(draw(ready, range(count)))
    found = count / max(time.perf_counter() - began, 1e-9)
    write_atomically(path, json.dumps({"pictures_per_second": found}).encode())
    return found


def _contender(
    kind: str,
    model: Model | GanModel,
    spots: Sequence[Spot],
    trained: Mapping[str, TrainResult],
    speed: float,
) -> Contender:
    runs = [trained[name] for name in (STAGE, kind) if name in trained and (name == kind or kind == "latent")]
    parameters = sum(p.numel() for p in model.network.parameters())
    if isinstance(model, Model) and model.first_stage is not None:
        parameters += sum(p.numel() for p in model.first_stage.network.parameters())
    return Contender(
        kind=kind,
        parameters=parameters,
        steps=runs[-1].steps,
        training_step=model.info.step,
        seconds=sum(run.seconds for run in runs),
        speed=speed,
        spots=tuple(spots),
    )


def _uneven(contenders: Sequence[Contender], minutes: float) -> list[str]:
    off = {c.kind: c.seconds / 60 for c in contenders if abs(c.seconds / 60 - minutes) > 0.15 * minutes}
    if not off:
        return []
    facts = ", ".join(f"{kind} {spent:.1f}" for kind, spent in off.items())
    return [
        f"training took other than the {minutes:g} minutes planned ({facts} in steps): the rest went into "
        "grids, evaluations and checkpoints, or the machine's speed changed"
    ]
