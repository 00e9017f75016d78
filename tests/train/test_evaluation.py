"""Evaluation while a model trains: right numbers, nothing disturbed, the best kept whatever happens."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from tests.metrics.double import Double, double  # noqa: F401
from tests.train.test_run import Stop, learned, lines, stop_at
from tests.train.tiny import assert_same_run, changed, tiny_config, tiny_data, tiny_run, whole_state
from unnoise.config.load import read_config
from unnoise.config.schema import TrainConfig
from unnoise.generate import sample
from unnoise.metrics.frechet import frechet_distance
from unnoise.metrics.kernel import kernel_distance
from unnoise.metrics.precision_recall import precision_recall
from unnoise.metrics.statistics import Moments
from unnoise.model import load_model
from unnoise.train import checkpoint
from unnoise.train.estimate import Cost, steps_within
from unnoise.train.evaluation import Evaluator, training_pictures
from unnoise.train.events import Evaluated, Note, StepDone
from unnoise.train.loop import evaluation_due
from unnoise.train.report import report_run

NAMES = ["FD[double]", "KID[double]", "precision[double]", "recall[double]"]


@pytest.fixture(autouse=True)
def place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, double: Double) -> None:  # noqa: F811
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def evaluated(**changes: Any) -> TrainConfig:
    evaluate = {"every": 4, "n": 12, "features": "double", "steps": "2", **changes.pop("evaluate", {})}
    return tiny_config(**{"save_every": 6, **changes, "evaluate": evaluate})


def evaluations(run: Path) -> dict[int, dict[str, float]]:
    found = {}
    for line in lines(run):
        values = {k.removeprefix("evaluation/"): v for k, v in line.items() if k.startswith("evaluation/")}
        if values:
            assert line["step"] not in found and line.keys() == {"step", *(f"evaluation/{n}" for n in values)}
            found[line["step"]] = values
    return found


def scripted(monkeypatch: pytest.MonkeyPatch, values: list[float]) -> None:
    """Evaluations that find these distances, one after the other, whatever was drawn."""
    compare, left = Evaluator._compare, list(values)

    def scripted_compare(self: Evaluator, *features: Any) -> dict[str, float]:
        value = left.pop(0)
        return dict.fromkeys(compare(self, *features), value)

    monkeypatch.setattr(Evaluator, "_compare", scripted_compare)


def test_the_numbers_are_those_of_the_average_against_all_training_pictures(
    tmp_path: Path,
    double: Double,  # noqa: F811
) -> None:
    config = evaluated()
    _, events = tiny_run(tmp_path / "run", config)
    assert [(e.step, sorted(e.measured)) for e in events if isinstance(e, Evaluated)] == [
        (step, NAMES) for step in (4, 8, 12)
    ]
    model = load_model(tmp_path / "run")
    drawn = sample(model, n=12, steps="2", seed=config.seed, batch_size=3, precision="float32", device="cpu")
    fake = double(torch.as_tensor(drawn.pixels)).pool
    real = double(tiny_data().take(np.arange(24)).pixels).pool
    found = evaluations(tmp_path / "run")[12]
    gaussians = [Moments.of(features).gaussian() for features in (real, fake)]
    assert found["FD[double]"] == pytest.approx(frechet_distance(real=gaussians[0], fake=gaussians[1]))
    wanted = kernel_distance(real=real, fake=fake, subset_size=12).mean
    assert found["KID[double]"] == pytest.approx(wanted)
    inside = precision_recall(real=real, fake=fake, k=3)
    assert 0 <= found["precision[double]"] <= 1 and inside.precision >= found["precision[double]"]


def test_the_curves_are_in_tensorboard_and_the_report(tmp_path: Path) -> None:
    result, _ = tiny_run(tmp_path, evaluated(sample_every=12))
    (path,) = (tmp_path / "tensorboard").iterdir()
    events = [(e.step, v.tag) for e in EventFileLoader(str(path)).Load() for v in e.summary.value]
    for name in NAMES:
        assert [step for step, tag in events if tag == f"evaluation/{name}"] == [4, 8, 12]
    report = report_run(tmp_path, result)
    assert report is not None
    text = report.read_text()
    assert "Measured while it learned" in text and all(name in text for name in NAMES)


def test_training_is_the_same_to_the_bit(tmp_path: Path) -> None:
    tiny_run(tmp_path / "with", evaluated(evaluate={"keep_best": True}))
    tiny_run(tmp_path / "without", tiny_config(save_every=6))
    with_it, without = whole_state(tmp_path / "with"), whole_state(tmp_path / "without")
    assert all(torch.equal(with_it[key], value) for key, value in without.items())
    assert evaluations(tmp_path / "without") == {}


def test_features_of_the_training_pictures_are_computed_once(tmp_path: Path, double: Double) -> None:  # noqa: F811
    tiny_run(tmp_path / "one", evaluated())
    assert double.calls == 24 + 3 * 12
    tiny_run(tmp_path / "two", evaluated(seed=1))
    assert double.calls == 24 + 6 * 12


def test_a_part_of_many_training_pictures_is_chosen_by_the_seed() -> None:
    def ignore() -> None:
        pass

    data = tiny_data()
    some, others = (training_pictures(data, 10, seed, ignore) for seed in (0, 1))
    assert some.n == 10 and some.content != others.content
    assert not torch.equal(some.take(range(10)), others.take(range(10)))
    rows = {row.numpy().tobytes() for row in data.take(np.arange(24)).pixels}
    chosen = [row.numpy().tobytes() for row in some.take(range(10))]
    assert len(set(chosen)) == 10 and set(chosen) <= rows
    assert torch.equal(training_pictures(data, 99, 0, ignore).take([3]), data.take(np.array([3])).pixels)


@pytest.mark.parametrize(
    ("metric", "values", "best"), [("KID", [0.5, 0.2, 0.3], 8), ("recall", [0.5, 0.2, 0.3], 4)]
)
def test_the_best_is_kept_as_a_model_and_as_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, metric: str, values: list[float], best: int
) -> None:
    scripted(monkeypatch, values)
    config = evaluated(evaluate={"keep_best": True, "metric": metric}, keep_last=1, save_every=3)
    result, events = tiny_run(tmp_path, config)
    assert [e.best for e in events if isinstance(e, Evaluated)] == [True, best == 8, False]
    assert result.best and (result.best.step, result.best.value) == (best, values[best // 4 - 1])
    model = load_model(tmp_path / "best.safetensors")
    assert model.info.step == best and model.info.ema_rate == 0.9
    assert model.info.scores == {f"{metric}[double]": result.best.value}
    left = checkpoint.listed(tmp_path / "checkpoints")
    assert [p.name for p in left] == [f"step-{step:08d}" for step in (best, 12)]
    average = load_file(left[0] / "ema-0.9.safetensors")
    assert all(torch.equal(average[n], p) for n, p in model.network.named_parameters())


@pytest.mark.parametrize("step", [7, 9])
def test_a_run_that_is_cut_off_knows_what_was_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    values = {2: 0.9, 4: 0.2, 6: 0.5, 8: 0.4, 10: 0.3, 12: 0.3}
    best = Evaluator.best

    def scripted_best(self: Evaluator, step: int, measured: dict[str, float], before: Any) -> Any:
        return best(self, step, dict.fromkeys(measured, values[step]), before)

    monkeypatch.setattr(Evaluator, "best", scripted_best)
    config = evaluated(evaluate={"keep_best": True, "every": 2, "metric": "FD"}, keep_last=1, save_every=4)
    tiny_run(tmp_path / "whole", config)
    with pytest.raises(Stop):
        tiny_run(tmp_path / "cut", config, on_event=stop_at(step))
    tiny_run(tmp_path / "cut", config)
    assert_same_run(tmp_path / "cut", tmp_path / "whole")
    assert learned(tmp_path / "cut") == learned(tmp_path / "whole")
    assert sorted(evaluations(tmp_path / "whole")) == [2, 4, 6, 8, 10, 12]
    for run in ("cut", "whole"):
        left = {p.name for p in (tmp_path / run / "checkpoints").iterdir()}
        assert left == {"step-00000004", "step-00000012"}


def test_values_that_were_made_otherwise_are_not_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted(monkeypatch, [0.1, 0.9])
    config = evaluated(optimizer={"decay": "none"}, evaluate={"keep_best": True}, steps=4)
    tiny_run(tmp_path, config)
    result, _ = tiny_run(tmp_path, changed(config, steps=8, evaluate={"n": 16}))
    assert result.best and (result.best.step, result.best.value) == (8, 0.9)


def test_a_signal_stops_an_evaluation_at_once_and_the_run_makes_up_for_it(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    double: Double,  # noqa: F811
) -> None:
    call = Double.__call__
    config = evaluated()
    tiny_run(tmp_path / "whole", config)

    def interrupted(self: Double, pixels: torch.Tensor) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return call(self, pixels)

    monkeypatch.setattr(Double, "__call__", interrupted)
    result, events = tiny_run(tmp_path / "cut", config)
    assert result.stopped == "SIGTERM" and result.steps == 4
    assert not any(isinstance(e, Evaluated) for e in events) and evaluations(tmp_path / "cut") == {}
    monkeypatch.setattr(Double, "__call__", call)
    _, events = tiny_run(tmp_path / "cut", config)
    assert [e.step for e in events if isinstance(e, Evaluated)] == [4, 8, 12]
    assert_same_run(tmp_path / "cut", tmp_path / "whole")
    assert evaluations(tmp_path / "cut") == evaluations(tmp_path / "whole")


def test_a_signal_while_the_training_pictures_are_measured_ends_before_the_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def listen(event: Any) -> None:
        if isinstance(event, Note) and "measuring" in event.text:
            os.kill(os.getpid(), signal.SIGINT)

    result, events = tiny_run(tmp_path, evaluated(), on_event=listen)
    assert result.stopped == "SIGINT" and result.steps == 0 and result.exit_status == 130
    assert not any(isinstance(e, StepDone) for e in events)


def test_a_signal_before_a_run_goes_on_says_so(tmp_path: Path) -> None:
    def listen(event: Any) -> None:
        if isinstance(event, Note) and "measuring" in event.text:
            os.kill(os.getpid(), signal.SIGTERM)

    config = evaluated(optimizer={"decay": "none"}, steps=4)
    tiny_run(tmp_path, config)
    longer = changed(config, steps=8)
    result, events = tiny_run(tmp_path, longer, on_event=listen)
    assert result.stopped == "SIGTERM" and "at step 4, saved" in result.message
    anew = changed(longer, data={"cache": str(tmp_path / "another")})  # all features to be computed again
    result, events = tiny_run(tmp_path, anew, on_event=listen)
    assert result.stopped == "SIGTERM" and result.message == "stopped by SIGTERM before going on"
    assert not any(isinstance(e, StepDone) for e in events)
    result, _ = tiny_run(tmp_path, longer)
    assert result.steps == 8 and sorted(evaluations(tmp_path)) == [4, 8]


def test_the_settled_micro_batch_draws_in_every_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []
    measure = Evaluator.measure

    def noted(self: Evaluator, *args: Any, **options: Any) -> Any:
        sizes.append(self.request.batch_size)
        return measure(self, *args, **options)

    monkeypatch.setattr(Evaluator, "measure", noted)
    config = evaluated(optimizer={"decay": "none"}, micro_batch=None, steps=4)
    tiny_run(tmp_path, config)
    tiny_run(tmp_path, changed(config, steps=8))
    assert sizes == [8, 8]


def test_a_finished_run_is_evaluated_when_asked_to_afterwards(tmp_path: Path) -> None:
    config = evaluated(steps=6)
    tiny_run(tmp_path, changed(config, evaluate={"every": 0}))
    _, events = tiny_run(tmp_path, changed(config, evaluate={"keep_best": True}))
    assert [e.step for e in events if isinstance(e, Evaluated)] == [6]
    assert load_model(tmp_path / "best.safetensors").info.step == 6
    _, events = tiny_run(tmp_path, changed(config, evaluate={"keep_best": True}))
    assert not any(isinstance(e, Evaluated) for e in events) and list(evaluations(tmp_path)) == [6]


def test_pictures_that_cannot_be_measured_do_not_stop_the_run(tmp_path: Path, double: Double) -> None:  # noqa: F811
    config = evaluated()
    tiny_run(tmp_path / "first", config)
    double.broken = True
    result, events = tiny_run(tmp_path / "second", config)
    assert result.stopped is None and evaluations(tmp_path / "second") == {}
    notes = [e.text for e in events if isinstance(e, Note) and e.text.startswith("no evaluation")]
    assert len(notes) == 3 and "NaN" in notes[0]
    assert_same_run(tmp_path / "first", tmp_path / "second")


def test_the_feature_network_is_in_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from unnoise.metrics import evaluate

    monkeypatch.setattr(evaluate.store, "find", _nowhere)
    _, events = tiny_run(tmp_path, evaluated(evaluate={"features": "auto", "n": 10}, steps=4))
    assert read_config(TrainConfig, tmp_path / "config.yaml").evaluate.features == "unnoise-small"
    assert "KID[unnoise-small]" in evaluations(tmp_path)[4]
    assert any("not Inception" in e.text for e in events if isinstance(e, Note))


def _nowhere(*_: Any, **__: Any) -> Any:
    raise ValueError("inception is not here")


def test_evaluations_follow_every_so_many_steps_and_the_last() -> None:
    config = evaluated(steps=10)
    assert [s for s in range(11) if evaluation_due(s, config)] == [4, 8, 10]
    assert not any(evaluation_due(s, tiny_config()) for s in range(13))


def test_minutes_leave_time_for_evaluations() -> None:
    config = evaluated(evaluate={"every": 10}, save_every=10**6)
    cost = Cost(seconds=0.1, memory=0)
    steps = steps_within(100.0, cost, config, passes=0, evaluation=4.0)
    plan = changed(config, steps=steps)
    spent = steps * 0.1 + 4 * sum(evaluation_due(s, plan) for s in range(steps + 1))
    assert 97 - 5 < spent <= 97
    assert steps_within(100.0, cost, config, passes=0) > 4 * steps


def test_an_evaluation_is_estimated_before_the_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def seconds(self: Evaluator, step_seconds: float) -> float:
        seen.append(original(self, step_seconds))
        return 0.4

    original = Evaluator.seconds
    monkeypatch.setattr(Evaluator, "seconds", seconds)
    result, _ = tiny_run(tmp_path, evaluated(minutes=0.03, evaluate={"every": 1}, save_every=1000))
    assert result.steps <= 4 and 0 < seen[0] < 5


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"evaluate": {"every": -1}}, "evaluate.every=-1 is not possible; use steps, or 0 for none"),
        ({"evaluate": {"n": 3}}, "evaluate.n=3 is not possible; use 10 or more"),
        ({"evaluate": {"reference": 1}}, "evaluate.reference=1 is not possible"),
        ({"evaluate": {"steps": "21"}}, "evaluate: .*20"),
        ({"evaluate": {"guidance": 2.0}, "label_dropout": 0.0}, "evaluate: guidance=2 cannot work"),
        ({"evaluate": {"features": "eyes"}}, "evaluate: features='eyes' is no feature network"),
        ({"evaluate": {"metric": "IS"}}, "evaluate.metric"),
        ({"model": {"low_res": 4}}, "measures models that draw alone, and this is an upsampler"),
    ],
)
def test_impossible_evaluations_are_refused(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        tiny_run(tmp_path, evaluated(**change))
    assert not (tmp_path / "config.yaml").exists()


def test_few_pictures_are_refused(tmp_path: Path) -> None:
    from dataclasses import replace

    data = tiny_data()
    few = replace(data, store=type(data.store)(data.store.pixels[:9]), labels=data.labels[:9])
    with pytest.raises(ValueError, match="evaluate.every=4 has 9 training pictures to measure against"):
        tiny_run(tmp_path, evaluated(), dataset=few)


def test_a_classifier_is_not_evaluated_so(tmp_path: Path) -> None:
    from unnoise.presets import load_preset

    config = load_preset("classifier-28", ["evaluate.every=5", "data.source=x"]).config
    with pytest.raises(ValueError, match="a classifier has no such setting .evaluate.every"):
        from unnoise.train import train

        train(config, tmp_path / "run")


def test_the_log_names_every_number_by_its_network(tmp_path: Path) -> None:
    tiny_run(tmp_path, evaluated(steps=4))
    assert json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1]).keys() == {
        "step", *(f"evaluation/{name}" for name in NAMES)
    }  # fmt: skip
