"""`unnoise compare` as a user runs it: three models for one time, one page, continuing, refusals."""

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import yaml

from tests.metrics.double import double  # noqa: F401
from tests.studies.conftest import FAST
from tests.test_html import Strict
from unnoise import gan
from unnoise.cli.compare import minutes_of
from unnoise.config.studies import CompareRequest
from unnoise.studies.contenders import factor, prepare, share_of
from unnoise.train import loop
from unnoise.train.gan import GanJob

RECIPES = {
    "pixel": {
        "model": {
            "network": {"width": 8, "depth": 1, "channel_mult": [1, 2], "attention": [], "head_channels": 8},
            "variance": "fixed_small",
        },
        "objective": {"name": "simple"},
        "label_dropout": 0.2,
    },
    "stage": {
        "kind": "autoencoder",
        "autoencoder": {
            "network": {
                "kind": "kl", "latent_channels": 2, "width": 8, "depth": 1, "channel_mult": [1, 1, 1],
                "attention_type": "none",
            },
            "perceptual": "none",
            "adversary": {"weight": 0.0, "network": {"width": 8, "layers": 1}},
        },
    },
    "gan": {
        "kind": "gan",
        "gan": {
            "generator": {"width": 8, "channel_mult": [1, 2], "chunk": 4, "class_width": 6},
            "discriminator": {"width": 8, "channel_mult": [1, 2]},
            "discriminator_steps": 1,
        },
        "evaluate": {"every": 1000, "n": 10, "keep_best": True},
    },
}  # fmt: skip
COMMON = {"batch_size": 8, "micro_batch": 8, "precision": "float32", "compile": "off", "sample_every": 0,
          "save_every": 7, "optimizer": {"lr": 0.001}}  # fmt: skip
COMMAND = [
    "compare", "data", "--out", "c", "-n", 20, "--budget", "2s", "--bootstrap", 5, "--steps", 2,
    "--pixel", "pixel.yaml", "--stage", "stage.yaml", "--latent", "pixel.yaml", "--gan", "gan.yaml",
    "--guidance", "2", "--truncation", "0.5,1", *FAST,
]  # fmt: skip


@pytest.fixture
def ready(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Recipes, and 40 labelled pictures of 16x16 in data/."""
    from PIL import Image

    monkeypatch.setattr(gan, "STANDING_BATCHES", 2)
    for name, recipe in RECIPES.items():
        (place / f"{name}.yaml").write_text(yaml.safe_dump({**COMMON, **recipe}))
    rng = np.random.default_rng(0)
    for name, level in (("dark", 60), ("light", 180)):
        (place / "data" / name).mkdir(parents=True)
        for k in range(20):
            pixels = (level + rng.integers(-50, 50, (16, 16))).astype(np.uint8)
            Image.fromarray(pixels).save(place / "data" / name / f"{k}.png")
    return place


def test_three_models_one_page(unnoise, ready) -> None:
    code, said, complaints = unnoise(*COMMAND)
    assert code == 0, complaints
    found = json.loads((ready / "c" / "comparison.json").read_text())
    kinds = {c["kind"]: c for c in found["contenders"]}
    assert list(kinds) == ["pixel", "latent", "gan"]
    assert [s["setting"] for s in kinds["pixel"]["spots"]] == ["", "guidance=2"]
    assert [s["setting"] for s in kinds["gan"]["spots"]] == ["", "truncation=0.5", "truncation=1"]
    for c in kinds.values():
        assert c["speed"] > 0 and c["steps"] >= 1 and c["parameters"] > 0
        for spot in c["spots"]:
            assert 0 <= spot["repeats"] <= 1 and 0 <= spot["lost"] <= 2 and 1 <= spot["near_copies"] + 1
            assert 1 <= spot["inception_score_of_judge"] <= 2.001
    assert found["kinds"] == 2 and found["judged"] is not None
    runs = ready / "c" / "runs"
    assert {p.name for p in runs.iterdir()} == {"pixel", "stage", "latent", "gan"}
    assert (runs / "gan" / "best.safetensors").exists()
    text = (ready / "c" / "comparison.html").read_text()
    parser = Strict()
    parser.feed(text)
    assert parser.open == [] and "Trading one for the other" in text and "classes lost of 2" in text
    assert text.count("data:image/png") >= 4
    assert {p.name for p in (ready / "c" / "figures").iterdir()} >= {"precision-recall.svg"}
    assert "classes lost of 2" in said and "pictures/s" in said and "GAN" in said
    # The same command finds everything there.
    before = {p: p.stat().st_mtime_ns for p in (ready / "c" / "points").rglob("*.png")}
    again, _, complaints = unnoise(*COMMAND)
    assert again == 0, complaints
    assert {p: p.stat().st_mtime_ns for p in (ready / "c" / "points").rglob("*.png")} == before
    same = json.loads((ready / "c" / "comparison.json").read_text())
    for one, two in zip(found["contenders"], same["contenders"], strict=True):
        assert one["spots"][0]["metrics"] == two["spots"][0]["metrics"] and one["speed"] == two["speed"]


def test_pictures_without_labels_are_compared_without_classes(unnoise, ready) -> None:
    flat = ready / "flat"
    flat.mkdir()
    for k, path in enumerate(sorted((ready / "data").rglob("*.png"))):
        (flat / f"{k}.png").write_bytes(path.read_bytes())
    command = [COMMAND[0], "flat", *COMMAND[2:], "--models", "pixel,gan"]
    code, said, complaints = unnoise(*command)
    assert code == 0, complaints
    found = json.loads((ready / "c" / "comparison.json").read_text())
    assert found["judged"] is None and "clusters lost of 2" in said
    assert [[s["setting"] for s in c["spots"]] for c in found["contenders"]] == [
        [""],
        ["", "truncation=0.5", "truncation=1"],
    ]


@pytest.mark.parametrize(
    "options, said",
    [
        (["--budget", "0m"], "budget of 0 minutes is none"),
        (["--budget", "soon"], "budget='soon' is no time; write it as 30m, 90s or 1h30m"),
        (["--models", "pixel,vae"], "name some of pixel, latent, gan, each once"),
        (["--models", ""], "the value of --models is empty"),
        (["--stage-share", "1"], "stage_share=1 is not possible"),
        (["-n", "4"], "n=4 pictures are not enough"),
        (["--guidance", "a"], "guidance='a' are no numbers"),
        (["--gan", "nothing.yaml"], "nothing.yaml does not exist"),
        (["--pixel", "gan.yaml"], "pixel: its recipe is of kind gan; name one of kind diffusion"),
        (["--size", "12"], "pictures of 12 pixels have no latents that a model could halve"),
        (["--steps", "2000"], "pixel: steps=2000 exceeds the"),
        (["--steps", "0", "--models", "latent"], "latent: steps=0 keeps none"),
        (["--guidance", "nan"], "pixel: guidance = nan"),
        (["--guidance", "nan", "--models", "latent"], "latent: guidance = nan"),
        (["--truncation", "-1"], "gan: truncation=-1 leaves no z"),
        (["--against", "statistics.npz"], "statistics.npz holds statistics alone"),
        (["--out", "real.npz"], "real.npz is a file; name a folder for the comparison"),
        (["--channels", "4", "--models", "pixel"], "pictures have 4 channels; feature networks read 1 or 3"),
    ],
)
def test_what_cannot_work_is_refused_before_training(unnoise, ready, options, said) -> None:
    np.savez("statistics.npz", mu=np.zeros(12), sigma=np.eye(12), network="double", weights_hash="d0")
    code, out, complaints = unnoise(*COMMAND, *options)
    assert code == 2 and said in complaints and complaints.count("\n") == 1, complaints
    assert not (ready / "c").exists()


def test_two_pictures_are_refused(unnoise, ready) -> None:
    few = ready / "few"
    few.mkdir()
    for k, path in enumerate(sorted((ready / "data").rglob("*.png"))[:2]):
        (few / f"{k}.png").write_bytes(path.read_bytes())
    code, _, complaints = unnoise(COMMAND[0], "few", *COMMAND[2:])
    assert code == 2 and "few has 2 pictures; a comparison needs 16 at least" in complaints


def test_a_budget_without_a_step_is_refused_with_one_that_has(unnoise, ready) -> None:
    code, _, complaints = unnoise(*COMMAND[:6], "--budget", "0.001s", *COMMAND[8:], "--models", "gan")
    assert code == 2 and "of gan are shorter than one step" in complaints and "or much more" in complaints
    assert not (ready / "c" / "runs" / "gan" / "config.yaml").exists()


def test_a_comparison_that_was_stopped_continues(unnoise, ready, monkeypatch) -> None:
    """Stopped while the GAN learns, after the pixel model: that one is not trained again."""
    original = loop.take_step

    def stop(state, *args, **options):
        if isinstance(state.job, GanJob) and state.step == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return original(state, *args, **options)

    command = [*COMMAND, "--models", "pixel,gan"]
    monkeypatch.setattr(loop, "take_step", stop)  # the loop's own, not that of the steps that are measured
    code, _, complaints = unnoise(*command)
    assert code == 130 and "run the same command to continue" in complaints
    monkeypatch.setattr(loop, "take_step", original)
    pixel = ready / "c" / "runs" / "pixel"
    kept = {name: (pixel / name).read_bytes() for name in ("model.safetensors", "metrics.jsonl")}
    code, _, complaints = unnoise(*command)
    assert code == 0, complaints
    assert "continuing at step" in complaints
    assert kept == {name: (pixel / name).read_bytes() for name in kept}


def test_budgets_are_read_as_people_write_them() -> None:
    for text, minutes in (
        ("30m", 30),
        ("90s", 1.5),
        ("1h30m", 90),
        ("1.5h", 90),
        ("2", 2),
        (" 1 h 5 m ", 65),
    ):
        assert minutes_of(text) == pytest.approx(minutes)
    for text in ("", "m", "3d", "-5m", "5m!"):
        with pytest.raises(ValueError, match="is no time"):
            minutes_of(text)


def test_the_latent_model_shares_its_time_with_its_first_stage() -> None:
    request = CompareRequest(minutes=30, stage_share=0.3)
    assert share_of(request, "stage") + share_of(request, "latent") == pytest.approx(30)
    assert share_of(request, "pixel") == share_of(request, "gan") == 30


def test_latents_are_as_small_as_a_model_can_halve() -> None:
    assert [factor(side) for side in (16, 28, 32, 64, 256)] == [2, 2, 4, 4, 4]
    with pytest.raises(ValueError, match="use a side that is a multiple of 4 from 16 on"):
        factor(30)


def test_the_presets_fit_the_sizes_that_they_are_for() -> None:
    for size in (28, 64):
        request = CompareRequest(data="fashion-mnist-10k", size=size)
        prepared = prepare(request)
        assert [t.name for t in prepared.trainings] == ["pixel", "stage", "latent", "gan"]
        assert prepared.dataset.size == size
