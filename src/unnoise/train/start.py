"""`train`: start a run, or continue it, and see it through."""

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from unnoise import distributed
from unnoise.config.load import from_yaml, to_yaml
from unnoise.config.resolve import check_kind, data_config, resolve
from unnoise.config.schema import Precision, TrainConfig
from unnoise.data import Dataset, open_data
from unnoise.data.finding import folder_of
from unnoise.networks.precision import compute_dtype
from unnoise.networks.settings import NetworkSettings
from unnoise.told_data import ToldData, counted, open_told
from unnoise.train import checkpoint, estimate
from unnoise.train.autoencoder import AutoencoderJob
from unnoise.train.beginning import open_beginning, with_its_first_stage
from unnoise.train.check import check, check_outside
from unnoise.train.classifier import ClassifierJob
from unnoise.train.diffusion import DiffusionJob
from unnoise.train.evaluation import Evaluator, open_evaluator
from unnoise.train.events import (
    DataFound,
    Listener,
    Measured,
    Note,
    Reading,
    Started,
    TrainResult,
    ignore,
)
from unnoise.train.gan import GanJob
from unnoise.train.job import Job
from unnoise.train.latents import LatentSource, open_first_stage, open_latents
from unnoise.train.lock import LOCK, locked
from unnoise.train.loop import fit
from unnoise.train.noisy_classifier import NoisyClassifierJob
from unnoise.train.perceptual import choose
from unnoise.train.run import RunDirectory, checkpoints, continued, stored_config, write_config
from unnoise.train.signals import Interrupted, Interruption
from unnoise.train.state import TrainState, new_state

JOBS: dict[str, Callable[[TrainConfig, Dataset, torch.device], Job[Any]]] = {
    "classifier": ClassifierJob,
    "autoencoder": AutoencoderJob,
    "gan": GanJob,
}
"""Kind of training -> who does it; those that may see latents are given them (`_job`)."""


def train(
    config: TrainConfig,
    out: Path | str,
    *,
    dataset: Dataset | None = None,
    on_event: Listener = ignore,
) -> TrainResult:
    """Train a model in the run directory `out`; a run that is there already continues.

    `dataset` replaces the one that `config.data` names. Under torchrun every process calls this alike and the
    first one writes and reports. ValueError for settings that cannot work, contradict the data or differ from
    those the run was started with, and for a directory that another process writes; OSError when the disk is
    full, earlier checkpoints intact. SIGINT and SIGTERM save and return.
    """
    out = Path(out)
    with contextlib.ExitStack() as stack:
        device = stack.enter_context(distributed.processes(config.device))
        on_event = on_event if distributed.is_main() else ignore
        begun = distributed.on_main(lambda: _newest(out), device) is not None
        config = with_its_first_stage(config, continues=begun)
        check(config, processes=distributed.world())
        _check_apart(config, out)
        stack.enter_context(_repeatable(device))
        stored = _claim(stack, out, device)
        check_kind(config)
        check_outside(config)
        config, stage = open_first_stage(config, device)
        if stored:
            continued(out, stored, replace(stored, data=config.data))  # before other pictures are decoded
        dataset = dataset or open_data(
            data_config(config),
            seed=config.seed,
            on_progress=lambda done, total: on_event(Reading(done=done, total=total)),
        )
        report = dataset.report
        on_event(DataFound(lines=tuple(report.lines()), broken=len(report.broken)))
        source, told = None, open_told(config.model, config.data, dataset)
        config = resolve(
            config,
            size=dataset.size,
            channels=dataset.channels,
            classes=len(dataset.classes),
            told=counted(config.model, dataset, told),
        )
        if config.kind == "diffusion":
            _tell_unreached(config.model.network, on_event)
        beginning = None if begun else open_beginning(config, device)
        if stage is not None:
            config, source = open_latents(config, dataset, stage, on_event, device)
        # What is decoded and encoded once for all runs takes nothing of the minutes of this one.
        began = time.perf_counter()
        config = replace(config, device=device.type)
        if stored:
            config = continued(out, stored, config)
        config = replace(config, precision=_precision(config.precision, device))
        config = _perceptual(config, device, on_event)
        job = _job(config, dataset, device, source, told)
        if beginning is not None:
            on_event(Note(text=beginning.give(job)))
        interruption = stack.enter_context(Interruption())
        try:
            config, evaluator = _evaluator(job, config, device, on_event, interruption)
            if stored:
                network = _ready(job.network, config)
            else:
                config, network = _settle(job, config, began, device, on_event, interruption, evaluator)
        except Interrupted:
            return _unbegun(interruption, "going on" if stored else "the first step")
        if evaluator:
            evaluator = evaluator.in_batches(config.micro_batch or config.batch_size)
        run, state = _resume(stack, job, config, out, device)
        on_event(
            Started(
                run=out,
                config=config,
                step=state.step,
                parameters=sum(p.numel() for p in job.network.parameters()),
                processes=distributed.world(),
                device=str(device),
            )
        )
        return fit(state, network, config, run, on_event, interruption, evaluator)


def _job(
    config: TrainConfig, dataset: Dataset, device: torch.device, source: LatentSource | None, told: ToldData
) -> Job[Any]:
    if config.kind == "diffusion":
        return DiffusionJob(config, dataset, device, source, told)
    if config.kind == "noisy_classifier":
        return NoisyClassifierJob(config, dataset, device, source)
    return JOBS[config.kind](config, dataset, device)


def _tell_unreached(network: NetworkSettings, on_event: Listener) -> None:
    """Say which attention the network has not: whoever thinks of ADM's flags gives pixels."""
    unreached = [str(factor) for factor in network.attention if factor not in network.levels]
    if unreached:
        levels = ", ".join(map(str, network.levels))
        on_event(
            Note(
                text=f"model.network.attention: no attention at {', '.join(unreached)}, which are "
                f"down-sampling factors; this network's are {levels}"
            )
        )


def _perceptual(config: TrainConfig, device: torch.device, on_event: Listener) -> TrainConfig:
    """The settings of a first stage with the network that compares pictures, which is said."""
    if config.autoencoder is None:
        return config
    asked = config.autoencoder.perceptual
    name = distributed.on_main(lambda: choose(asked), device)
    on_event(Note(text=f"pictures are compared by their pixels and by: {name}"))
    return replace(config, autoencoder=replace(config.autoencoder, perceptual=name))


def _unbegun(interruption: Interruption, next_thing: str) -> TrainResult:
    message = f"stopped by {interruption.name} before {next_thing}"
    return TrainResult(
        steps=0,
        skipped=0,
        model_path=None,
        stopped=interruption.name,
        seconds=0.0,
        message=message,
    )


def _evaluator(
    job: Job[Any], config: TrainConfig, device: torch.device, on_event: Listener, interruption: Interruption
) -> tuple[TrainConfig, Evaluator | None]:
    """What measures the model meanwhile, in the first process, and the settings with its feature network."""
    if not config.evaluate.every:
        return config, None
    assert isinstance(job, DiffusionJob | GanJob), "settings are checked"
    opened: list[Evaluator] = []
    warnings: list[str] = []

    def open_it() -> str:
        on_event(Note(text="measuring the training pictures, which evaluations compare with"))
        try:
            evaluator = open_evaluator(config, job, device, on_step=interruption.check, warnings=warnings)
        except Interrupted:
            if distributed.world() == 1:
                raise
            return config.evaluate.features  # all processes stop together after the next step
        opened.append(evaluator)
        for text in (*warnings, f"every {config.evaluate.every:,} steps an evaluation: {evaluator}"):
            on_event(Note(text=text))
        return evaluator.network.name if config.evaluate.features == "auto" else config.evaluate.features

    features = distributed.on_main(open_it, device)
    evaluate = replace(config.evaluate, features=features)
    return replace(config, evaluate=evaluate), opened[0] if opened else None


def _resume(
    stack: contextlib.ExitStack, job: Job[Any], config: TrainConfig, out: Path, device: torch.device
) -> tuple[RunDirectory | None, TrainState]:
    """The state of the newest checkpoint, or of step 0, and in the first process the files of the run."""
    state = new_state(job, config)
    found = distributed.on_main(lambda: _newest(out), device)
    if found:
        state.restore(checkpoint.load(Path(found)))
    distributed.on_main(lambda: write_config(out, config), device)
    if not distributed.is_main():
        return None, state
    run = RunDirectory(out, config, step=state.step)
    stack.callback(run.close)
    return run, state


def _claim(stack: contextlib.ExitStack, out: Path, device: torch.device) -> TrainConfig | None:
    """Lock the run directory and read what it was started with; None for a new run."""

    def claim() -> str | None:
        if out.exists() and not out.is_dir():
            raise ValueError(f"{out} is a file; name a folder for the run")
        made = [folder for folder in (out, *out.parents) if not folder.exists()]
        out.mkdir(parents=True, exist_ok=True)
        stack.enter_context(locked(out))
        stack.callback(_withdraw, out, made)
        checkpoint.clean(checkpoints(out))
        stored = stored_config(out)
        return None if stored is None else to_yaml(stored)

    text = distributed.on_main(claim, device)
    return None if text is None else from_yaml(TrainConfig, text)


def _withdraw(out: Path, made: Sequence[Path]) -> None:
    """Leave no trace of a run that never began: neither its lock nor the folders made for it, inner first."""
    if not (out / "config.yaml").exists():
        with contextlib.suppress(OSError):  # something else lies there by now
            (out / LOCK).unlink()
            for folder in made:
                folder.rmdir()


def _check_apart(config: TrainConfig, out: Path) -> None:
    """Refuse a run inside a folder of pictures, whose grids would be data when it continues."""
    settings = (config.classifier, config.noisy_classifier, config.autoencoder)
    for source in (config.data.source, *(each.validation for each in settings if each is not None)):
        folder = folder_of(source)
        if folder is not None and out.resolve().is_relative_to(folder.resolve()):
            raise ValueError(
                f"--out {out} is inside the data {source}, so that the run's own pictures would become data; "
                "name a folder elsewhere"
            )


def _newest(out: Path) -> str | None:
    path = checkpoint.newest(checkpoints(out))
    return None if path is None else str(path)


def _settle(
    job: Job[Any],
    config: TrainConfig,
    began: float,
    device: torch.device,
    on_event: Listener,
    interruption: Interruption,
    evaluator: Evaluator | None,
) -> tuple[TrainConfig, nn.Module]:
    """Decide what was left open: micro-batch, compiling, the steps that fit into the minutes."""
    network = _ready(job.network, config)
    total = None if config.minutes is None else 60 * config.minutes
    # A signal can end this at once where no other process waits for our gradients.
    on_step = interruption.check if distributed.world() == 1 else lambda: None
    config, cost = estimate.fit_memory(
        job, network, config, budget=0.05 * total if total else 0.0, on_step=on_step
    )
    if config.compile == "auto":
        left = config.steps * cost.seconds if total is None else total
        config = replace(config, compile="on" if estimate.worth_compiling(left, device) else "off")
        if config.compile == "on":
            try:
                compiled = _ready(job.network, config)
                cost, network = estimate.measure(job, compiled, config, on_step=on_step), compiled
            except RuntimeError as error:  # the compiler's own complaints
                config = replace(config, compile="off")
                reason = str(error).strip().partition("\n")[0]
                on_event(Note(text=f"torch.compile does not work here, going on without it ({reason})"))
    if total is not None:
        spent = distributed.largest(time.perf_counter() - began, device)
        evaluation = evaluator.seconds(cost.seconds) if evaluator else 0.0
        steps = estimate.steps_within(
            total - spent,
            cost,
            config,
            passes=job.sampled,
            evaluation=distributed.largest(evaluation, device),
        )
        config = replace(config, steps=steps)
    on_event(
        Measured(
            step_seconds=cost.seconds,
            seconds=config.steps * cost.seconds,
            memory=cost.memory,
            micro_batch=config.micro_batch or config.batch_size,
            steps=config.steps,
        )
    )
    return config, network


def _ready(network: nn.Module, config: TrainConfig) -> nn.Module:
    """The network as the loop calls it: compiled where the settings say so, and averaging gradients."""
    if config.compile == "on":
        # Each size of micro-batch its own kernels: at most two sizes occur.
        network = torch.compile(network, dynamic=False)
    return distributed.wrap(network)


def _precision(name: Precision, device: torch.device) -> Precision:
    """The type that "auto" means on this device."""
    dtype = str(compute_dtype(name, device)).removeprefix("torch.")
    return cast(Precision, dtype)


@contextlib.contextmanager
def _repeatable(device: torch.device) -> Iterator[None]:
    """Kernels that give the same bits in every run, and the caller's random state back afterwards."""
    gpus = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=gpus):
        if device.type != "cuda":
            yield
            return
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        flags = torch.backends.cudnn
        before = flags.deterministic, flags.benchmark
        algorithms = torch.are_deterministic_algorithms_enabled()
        warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
        fill = torch.utils.deterministic.fill_uninitialized_memory
        torch.use_deterministic_algorithms(True)  # a warning would leave attention's gradients to chance
        torch.utils.deterministic.fill_uninitialized_memory = False
        flags.deterministic, flags.benchmark = True, False
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(algorithms, warn_only=warn_only)
            torch.utils.deterministic.fill_uninitialized_memory = fill
            flags.deterministic, flags.benchmark = before
