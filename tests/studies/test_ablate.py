"""`unnoise ablate` as a user runs it: equal compute, both points, differences, continuing, refusals."""

import json

import pytest

from tests.metrics.double import double  # noqa: F401
from tests.studies.conftest import FAST
from tests.test_html import Strict
from unnoise.config.requests import EvaluateRequest
from unnoise.config.schema import TrainConfig
from unnoise.config.studies import AblationGrid, AblationRequest
from unnoise.metrics.result import Evaluation, Metric
from unnoise.studies.ablate import prepare
from unnoise.studies.ablated import Ablation, Measured, Row
from unnoise.train import checkpoint

BASE = """
model:
  network: {width: 16, depth: 1, channel_mult: [1], attention: [], heads: 1}
  schedule: {steps: 100}
  variance: fixed_small
objective: {name: simple}
optimizer: {lr: 0.001}
ema: {rates: [0.9]}
batch_size: 4
precision: float32
compile: "off"
log_every: 2
"""
GRID = """
base: base.yaml
set: {seed: 3}
variants:
  attention: {model.network.attention: [1], model.network.heads: 2}
generate: {steps: 3}
"""
ABLATE = ["ablate", "grid.yaml", "--data", "real.npz", "--out", "a", "-n", 12, "--bootstrap", 5, *FAST]


@pytest.fixture
def grid(place):
    (place / "base.yaml").write_text(BASE)
    (place / "grid.yaml").write_text(GRID)
    return place


def test_equal_steps_both_points_and_differences(unnoise, grid):
    code, said, complaints = unnoise(*ABLATE, "--steps", 6)
    assert code == 0, complaints
    assert "FD half" in said and "FD end" in said and "another seed moves numbers" in said
    found = json.loads((grid / "a" / "ablation.json").read_text())
    assert [row["name"] for row in found["rows"]] == ["baseline", "attention"]
    for row in found["rows"]:
        assert [(p["when"], p["step"]) for p in row["points"]] == [("half", 3), ("end", 6)]
        assert 0 < row["points"][0]["seconds"] < row["points"][1]["seconds"]
        assert (grid / "a" / "runs" / row["name"] / "model.safetensors").exists()
    base, other = (found["rows"][k]["points"][1] for k in (0, 1))
    values = [{m["name"]: m["value"] for m in p["metrics"]} for p in (base, other)]
    for metric, difference in other["differences"].items():
        assert difference["change"] == pytest.approx(values[1][metric] - values[0][metric])
    assert found["rows"][1]["parameters"] > found["rows"][0]["parameters"]
    text = (grid / "a" / "ablation.html").read_text()
    parser = Strict()
    parser.feed(text)
    assert parser.open == [] and text.count("data:image/png") == 2
    figure = (grid / "a" / "figures" / "fd-minutes.svg").read_text()
    assert figure.count("<circle") == 4 and all(f">{row['name']}<" in figure for row in found["rows"])


def test_minutes_settle_the_steps_and_the_half(unnoise, grid, monkeypatch):
    monkeypatch.setattr("unnoise.train.estimate.steps_within", lambda *args, **options: 4)
    code, _, complaints = unnoise(*ABLATE, "--minutes", 0.02)
    assert code == 0, complaints
    found = json.loads((grid / "a" / "ablation.json").read_text())
    assert [[p["step"] for p in row["points"]] for row in found["rows"]] == [[2, 4]] * 2
    assert found["minutes"] == 0.02


def test_a_stopped_ablation_continues_and_measures_nothing_twice(unnoise, grid, monkeypatch, double):  # noqa: F811
    save, seen = checkpoint.save, []

    def stop_in_the_second_variant(folder, snapshot):
        path = save(folder, snapshot)
        seen.append((folder.parent.name, snapshot.step))
        if len(seen) == 3:
            import os
            import signal

            os.kill(os.getpid(), signal.SIGTERM)
        return path

    monkeypatch.setattr(checkpoint, "save", stop_in_the_second_variant)
    assert unnoise(*ABLATE, "--steps", 6)[0] == 143
    assert not (grid / "a" / "ablation.json").exists()
    assert unnoise(*ABLATE, "--steps", 6)[0] == 0
    assert seen[2] == ("attention", 3) and seen.count(("baseline", 3)) == 1 and seen[-1] == ("attention", 6)
    first, calls = (grid / "a" / "ablation.json").read_text(), double.calls
    assert unnoise(*ABLATE, "--steps", 6)[0] == 0
    assert (grid / "a" / "ablation.json").read_text() == first and double.calls == calls


def evaluation(value, half_width):
    metric = Metric(name="FD[x]", value=value, interval=(value - half_width, value + half_width))
    return Evaluation(samples="s", against="r", metrics=(metric,), protocol={})


def row(name, *values):
    points = tuple(
        Measured(step=k, seconds=k, evaluation=evaluation(*v), folder=None) for k, v in enumerate(values)
    )
    return Row(name=name, changes=(), parameters=10**6, steps=1, seconds=60, points=points)


def test_a_difference_is_marked_when_it_exceeds_the_interval_of_both():
    rows = (
        row("baseline", (10, 3), (8, 3)),
        row("b", (14, 3), (8, 3)),
        row("c", (5.5, 3), (12.5, 3)),
        row("d"),
    )
    found = Ablation(base="", data="", against="", n=2, minutes=None, rows=rows, warnings=())
    cells = [line[-2:] for line in found.table(["FD[x]"])]
    assert cells[0] == ["FD half", "FD end"]
    assert cells[1] == ["10 ± 3", "8 ± 3"]
    assert cells[2] == ["+4 ± 4.2", "+0 ± 4.2"]
    assert cells[3] == ["-4.5 ± 4.2*", "+4.5 ± 4.2*"]
    assert cells[4] == ["failed", "failed"]


def variants(text):
    return GRID.split("variants:")[0] + "variants:\n" + text


@pytest.mark.parametrize(
    ("text", "args", "reason"),
    [
        (GRID, [], "--minutes or --steps"),
        (GRID, ["--steps", 4, "--minutes", 1], "--minutes or --steps"),
        (GRID, ["--steps", 1], "steps=1 has no half"),
        (variants("  a: {seed: 4}\n  a: {seed: 5}"), ["--steps", 4], "a is there twice"),
        (variants("  a: {seed: 4}\n  b: {seed: 4}"), ["--steps", 4], "a and b have the same settings"),
        (variants("  a: {seed: 3}"), ["--steps", 4], "variants baseline and a have the same settings"),
        (variants("  a: {model.network.widht: 4}"), ["--steps", 4], 'variant a: unknown setting'),
        (variants("  a: {model.network.width: x}"), ["--steps", 4], "variant a: "),
        (variants("  a: {model.image_size: 9}"), ["--steps", 4], "variant a: it draws 9x9"),
        (variants("  a: {steps: 9}"), ["--steps", 4], "variant a: steps is the same for all variants"),
        (variants("  a: {data.source: fake.npz}"), ["--steps", 4], "variant a: data.source is the same"),
        (variants("  a: {data: {source: fake.npz}}"), ["--steps", 4], "variant a: data.source is the same"),
        (GRID.replace("{seed: 3}", "{steps: 9}"), ["--steps", 4], "set: steps is the same for all variants"),
        (GRID.replace("{seed: 3}", "{minutes: 9}"), ["--steps", 4], "set: minutes is the same"),
        (GRID.replace("{seed: 3}", "{data.source: x}"), ["--steps", 4], "(--data); leave it out"),
        (GRID.replace("heads: 2", "depth: 1000000000000"), ["--steps", 4], "no network is so large"),
        (GRID, ["--steps", 4, "--out", "real.npz"], "real.npz is a file"),
        (variants("  a: {optimizer.lr: -1}"), ["--steps", 4], "variant a: optimizer.lr=-1"),
        (variants("  a/b: {seed: 4}"), ["--steps", 4], "cannot be the name of a folder"),
        ("base: base.yaml\n", ["--steps", 4], "has no variants"),
        ("base: fashion-82\nvariants: {a: {seed: 1}}\n", ["--steps", 4], 'did you mean "fashion-28"'),
        (GRID.replace("steps: 3", "steps: 300"), ["--steps", 4], "steps=300 exceeds the 100"),
        (GRID.replace("steps: 3", "guidence: 3"), ["--steps", 4], "guidence"),
        (GRID, ["--steps", 4, "--against", "nowhere"], "nowhere"),
        (GRID, ["--steps", 4, "--against", "rgb.npz"], "channels"),
        (GRID, ["--steps", 4, "--data", "nowhere"], "nowhere"),
    ],
)  # fmt: skip
def test_refused_in_one_line_before_anything_is_trained(unnoise, grid, text, args, reason):
    (grid / "grid.yaml").write_text(text)
    code, said, complaints = unnoise(*ABLATE, *args)
    assert code == 2 and said == "" and complaints.count("\n") == 1, complaints
    assert reason in complaints
    assert not (grid / "a").exists()


def test_the_command_wins_over_the_base(grid):
    """Which may be a recipe that has trained alone."""
    (grid / "base.yaml").write_text(f"{BASE}\nminutes: 5\ndata: {{source: fake.npz, labels: none}}\n")
    wanted = AblationGrid(base="base.yaml", set={"data": {"flip": True}}, variants={"a": {"seed": 1}})
    measured = EvaluateRequest(features="double", n=2)
    found = prepare(AblationRequest(grid=wanted, data="real.npz", steps=6, evaluate=measured))
    for variant in found.variants:
        assert (variant.config.steps, variant.config.minutes) == (6, None)
        assert variant.config.data.source == "real.npz" and variant.config.data.flip


@pytest.mark.parametrize("name", ["ablation-fashion", "ablation-factors"])
def test_the_grids_in_the_docs_are_some(name):
    from pathlib import Path

    from unnoise.config.load import read_config
    from unnoise.presets import load_preset

    found = read_config(AblationGrid, Path(__file__).parents[2] / "docs" / f"{name}.yaml")
    for changes in found.variants.values():
        assert isinstance(load_preset(found.base, [*found.set.items(), *changes.items()]).config, TrainConfig)
