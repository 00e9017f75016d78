"""Training a plain classifier: what it sees, what it leaves, what it refuses."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.cli.test_app import refused
from tests.train.tiny import assert_same_run
from unnoise.classifier import accuracy, load_classifier
from unnoise.config.load import from_dict, from_yaml, merge
from unnoise.config.resolve import data_config, resolve, settings_yaml
from unnoise.config.schema import TrainConfig
from unnoise.data import DataReport, Dataset, open_data
from unnoise.data.dataset import Squares
from unnoise.data.split import hold_out
from unnoise.model import load_model, save_model
from unnoise.presets import load_preset
from unnoise.train import train
from unnoise.train.check import check
from unnoise.train.classifier import ClassifierJob, enlarged, windows
from unnoise.train.events import Event, Sampled, StepDone

SETTINGS: dict[str, Any] = {
    "kind": "classifier",
    "classifier": {"network": {"widths": [8, 12], "features": 16}, "held_out": 0.2},
    "optimizer": {"lr": 0.03, "warmup_steps": 2, "decay": "cosine"},
    "ema": {"rates": [0.8]},
    "steps": 60,
    "batch_size": 24,
    "micro_batch": 16,
    "precision": "float32",
    "device": "cpu",
    "compile": "off",
    "log_every": 30,
    "save_every": 15,
    "sample_every": 60,
}


def config(**changes: Any) -> TrainConfig:
    return from_dict(TrainConfig, merge(SETTINGS, changes))


def shapes(seed: int = 0, *, count: int = 240, classes: tuple[str, ...] = ("bar", "box", "post")) -> Dataset:
    """Noisy 12x12 pictures of a lying bar, a box and a standing bar, anywhere."""
    random = np.random.default_rng(7)
    labels = np.arange(count) % 3
    pixels = random.integers(0, 60, (count, 12, 12, 1))
    extents = {"bar": (2, 7), "box": (4, 4), "post": (7, 2)}
    for k in range(count):
        high, wide = extents[("bar", "box", "post")[labels[k]]]
        y, x = random.integers(0, 12 - high), random.integers(0, 12 - wide)
        pixels[k, y : y + high, x : x + wide] += 150
    return Dataset(
        store=Squares(pixels.astype(np.uint8)),
        size=12,
        channels=1,
        report=DataReport(source="shapes", pictures=count, size=12, channels=1),
        content=f"shapes {count}",
        name_of=str,
        labels=labels,
        classes=classes,
        seed=seed,
    )


def run(out: Path, settings: TrainConfig | None = None, **options: Any) -> list[Event]:
    events: list[Event] = []
    settings = settings or config()
    listen = options.pop("on_event", lambda event: None)

    def on_event(event: Event) -> None:
        events.append(event)
        listen(event)

    train(settings, out, dataset=shapes(settings.seed), on_event=on_event)
    return events


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("classifier")
    run(out)
    return out


def job(**changes: Any) -> ClassifierJob:
    settings = resolve(config(**changes), size=12, channels=1, classes=3)
    return ClassifierJob(settings, shapes(), torch.device("cpu"))


def test_it_learns_and_says_so(finished: Path) -> None:
    log = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    trained = [line for line in log if "accuracy" in line]
    assert [line["step"] for line in trained] == [30, 60]
    assert trained[0]["accuracy"] < trained[1]["accuracy"] and trained[1]["accuracy"] > 0.9
    validated = {line["step"]: line["validation/accuracy"] for line in log if "validation/accuracy" in line}
    assert sorted(validated) == [1, 2, 4, 8, 16, 32, 60]
    assert validated[1] < 0.7 and validated[60] > 0.9
    assert (finished / "samples" / "step-00000060.png").exists()


def test_the_file_is_whole_and_says_what_it_is(finished: Path) -> None:
    model = load_classifier(finished)
    assert model.classes == ("bar", "box", "post") and model.info.step == 60
    assert accuracy(model, shapes()) > 0.9
    with pytest.raises(ValueError, match=r"is a classifier of 3 classes \(bar, box, post\), not a diffusion"):
        load_model(finished)


def test_a_diffusion_model_is_no_classifier(tmp_path: Path) -> None:
    from tests.models import tiny_model

    save_model(tmp_path / "model.safetensors", tiny_model())
    with pytest.raises(ValueError, match="is a diffusion model, not a classifier"):
        load_classifier(tmp_path)


class Stop(BaseException):
    pass


@pytest.mark.parametrize("step", [29])
def test_a_run_cut_off_ends_in_the_same_bits(tmp_path: Path, finished: Path, step: int) -> None:
    def stop(event: Event) -> None:
        if isinstance(event, StepDone) and event.step == step:
            raise Stop

    with pytest.raises(Stop):
        run(tmp_path, on_event=stop)
    run(tmp_path)
    assert_same_run(tmp_path, finished)


def test_the_stored_settings_are_those_of_a_classifier(finished: Path) -> None:
    text = (finished / "config.yaml").read_text()
    assert not any(f"\n{name}:" in text for name in ("model", "objective", "timesteps", "sample_count"))
    stored = from_yaml(TrainConfig, text)
    assert stored.kind == "classifier" and stored.classifier is not None
    assert stored.classifier.network.classes == 3
    diffusion = settings_yaml(load_preset("fashion-28").config)
    assert "\nclassifier:" not in diffusion and "\nmodel:" in diffusion


def test_pictures_are_a_function_of_seed_and_position() -> None:
    made = job(classifier={"shift": 2, "sizes": [10, 12, 20]})
    whole = made.draw(3, range(24))
    again = made.draw(3, range(8, 20))
    assert torch.equal(whole.pixels[8:20], again.pixels) and torch.equal(whole.label[8:20], again.label)
    assert whole.side == again.side
    other = job(seed=1, classifier={"shift": 2, "sizes": [12]}).draw(3, range(24))
    assert not torch.equal(
        job(classifier={"shift": 2, "sizes": [12]}).draw(3, range(24)).pixels, other.pixels
    )
    sides = [made.draw(step, range(2)).side for step in range(60)]
    assert {side: 8 < sides.count(side) < 34 for side in (10, 12, 20)} == {10: True, 12: True, 20: True}


def test_windows_are_every_place_of_the_padded_picture() -> None:
    pixels = np.arange(2 * 5 * 5, dtype=np.uint8).reshape(2, 5, 5, 1)
    padded = np.pad(pixels, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    for top in range(4):
        for left in range(4):
            bits = np.array([top | left << 32, 0], np.uint64)
            found = windows(pixels, 4, 1, bits)
            assert np.array_equal(found[0], padded[0, top : top + 4, left : left + 4])
            assert np.array_equal(found[1], padded[1, :4, :4])
    assert windows(pixels, 5, 0, np.array([3, 4], np.uint64)) is pixels
    random = np.random.default_rng(0).integers(0, 2**63, 400).astype(np.uint64)
    many = windows(np.repeat(pixels[:1], 400, 0), 5, 1, random)
    corners = {int(picture[2, 2, 0]) for picture in many}
    assert corners == {6, 7, 8, 11, 12, 13, 16, 17, 18}  # moved by -1, 0, 1 in both directions


def test_enlarging_keeps_flat_pictures_flat_and_the_same_side_untouched() -> None:
    x = torch.full((1, 1, 12, 12), 0.3)
    torch.testing.assert_close(enlarged(x, 20), torch.full((1, 1, 20, 20), 0.3))
    assert enlarged(x, 12) is x


def test_label_smoothing_is_the_closed_form() -> None:
    """(1 - s) CE + s mean over classes of -log p."""
    made = job(classifier={"label_smoothing": 0.2})
    torch.nn.init.normal_(made.model.network.head.weight)
    batch = made.draw(0, range(24))
    log_p = made.network(batch.pixels.permute(0, 3, 1, 2).float() / 127.5 - 1).log_softmax(1)
    right = -log_p.gather(1, batch.label[:, None])[:, 0]
    torch.testing.assert_close(made.losses(made.network, batch).loss, 0.8 * right - 0.2 * log_p.mean(1))


def test_held_out_pictures_are_not_learned_from() -> None:
    data = shapes()
    kept, out = hold_out(data, 0.2)
    assert len(out) == 48 and len(kept) == 192
    names = [{part.name_of(k) for k in range(len(part))} for part in (kept, out)]
    assert not names[0] & names[1] and len(names[0] | names[1]) == 240
    again, _ = hold_out(data, 0.2)
    assert again.fingerprint == kept.fingerprint != out.fingerprint
    other, _ = hold_out(replace(data, seed=1), 0.2)
    assert other.fingerprint != kept.fingerprint
    batch = out.take(np.arange(len(out)))
    assert torch.equal(batch.pixels[5], data.take([int(out.name_of(5))]).pixels[0])


def npz(path: Path, labels: list[str] | None) -> str:
    arrays: dict[str, Any] = {"arr_0": np.zeros((6, 12, 12, 1), np.uint8)}
    if labels:
        arrays["arr_1"] = np.array(labels)
    np.savez(path, **arrays)
    return str(path)


def test_another_source_is_validated_on_by_class_name(tmp_path: Path) -> None:
    source = npz(tmp_path / "v.npz", ["post", "box"] * 3)
    made = job(classifier={"validation": source})
    assert len(made.dataset) == 240 and len(made.validation) == 6
    assert made.validation.labels.tolist() == [2, 1] * 3  # in the training data's order of classes


@pytest.mark.parametrize(("labels", "expected"), [(None, "no labels"), (["bar", "hat"] * 3, "'hat'")])
def test_validation_that_does_not_fit(tmp_path: Path, labels: list[str] | None, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        job(classifier={"validation": npz(tmp_path / "v.npz", labels)})


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"kind": "diffusion"}, "kind=diffusion"),
        ({"model": {"network": {"width": 64}}}, "model.network.width: 128 -> 64"),
        ({"objective": {"name": "vlb"}}, "objective.name"),
        ({"label_dropout": 0.2}, "label_dropout"),
        ({"classifier": {"network": {"classes": 7}}}, "classifier.network.classes=7"),
    ],
)
def test_settings_of_another_kind_are_refused(changes: dict[str, Any], expected: str) -> None:
    settings = config(**changes)
    with pytest.raises(ValueError, match=expected):
        data_config(settings)
        resolve(settings, size=12, channels=1, classes=3)


@pytest.mark.parametrize(
    ("channels", "classes", "expected"), [(1, 0, "no labels"), (1, 1, "two"), (4, 3, "RGB")]
)
def test_data_that_cannot_be_classified(channels: int, classes: int, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        resolve(config(), size=12, channels=channels, classes=classes)


@pytest.mark.parametrize(
    "changes",
    [
        {"label_smoothing": 1.0},
        {"shift": -1},
        {"sizes": [12, 4]},
        {"held_out": 0.0},
        {"network": {"widths": []}},
    ],
)
def test_numbers_out_of_range(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"classifier\."):
        check(config(classifier=changes), processes=1)


def test_validation_is_told_with_its_sheet(tmp_path: Path) -> None:
    events = run(tmp_path, config(steps=2))
    told = [event.measured for event in events if isinstance(event, Sampled)]
    assert [set(numbers) for numbers in told] == [{"validation/accuracy", "validation/loss"}] * 2


def test_drawing_with_a_classifier_is_refused_in_one_line(finished: Path, tmp_path: Path) -> None:
    assert "is a classifier" in refused("sample", finished, "--out", "x", cwd=tmp_path)


def test_clothes_are_learned_in_seconds(tmp_path: Path) -> None:
    """2,560 pictures, a quarter of the embedded ones: guessing scores 10 %."""
    changes = [("data.source", "fashion-mnist-10k"), ("steps", 80), ("batch_size", 32), ("sample_every", 0)]
    settings = load_preset("classifier-28", [*changes, ("optimizer.warmup_steps", 5)]).config
    train(settings, tmp_path)
    _, unseen = hold_out(open_data(settings.data), 0.05)
    assert accuracy(load_classifier(tmp_path), unseen) > 0.5
