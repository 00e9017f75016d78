"""An ablation: variants of one recipe trained at equal compute and measured half way and at the end
(Dhariwal & Nichol 2021, section 3; arXiv 2105.05233).

Each variant is an ordinary run directory. Training continues where it stopped; what was measured is reused.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from unnoise.config.load import Assignment, differences, read_config
from unnoise.config.resolve import data_config, null_label, resolve
from unnoise.config.schema import DataConfig, TrainConfig
from unnoise.config.studies import AblationRequest
from unnoise.data import Dataset, open_data
from unnoise.distributed import choose_device
from unnoise.model import build_model
from unnoise.modelfile import ModelInfo
from unnoise.outputs import check_folder
from unnoise.planning import plan
from unnoise.presets import load_preset
from unnoise.studies.ablated import Ablation, Measured, Row
from unnoise.studies.models import open_model
from unnoise.studies.points import Stage, Yardstick, measure_point, open_yardstick, point_at
from unnoise.studies.swept import summary
from unnoise.train import train
from unnoise.train.check import check
from unnoise.train.checkpoint import peek
from unnoise.train.events import Event, Listener, Started, TrainResult
from unnoise.train.run import checkpoints, stored_config

BASELINE = "baseline"
RUNS, POINTS = "runs", "points"
COMMANDED = {
    "steps": "an option of the command (--steps)",
    "minutes": "an option of the command (--minutes)",
    "data.source": "an option of the command (--data)",
    "milestones": "half way",
    "kind": "that of the base",
}
"""Setting -> what says it instead of the grid."""
Show = Callable[[str, Path], AbstractContextManager[Listener]]
"""(variant, run directory) -> who listens to its training."""


@dataclass(frozen=True, eq=False)
class Variant:
    """One recipe of the grid, checked against its data."""

    name: str
    changes: dict[str, Any]
    """Setting -> value, where it differs from the baseline."""
    config: TrainConfig
    dataset: Dataset
    parameters: int


@dataclass(frozen=True, eq=False)
class Prepared:
    """An ablation of which everything is checked and nothing trained."""

    request: AblationRequest
    variants: tuple[Variant, ...]
    yardstick: Yardstick


def prepare(request: AblationRequest, *, stage: Stage = lambda *_: None) -> Prepared:
    """Check the grid, every variant against its data, and the reference; ValueError says what cannot work."""
    grid = request.grid
    if not grid.base:
        raise ValueError("the grid names no base; write base: PRESET, or a YAML configuration")
    if not grid.variants:
        raise ValueError("the grid has no variants; write them as variants: {NAME: {a.b: c}}")
    if (request.minutes is None) == (request.steps is None):
        raise ValueError("say how much every variant is trained: --minutes or --steps, one of them")
    if request.steps is not None and request.steps < 2:
        raise ValueError(f"steps={request.steps} has no half; use 2 or more")
    if not request.data:
        raise ValueError("no data named; add --data FOLDER (or --data fashion-mnist-10k to try it out)")
    opened: dict[tuple[DataConfig, int], Dataset] = {}
    if grid.variants.get(BASELINE):
        raise ValueError(f"the variant {BASELINE} changes settings; put them into `set`, for all variants")
    _refuse_commanded(grid.set, "set: ")
    variants = []
    for name, changes in ({BASELINE: {}} | grid.variants).items():
        if Path(name).name != name or name.startswith("."):
            raise ValueError(f"variant {name!r} cannot be the name of a folder; use letters and digits")
        try:
            variants.append(_variant(request, name, changes, opened))
            _refuse_size(variants[0], variants[-1])
        except ValueError as error:
            raise ValueError(f"variant {name}: {error}") from None
    _refuse_twins(variants)
    first = variants[0].dataset
    evaluate = replace(request.evaluate, against=request.evaluate.against or request.data)
    yardstick = open_yardstick(evaluate, (first.channels, first.size, first.size), stage)
    return Prepared(request, tuple(variants), yardstick)


def _variant(
    request: AblationRequest,
    name: str,
    changes: dict[str, Any],
    opened: dict[tuple[DataConfig, int], Dataset],
) -> Variant:
    """The settings of a variant, complete enough to know that they can be trained and drawn from."""
    _refuse_commanded(changes, "")
    first: list[Assignment] = [("sample_every", 0)]
    last: list[Assignment] = [("data.source", request.data), ("minutes", request.minutes)]
    last += [] if request.steps is None else [("steps", request.steps)]
    config = recipe(request.grid.base, [*first, *request.grid.set.items(), *changes.items(), *last])
    if config.kind != "diffusion":
        raise ValueError(f"kind={config.kind} is no diffusion model; ablate a recipe of one")
    check(config, processes=1)
    data = data_config(config)
    if (data, config.seed) not in opened:
        opened[data, config.seed] = open_data(data, seed=config.seed)
    dataset = opened[data, config.seed]
    complete = resolve(config, size=dataset.size, channels=dataset.channels, classes=len(dataset.classes))
    info = ModelInfo(classes=tuple(dataset.classes), null_label=null_label(complete))
    with torch.device("meta"):
        model = build_model(complete.model, info)
    plan(model, replace(request.grid.generate, precision="float32"))
    return Variant(name, changes, config, dataset, sum(p.numel() for p in model.network.parameters()))


def _refuse_commanded(settings: Mapping[str, Any], where: str, prefix: str = "") -> None:
    """Refuse settings that the command gives: all variants learn from the same pictures, as long."""
    for key, value in settings.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            _refuse_commanded(value, where, f"{name}.")
        if name in COMMANDED:
            raise ValueError(
                f"{where}{name} is the same for all variants, as compute is equal, and {COMMANDED[name]}; "
                "leave it out"
            )


def recipe(base: str, assignments: Sequence[Assignment]) -> TrainConfig:
    """The settings of a preset or of a YAML file, with these changed."""
    if not base.endswith((".yaml", ".yml")):
        return load_preset(base, assignments).config
    if not Path(base).is_file():
        raise ValueError(f"{base} does not exist; name a YAML file or a preset (see `unnoise presets`)")
    return read_config(TrainConfig, Path(base), assignments)


def _refuse_size(baseline: Variant, variant: Variant) -> None:
    """Pictures of another size are other data: their distances are no difference of the model's."""
    sizes = [(d.size, d.channels) for d in (baseline.dataset, variant.dataset)]
    if sizes[0] != sizes[1]:
        said = [f"{size}x{size} with {channels} channels" for size, channels in sizes]
        raise ValueError(f"it draws {said[1]}, the baseline {said[0]}; ablate one size at a time")


def _refuse_twins(variants: Sequence[Variant]) -> None:
    for k, variant in enumerate(variants):
        for other in variants[:k]:
            if not differences(other.config, variant.config):
                raise ValueError(
                    f"variants {other.name} and {variant.name} have the same settings; change one of them"
                )


def train_variants(prepared: Prepared, out: Path, show: Show) -> Iterator[tuple[Variant, TrainResult]]:
    """Train, or continue, one variant after the other; ends with the first that a signal stopped."""
    check_folder(out, "ablation")
    for variant in prepared.variants:
        run = out / RUNS / variant.name
        with show(variant.name, run) as listener:
            result = _train(variant, run, listener)
        yield variant, result
        if result.stopped in ("SIGINT", "SIGTERM"):
            return


class _Settled(Exception):
    """The steps that fit into the minutes are known, and written down in the run directory."""

    def __init__(self, steps: int) -> None:
        super().__init__(steps)
        self.steps = steps


def _train(variant: Variant, run: Path, listener: Listener) -> TrainResult:
    """Train with a checkpoint half way, which is known when the steps are."""
    stored, steps = stored_config(run), variant.config.steps
    if stored is not None:
        steps = stored.steps
    elif variant.config.minutes is not None:

        def stop(event: Event) -> None:
            listener(event)
            if isinstance(event, Started):
                raise _Settled(event.config.steps)

        try:
            return train(variant.config, run, dataset=variant.dataset, on_event=stop)
        except _Settled as settled:
            steps = settled.steps
    config = replace(variant.config, milestones=(half(steps),))
    return train(config, run, dataset=variant.dataset, on_event=listener)


def half(steps: int) -> int:
    """The step at which a variant is measured first."""
    return max(1, steps // 2)


def measure_variants(
    prepared: Prepared,
    trained: Sequence[tuple[Variant, TrainResult]],
    out: Path,
    *,
    stage: Stage = lambda *_: None,
    say: Callable[[str], None] = lambda _: None,
) -> Ablation:
    """Draw from every variant at both points of its training and measure; what was measured is reused."""
    request, rows = prepared.request, []
    device = str(choose_device(request.grid.generate.device))
    n = request.evaluate.n or 2
    generate = replace(request.grid.generate, n=n, device="auto")
    heard: list[str] = list(prepared.yardstick.warnings)
    for variant, result in trained:
        run, points = out / RUNS / variant.name, []
        for path, step, seconds in _models(run, result):
            model, hashed = open_model(str(path), device)
            point = point_at(plan(model, generate), hashed, out / POINTS)
            evaluation = measure_point(point, prepared.yardstick, stage, floor=variant is trained[0][0])
            points.append(Measured(step=step, seconds=seconds, evaluation=evaluation, folder=point.folder))
            heard += evaluation.warnings
            say(summary(f"{variant.name}, step {step:,}", evaluation))
        rows.append(
            Row(
                name=variant.name,
                changes=tuple(f"{key}={value}" for key, value in variant.changes.items()),
                parameters=variant.parameters,
                steps=result.steps,
                seconds=result.seconds,
                points=tuple(points),
                failed=result.message if result.stopped else "",
            )
        )
    found = Ablation(
        base=request.grid.base,
        data=request.data,
        against=prepared.yardstick.request.against,
        n=n,
        minutes=request.minutes,
        rows=tuple(rows),
        warnings=(*dict.fromkeys(heard), *_uneven(rows, request.minutes)),
    )
    found.save(out)
    return found


def _models(run: Path, result: TrainResult) -> list[tuple[Path, int, float]]:
    """(model, step, seconds of training) half way and at the end; nothing of a run that diverged."""
    if result.stopped:
        return []
    middle = checkpoints(run) / f"step-{half(result.steps):08d}"
    if not middle.is_dir():
        raise ValueError(
            f"{run} has no checkpoint of step {half(result.steps)}, half way: it was not trained by `unnoise "
            "ablate`; name another --out"
        )
    numbers = peek(middle).numbers
    return [
        (middle, half(result.steps), float(numbers["seconds"])),
        (run / "model.safetensors", result.steps, result.seconds),
    ]


def _uneven(rows: Sequence[Row], minutes: float | None) -> list[str]:
    """Whether compute came out as equal as it was meant to be."""
    if minutes is None:
        return []
    times = {row.name: row.seconds / 60 for row in rows if not row.failed}
    off = {name: t for name, t in times.items() if abs(t - minutes) > 0.15 * minutes}
    if not off:
        return []
    facts = ", ".join(f"{name} {t:.1f}" for name, t in off.items())
    return [
        f"training took other than the {minutes:g} minutes planned ({facts}): the machine's speed changed"
    ]
