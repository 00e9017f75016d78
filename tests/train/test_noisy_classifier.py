"""Training a classifier of noisy pictures: what it sees, what it measures, what it leaves and refuses."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from tests.cli.test_app import refused, unnoise
from tests.train.test_classifier import Stop, npz
from tests.train.tiny import assert_same_run
from unnoise.config.load import from_dict, from_yaml, merge
from unnoise.config.resolve import data_config, resolve
from unnoise.config.schema import TrainConfig
from unnoise.data import DataReport, Dataset
from unnoise.data.dataset import Squares
from unnoise.diffusion.schedule import add_noise
from unnoise.images import to_images
from unnoise.noisy_classifier import load_noisy_classifier
from unnoise.train import noisy_validation, train
from unnoise.train.check import check
from unnoise.train.events import Event, Sampled, StepDone, TrainResult
from unnoise.train.noisy_classifier import NoisyClassifierJob
from unnoise.train.noisy_validation import hits
from unnoise.train.report import report_run

NETWORK = {
    "width": 16,
    "depth": 1,
    "channel_mult": [1, 2],
    "patch": 2,
    "attention": [],
    "head_channels": 16,
}
SETTINGS: dict[str, Any] = {
    "kind": "noisy_classifier",
    "noisy_classifier": {
        "network": NETWORK,
        "schedule": {"name": "cosine", "steps": 100},
        "held_out": 0.25,
    },
    "timesteps": {"name": "loss_second_moment", "history": 1, "uniform_prob": 0.5},
    "optimizer": {"lr": 0.005, "weight_decay": 0.05, "decay": "linear"},
    "ema": {"rates": [0.5]},
    "steps": 32,
    "batch_size": 24,
    "micro_batch": 16,
    "precision": "float32",
    "device": "cpu",
    "compile": "off",
    "log_every": 16,
    "save_every": 15,
    "sample_every": 32,
}
QUARTERS = ("q0", "q1", "q2", "q3")
CLASSES = ("black", "grey", "white")


def config(**changes: Any) -> TrainConfig:
    return from_dict(TrainConfig, merge(SETTINGS, changes))


def shades(seed: int = 0) -> Dataset:
    """240 grainy 8x8 pictures, dark, middling and bright."""
    labels = np.arange(240) % 3
    grain = np.random.default_rng(7).integers(0, 60, (240, 8, 8, 1))
    return Dataset(
        store=Squares((grain + 80 * labels[:, None, None, None]).astype(np.uint8)),
        size=8,
        channels=1,
        report=DataReport(source="shades", pictures=240, size=8, channels=1),
        content="shades",
        name_of=str,
        labels=labels,
        classes=CLASSES,
        seed=seed,
    )


def run(out: Path, settings: TrainConfig | None = None, stop: int = 0) -> tuple[TrainResult, list[Event]]:
    """The result and the events of a run, cut off after step `stop`."""
    events: list[Event] = []
    settings = settings or config()

    def on_event(event: Event) -> None:
        events.append(event)
        if isinstance(event, StepDone) and event.step == stop:
            raise Stop

    return train(settings, out, dataset=shades(settings.seed), on_event=on_event), events


def job(**changes: Any) -> NoisyClassifierJob:
    settings = resolve(config(**changes), size=8, channels=1, classes=3)
    return NoisyClassifierJob(settings, shades(), torch.device("cpu"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("noisy")
    report_run(out, run(out)[0])
    return out


def test_it_learns_and_says_how_much_at_which_noise(finished: Path) -> None:
    log = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    trained = [line for line in log if "accuracy@1" in line]
    assert [line["step"] for line in trained] == [16, 32]
    for name in ("loss", "accuracy@1"):
        assert all(f"{name}/{quarter}" in line for quarter in QUARTERS for line in trained)
    first, *_, last = [line for line in log if "validation/loss" in line]
    assert (first["step"], last["step"]) == (1, 32)
    assert first["validation/accuracy@1/q0"] < 0.6 and last["validation/accuracy@1/q0"] > 0.9
    assert last["validation/accuracy@1/q3"] < last["validation/accuracy@1/q0"]
    of_quarters = [last[f"validation/accuracy@1/{quarter}"] for quarter in QUARTERS]
    assert np.mean(of_quarters) == pytest.approx(last["validation/accuracy@1"])  # 15 pictures in each
    assert not any("accuracy@5" in name for line in log for name in line)  # of three classes


def test_the_file_is_whole_and_says_what_it_is(finished: Path) -> None:
    model = load_noisy_classifier(finished)
    assert model.classes == CLASSES and model.info.step == 32
    assert model.config.network.image_size == 8 and model.config.schedule.steps == 100
    batch = shades().take(np.arange(240))
    x0 = to_images(batch.pixels)
    at = model.schedule.at(torch.full((240,), 20), x0)
    eps = torch.randn(x0.shape, generator=torch.Generator().manual_seed(3))
    said = model.network(add_noise(x0, eps, at), at.t).argmax(1)
    assert (said == batch.label).float().mean() > 0.85


def test_the_sheet_and_what_was_measured_lie_side_by_side(finished: Path) -> None:
    steps = (1, 2, 4, 8, 16, 32)
    names = [f"step-{step:08d}.{end}" for step in steps for end in ("json", "png")]
    assert sorted(path.name for path in (finished / "samples").iterdir()) == names
    with Image.open(finished / "samples" / "step-00000032.png") as sheet:
        assert sheet.width == 7 * (136 + 2) + 2  # clean and six t, enlarged 17 times
    measured = json.loads((finished / "samples" / "step-00000032.json").read_text())
    assert list(measured) == ["all", *QUARTERS]
    for numbers in measured.values():
        assert sum(numbers["reliability"]["count"]) == numbers["pictures"]
    page = (finished / "report.html").read_text()
    for text in ("What it says", "Accuracy on held-out pictures", "Calibration", "4th quarter", "calibrated"):
        assert text in page


def test_a_run_cut_off_ends_in_the_same_bits(tmp_path: Path, finished: Path) -> None:
    with pytest.raises(Stop):
        run(tmp_path, config(sample_every=0), stop=29)
    run(tmp_path, config(sample_every=0))
    assert_same_run(tmp_path, finished)


def test_the_stored_settings_are_those_of_its_kind(finished: Path) -> None:
    text = (finished / "config.yaml").read_text()
    assert not any(f"\n{name}:" in text for name in ("model", "objective", "classifier", "label_dropout"))
    stored = from_yaml(TrainConfig, text)
    assert stored.noisy_classifier is not None and stored.noisy_classifier.network.classes == 3
    assert stored.timesteps.name == "loss_second_moment"


def test_the_loss_is_the_cross_entropy_of_the_noised_picture() -> None:
    made = job(timesteps={"name": "uniform"})
    torch.nn.init.normal_(made.model.network.out[2].c_proj.weight)
    batch = made.draw(0, range(24))
    i = (batch.u * 100).long()
    alpha_bar = made.model.schedule.alpha_bar[i][:, None, None, None]
    x = alpha_bar.sqrt() * (batch.pixels.permute(0, 3, 1, 2).double() / 127.5 - 1)
    x = x + (1 - alpha_bar).sqrt() * batch.eps.double()
    logits = made.network(x.float(), i.float())
    found = made.losses(made.network, batch)
    expected = F.cross_entropy(logits, batch.label, reduction="none")
    torch.testing.assert_close(found.loss, expected, rtol=1e-4, atol=1e-5)
    assert found.scores["accuracy@1"].tolist() == (logits.argmax(1) == batch.label).tolist()
    assert found.group.tolist() == (i // 25).tolist() and found.weight.tolist() == [1.0] * 24


def test_clean_pictures_are_seen_as_they_are() -> None:
    made = job(noisy_classifier={"noised": False})
    seen = []

    def network(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        seen.append((x, t))
        return made.network(x, t)

    batch = made.draw(0, range(24))
    found = made.losses(network, batch)
    assert torch.equal(seen[0][0], to_images(batch.pixels)) and not seen[0][1].any()
    assert not found.group.any()
    assert list(made.validation.measure(made.network, lambda: None)) == ["all", "q0"]
    assert made.validation.sheet(made.network).shape[1] == 2 * (136 + 2) + 2


def test_draws_are_a_function_of_seed_and_position() -> None:
    made = job()
    whole, part = made.draw(3, range(24)), made.draw(3, range(8, 20))
    for name in ("pixels", "eps", "u", "label"):
        assert torch.equal(getattr(whole, name)[8:20], getattr(part, name)), name
    assert not torch.equal(whole.eps, job(seed=1).draw(3, range(24)).eps)


def test_validation_looks_at_the_same_noise_always_and_never_at_pictures_learned_from() -> None:
    made = job()
    one, two = (made.validation.measure(made.network, lambda: None) for _ in range(2))
    assert one == two and one["all"].pictures == 60 and one["q2"].pictures == 15
    held = {made.validation.dataset.name_of(k) for k in range(60)}
    assert not held & {made.dataset.name_of(k) for k in range(180)}


def test_a_validation_is_the_same_in_blocks_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    made = job()
    torch.nn.init.normal_(made.model.network.out[2].c_proj.weight)
    whole = made.validation.measure(made.network, lambda: None)
    monkeypatch.setattr(noisy_validation, "_BLOCK", 7)
    parted = made.validation.measure(made.network, lambda: None)
    for name in whole:
        assert parted[name].loss == pytest.approx(whole[name].loss, rel=1e-4)


def test_hits_are_the_first_and_the_first_five() -> None:
    logits = torch.tensor([[6.0, 5, 4, 3, 2, 1], [6, 5, 4, 3, 2, 1], [6, 5, 4, 3, 2, 1]])
    found = hits(logits, torch.tensor([0, 4, 5]))
    assert found["accuracy@1"].tolist() == [True, False, False]
    assert found["accuracy@5"].tolist() == [True, True, False]


@pytest.mark.parametrize(
    ("pool", "precision"),
    [("attention", "bfloat16"), ("adaptive", "float16"), ("spatial", "float32"), ("spatial_v2", "bfloat16")],
)
def test_every_pool_and_precision_trains(tmp_path: Path, pool: str, precision: str) -> None:
    changes = {"noisy_classifier": {"network": {"pool": pool}}, "precision": precision, "sample_every": 0}
    result, _ = run(tmp_path, config(**changes, steps=2))
    assert result.skipped == 0
    assert load_noisy_classifier(tmp_path).config.network.pool == pool


def test_a_validation_is_told_in_short(tmp_path: Path) -> None:
    _, events = run(tmp_path, config(steps=1))
    (told,) = [event.measured for event in events if isinstance(event, Sampled)]
    short = {name for name in told if name.count("/") < 2}
    assert short == {f"validation/{name}" for name in ("loss", "accuracy@1", "calibration_error")}
    assert len(told) == 5 * len(short)


def test_another_source_is_validated_on_by_class_name(tmp_path: Path) -> None:
    made = job(noisy_classifier={"validation": npz(tmp_path / "v.npz", ["white", "grey"] * 3)})
    assert len(made.dataset) == 240
    assert made.validation.dataset.labels.tolist() == [2, 1] * 3  # in the training data's order of classes


@pytest.mark.parametrize(("labels", "expected"), [(None, "no labels"), (["grey", "pink"] * 3, "'pink'")])
def test_validation_that_does_not_fit(tmp_path: Path, labels: list[str] | None, expected: str) -> None:
    with pytest.raises(ValueError, match=f"^noisy_classifier.validation=.*{expected}"):
        job(noisy_classifier={"validation": npz(tmp_path / "v.npz", labels)})


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"model": {"network": {"width": 64}}}, "model.network.width: 128 -> 64"),
        ({"label_dropout": 0.2}, "label_dropout"),
        ({"kind": "diffusion"}, "kind=diffusion"),
        ({"data": {"size": 10}}, "10 pixels is no multiple of 4"),
        ({"noisy_classifier": {"network": {"classes": 7}}}, "noisy_classifier.network.classes=7"),
        ({"noisy_classifier": {"held_out": 1.0}}, "noisy_classifier.held_out=1.0"),
    ],
)
def test_settings_that_cannot_work(changes: dict[str, Any], expected: str) -> None:
    settings = config(**changes)
    with pytest.raises(ValueError, match=expected):
        data_config(settings)
        check(settings, processes=1)
        resolve(settings, size=8, channels=1, classes=3)


@pytest.mark.parametrize("pool", ["attention", "adaptive", "spatial", "spatial_v2"])
def test_a_side_that_the_network_does_not_divide(pool: str) -> None:
    with pytest.raises(ValueError, match="14 pixels is no multiple of 4, .* use 12 or 16"):
        resolve(config(noisy_classifier={"network": {"pool": pool}}), size=14, channels=1, classes=3)


@pytest.mark.parametrize(("classes", "expected"), [(0, "no labels"), (1, "the data have 1")])
def test_data_that_cannot_be_told_apart(classes: int, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        resolve(config(), size=8, channels=1, classes=classes)


def test_refused_as_a_user_sees_it(tmp_path: Path) -> None:
    schedule = ("--set", "noisy_classifier.schedule.name=cosin")
    command = ("train", "adm-classifier-tiny", "--data", "fashion-mnist-10k", "--out", "run")
    assert "noisy_classifier.schedule.name" in refused(*command, *schedule, cwd=tmp_path)
    data = npz(tmp_path / "unlabelled.npz", None)
    done = unnoise("train", "adm-classifier-tiny", "--data", data, "--set", "data.size=16", cwd=tmp_path)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "two classes at least, the data have no labels" in done.stderr.splitlines()[-1]
