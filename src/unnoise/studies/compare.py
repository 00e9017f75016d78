"""A pixel diffusion model, a latent one and a GAN, trained for the same time and measured by one evaluator.

Each is an ordinary run directory. Training continues where it stopped; what was measured is reused.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from unnoise.config.load import Assignment
from unnoise.config.requests import GenerateRequest
from unnoise.config.resolve import data_config
from unnoise.config.schema import TrainConfig
from unnoise.config.studies import CompareRequest
from unnoise.data import Dataset, open_data
from unnoise.distributed import choose_device
from unnoise.gan import GanModel
from unnoise.generate import draw
from unnoise.metrics.collect import collect
from unnoise.metrics.sources import open_pictures
from unnoise.model import Model
from unnoise.modelfile import write_atomically
from unnoise.planning import plan
from unnoise.studies.ablate import recipe
from unnoise.studies.compared import Comparison, Contender, Spot
from unnoise.studies.judge import Judge, judge_of_classes, judge_of_clusters, repeats
from unnoise.studies.models import open_model
from unnoise.studies.points import Point, Stage, Yardstick, measure_point, open_yardstick, point_at
from unnoise.studies.swept import summary
from unnoise.train import train
from unnoise.train.check import check
from unnoise.train.events import Event, Listener, Measured, TrainResult
from unnoise.train.run import BEST
from unnoise.words import duration

RUNS, POINTS, SPEED = "runs", "points", "speed.json"
KINDS = ("pixel", "latent", "gan")
STAGE = "stage"
"""The run of the latent model's first stage."""
LEAST = 16
"""Pictures that a comparison needs."""
TIMED = 64
"""Pictures that the speed of drawing is measured on, after a few that warm up."""
Show = Callable[[str, Path], AbstractContextManager[Listener]]
Say = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Training:
    """One run to come. `config` is checked against the data."""

    name: str
    """Of its folder: one of KINDS, or STAGE."""
    config: TrainConfig


@dataclass(frozen=True, eq=False)
class Prepared:
    """A comparison of which everything is checked and nothing trained."""

    request: CompareRequest
    dataset: Dataset
    trainings: tuple[Training, ...]
    yardstick: Yardstick

    def seconds(self, name: str) -> float:
        """Of wall-clock that a training may take."""
        return 60 * share_of(self.request, name)


def share_of(request: CompareRequest, name: str) -> float:
    """Minutes of a training: the latent model and its first stage share theirs."""
    if name == STAGE:
        return request.minutes * request.stage_share
    return request.minutes * (1 - request.stage_share if name == "latent" else 1)


def prepare(request: CompareRequest, *, stage: Stage = lambda *_: None) -> Prepared:
    """Check the recipes against the data, and open the reference; ValueError says what cannot work."""
    _check_numbers(request)
    base = recipe(request.pixel, [("data.source", request.data), *_data_settings(request)])
    data = data_config(replace(base, model=replace(base.model, image_size=None, channels=None)))
    data = replace(data, source=request.data, size=request.size, channels=request.channels)
    dataset = open_data(replace(data, cache=request.evaluate.cache), seed=request.seed)
    if len(dataset) < LEAST:
        raise ValueError(
            f"{request.data} has {len(dataset)} pictures; a comparison needs {LEAST} at least, and means "
            "little below a thousand"
        )
    names = [n for kind in request.models for n in ((STAGE, kind) if kind == "latent" else (kind,))]
    trainings = []
    for name in names:
        try:
            trainings.append(Training(name, _of_kind(name, _config(request, name, dataset))))
            check(trainings[-1].config, processes=1)
            if name != "latent":  # its first stage is not there yet
                data_config(replace(trainings[-1].config, data=replace(data, size=dataset.size)))
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    evaluate = replace(
        request.evaluate, against=request.evaluate.against or request.data, channels=request.channels
    )
    yardstick = open_yardstick(evaluate, (dataset.channels, dataset.size, dataset.size), stage)
    return Prepared(request, dataset, tuple(trainings), yardstick)


def _check_numbers(request: CompareRequest) -> None:
    if not request.data:
        raise ValueError("no data named; give a folder (or fashion-mnist-10k to try it out)")
    if not request.minutes > 0:
        raise ValueError(f"budget of {request.minutes:g} minutes is none; use more than 0, such as 30m")
    if not 0 < request.stage_share < 1:
        raise ValueError(f"stage_share={request.stage_share:g} is not possible; use a share between 0 and 1")
    unknown = [name for name in request.models if name not in KINDS]
    if unknown or not request.models or len(set(request.models)) < len(request.models):
        raise ValueError(f"models={', '.join(request.models)}: name some of {', '.join(KINDS)}, each once")
    n = request.evaluate.n
    if n is None or n < LEAST:
        raise ValueError(f"n={n} pictures are not enough to measure; use {LEAST} or more")


def _data_settings(request: CompareRequest) -> list[Assignment]:
    return [
        ("data.size", request.size),
        ("data.channels", request.channels),
        ("data.flip", request.flip),
        ("data.crop", "center"),
        ("data.cache", request.evaluate.cache),
        ("seed", request.seed),
        ("device", request.evaluate.device),
        ("minutes", None),
    ]


def _config(request: CompareRequest, name: str, dataset: Dataset) -> TrainConfig:
    """The settings of a training, its own sizes and learning data replaced by the comparison's."""
    fixed: list[Assignment] = [("data.source", request.data), *_data_settings(request)]
    fixed += [("data.size", dataset.size), ("data.channels", dataset.channels), ("data.labels", "auto")]
    fixed += [("minutes", share_of(request, name))]
    if name != "gan":  # its grids come with the readings that show a collapse
        fixed += [("sample_every", 0)]
    if name == STAGE:
        return _levels(_of_kind(STAGE, recipe(request.stage, fixed)), _factor(dataset.size))
    if name == "gan":
        own = request.gan or ("gan-28" if dataset.size <= 32 else "gan-64")
        sizes: list[Assignment] = [
            (f"gan.{part}.image_size", None) for part in ("generator", "discriminator")
        ]
        measured: list[Assignment] = [("evaluate.features", request.evaluate.features)]
        measured += [("evaluate.weights", request.evaluate.weights)]
        return recipe(own, [*fixed, *sizes, *measured])
    fixed += [("model.image_size", None), ("model.channels", None)]
    if name == "latent":
        return recipe(request.latent, [*fixed, ("first_stage", STAGE)])
    return recipe(request.pixel, fixed)


def _of_kind(name: str, config: TrainConfig) -> TrainConfig:
    """The settings; ValueError where the recipe trains something else."""
    wanted = {STAGE: "autoencoder", "gan": "gan"}.get(name, "diffusion")
    if config.kind != wanted:
        raise ValueError(f"its recipe is of kind {config.kind}; name one of kind {wanted}")
    return config


def _factor(side: int) -> int:
    """How many times smaller latents are: 4 where that leaves 8 positions a side, an even number; or 2."""
    for factor in (4, 2):
        if side % (2 * factor) == 0 and side // factor >= 8:
            return factor
    raise ValueError(
        f"pictures of {side} pixels have no latents that a model could halve; use a side that is a multiple "
        "of 4 from 16 on, or leave the latent model out"
    )


def _levels(config: TrainConfig, factor: int) -> TrainConfig:
    """The first stage's recipe with the levels that the factor needs: the first ones of its own."""
    stage = config.autoencoder
    assert stage is not None, "the recipe trains a first stage"
    levels = factor.bit_length()
    mult = stage.network.channel_mult
    if len(mult) < levels:
        raise ValueError(f"its {len(mult)} levels cannot shrink pictures by {factor}; name another recipe")
    network = replace(stage.network, channel_mult=mult[:levels])
    return replace(config, autoencoder=replace(stage, network=network))


def train_all(prepared: Prepared, out: Path, show: Show) -> Iterator[tuple[Training, TrainResult]]:
    """Train, or continue, one model after the other; ends with the first that was stopped or diverged.

    ValueError when a budget is shorter than one step.
    """
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file; name a folder for the comparison")
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
    request = prepared.request
    judge = _judge(prepared)
    real = _pool(prepared)
    contenders: list[Contender] = []
    heard = list(prepared.yardstick.warnings)
    for kind in request.models:
        file = _model_file(out / RUNS / kind)
        model, hashed = open_model(str(file), str(choose_device(request.evaluate.device)))
        spots = []
        for setting, asked in _requests(request, model):
            point = point_at(plan(model, asked), hashed, out / POINTS)
            evaluation = measure_point(point, prepared.yardstick, stage, floor=not (contenders or spots))
            fake = _features(point, prepared.yardstick)
            spots.append(
                Spot(
                    setting=setting,
                    evaluation=evaluation,
                    folder=point.folder,
                    repeats=repeats(real, fake, request.seed),
                    lost=judge.lost(fake, _asked(point, judge)),
                    score=judge.score(fake),
                )
            )
            heard += evaluation.warnings
            say(summary(f"{kind}{f', {setting}' if setting else ''}", evaluation))
        contenders.append(
            _contender(kind, model, spots, trained, _speed(point_of(model, request, hashed, out)))
        )
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


def _model_file(run: Path) -> Path:
    """The best average where one was kept, else the last."""
    best = run / BEST
    return best if best.exists() else run / "model.safetensors"


def point_of(model: Model | GanModel, request: CompareRequest, hashed: str, out: Path) -> Point:
    """The point of a model as it is, without guidance or truncation."""
    return point_at(plan(model, _requests(request, model)[0][1]), hashed, out / POINTS)


def _requests(request: CompareRequest, model: Model | GanModel) -> list[tuple[str, GenerateRequest]]:
    """(setting, how to draw), the model as it is first."""
    plain = replace(request.generate, n=request.evaluate.n or 2, seed=request.seed, device="auto")
    if isinstance(model, GanModel):
        plain = GenerateRequest(n=plain.n, seed=plain.seed, batch_size=plain.batch_size)
        return [("", plain)] + [
            (f"truncation={t:g}", replace(plain, truncation=t)) for t in request.truncation
        ]
    if model.null_label is None:
        return [("", plain)]
    return [("", plain)] + [(f"guidance={g:g}", replace(plain, guidance=g)) for g in request.guidance]


def _pool(prepared: Prepared) -> Tensor:
    table = prepared.yardstick.side.table
    if table is None:
        raise ValueError(
            f"{prepared.yardstick.request.against} holds statistics alone; name pictures to compare with"
        )
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
        f"training took other than the {minutes:g} minutes planned ({facts}): the rest went into grids, "
        "evaluations and checkpoints, or the machine's speed changed"
    ]
