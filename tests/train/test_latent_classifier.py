"""A classifier of noisy latents: it sees what its model draws, learns, measures, guides, refuses."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from tests.train.test_latents import LATENT, latent_config, stage_of
from tests.train.test_noisy_classifier import CLASSES, NETWORK, SETTINGS, shades
from tests.train.tiny import tiny_config
from unnoise.cli import main
from unnoise.config.load import from_dict, merge, to_dict
from unnoise.config.resolve import data_config, resolve
from unnoise.config.schema import TrainConfig
from unnoise.data import Dataset
from unnoise.data.dataset import Squares
from unnoise.diffusion.noise import unit_normal
from unnoise.diffusion.schedule import add_noise
from unnoise.first_stage import save_first_stage
from unnoise.images import to_images
from unnoise.model import load_model
from unnoise.noisy_classifier import load_noisy_classifier
from unnoise.presets import load_preset
from unnoise.train import noisy_validation, train
from unnoise.train.latents import open_first_stage, open_latents
from unnoise.train.noisy_classifier import NoisyClassifierJob

SCHEDULE = {"name": "cosine", "steps": 100}


def sides(seed: int = 0, **changes: Any) -> Dataset:
    """240 grainy 8x8 pictures, bright above, below or on the left: what an untrained encoder keeps apart."""
    made = shades(seed)
    pixels = np.random.default_rng(7).integers(0, 60, (240, 8, 8, 1))
    pixels[0::3, :4] += 150
    pixels[1::3, 4:] += 150
    pixels[2::3, :, :4] += 150
    return replace(made, **({"store": Squares(pixels.astype(np.uint8)), "content": "sides"} | changes))


def save_stage(path: Path, kind: str = "kl", seed: int = 0) -> Path:
    """A small first stage, not trained."""
    save_first_stage(path, stage_of(kind, seed))
    return path


def config(tmp_path: Path, stage: Path | str, **changes: Any) -> TrainConfig:
    own = {
        "first_stage": str(stage),
        "data": {"cache": str(tmp_path / "cache")},
        "noisy_classifier": {"network": {**NETWORK, "patch": 1}, "schedule": SCHEDULE},
    }
    return from_dict(TrainConfig, merge(SETTINGS, merge(own, changes)))


def run(out: Path, settings: TrainConfig, **data: Any) -> Path:
    train(settings, out, dataset=sides(settings.seed, **data))
    return out


def job(settings: TrainConfig, **data: Any) -> NoisyClassifierJob:
    """As `train` makes it."""
    device, dataset = torch.device("cpu"), sides(settings.seed, **data)
    settings, stage = open_first_stage(settings, device)
    assert stage is not None
    settings, source = open_latents(settings, dataset, stage, lambda event: None, device)
    data_config(settings)
    settings = resolve(settings, size=8, channels=1, classes=3)
    return NoisyClassifierJob(settings, dataset, device, source)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A first stage, a model of its latents, and a classifier that was trained beside it."""
    folder = tmp_path_factory.mktemp("latent")
    stage = save_stage(folder / "stage.safetensors", "vq")  # untrained, a Gaussian would be mostly noise
    plain = {"beta_start": None, "beta_end": None, **SCHEDULE}
    model = latent_config(folder, stage, model={"variance": "fixed_small", "schedule": plain})
    train(model, folder / "model", dataset=sides())
    run(folder / "classifier", config(folder, folder / "model"))
    return folder


def test_it_learns_latents_and_says_how_much_at_which_noise(place: Path) -> None:
    log = [json.loads(line) for line in (place / "classifier" / "metrics.jsonl").read_text().splitlines()]
    first, *_, last = [line for line in log if "validation/loss" in line]
    assert first["validation/accuracy@1/q0"] < 0.6 and last["validation/accuracy@1/q0"] > 0.75
    assert last["validation/accuracy@1/q3"] < last["validation/accuracy@1/q0"]
    assert 0 <= last["validation/calibration_error"] < 0.5
    with Image.open(place / "classifier" / "samples" / "step-00000032.png") as sheet:
        assert sheet.width == 7 * (136 + 2) + 2


def test_its_latents_are_those_of_the_model_that_brought_them(place: Path) -> None:
    model, classifier = load_model(place / "model"), load_noisy_classifier(place / "classifier")
    assert classifier.config.latent == model.config.latent is not None
    assert classifier.config.latent_scale == model.first_stage.scale != (1.0,)
    assert (classifier.config.network.image_size, classifier.config.network.in_channels) == (4, 2)
    assert classifier.classes == CLASSES


def test_of_the_first_stage_alone_the_same_data_give_the_same_scale(tmp_path: Path, place: Path) -> None:
    settings = config(tmp_path, place / "stage.safetensors", steps=1, sample_every=0)
    other = load_noisy_classifier(run(tmp_path / "run", settings))
    assert other.config.latent == load_model(place / "model").config.latent
    per_channel = config(tmp_path, place / "stage.safetensors", latents={"scale": "channel"}, steps=1)
    found = load_noisy_classifier(run(tmp_path / "other", per_channel))
    assert len(found.config.latent_scale) == 2 and found.config.latent != other.config.latent


def test_the_side_of_the_latents_decides_that_of_the_pictures(place: Path) -> None:
    settings = config(place, place / "model", noisy_classifier={"network": {"image_size": 2}})
    settings, _ = open_first_stage(settings, torch.device("cpu"))
    assert data_config(settings).size == 4
    with pytest.raises(ValueError, match="image_size=2 are latents of 4 pixels, and data.size=8"):
        data_config(replace(settings, data=replace(settings.data, size=8)))


@pytest.mark.parametrize("kind", ["kl", "vq"])
def test_the_loss_is_the_cross_entropy_of_the_noised_latents(tmp_path: Path, kind: str) -> None:
    stage = save_stage(tmp_path / "stage.safetensors", kind)
    made = job(config(tmp_path, stage, timesteps={"name": "uniform"}), flip=True)
    torch.nn.init.normal_(made.model.network.out[2].c_proj.weight)
    batch = made.draw(0, range(24))
    assert batch.pixels is None and batch.latents is not None
    pictures = made.dataset.batch(0, np.arange(24))
    assert torch.equal(pictures.label, batch.label)
    latents = made.source.stage.encode(to_images(pictures.pixels))
    drawn = (batch.latents - latents).abs().mean()
    assert drawn > 0.1 if kind == "kl" else drawn < 2e-3  # a KL stage's Gaussian is drawn from
    i = (batch.u * 100).long()
    alpha_bar = made.model.schedule.alpha_bar[i][:, None, None, None]
    x = alpha_bar.sqrt() * batch.latents.double() + (1 - alpha_bar).sqrt() * batch.eps.double()
    expected = F.cross_entropy(made.network(x.float(), i.float()), batch.label, reduction="none")
    torch.testing.assert_close(made.losses(made.network, batch).loss, expected, rtol=1e-4, atol=1e-5)


def test_training_and_validation_touch_no_pixels(tmp_path: Path, place: Path, monkeypatch: Any) -> None:
    settings = config(tmp_path, place / "model", sample_every=0, steps=2)
    run(tmp_path / "first", settings)

    def touched(*_: object) -> None:
        raise AssertionError("a picture was read")

    monkeypatch.setattr(Squares, "drawn", touched)
    run(tmp_path / "second", settings)


def test_validation_sees_the_latents_of_pictures_held_out(tmp_path: Path, monkeypatch: Any) -> None:
    made = job(config(tmp_path, save_stage(tmp_path / "stage.safetensors")))
    torch.nn.init.normal_(made.model.network.out[2].c_proj.weight)
    seen: list[torch.Tensor] = []
    network, validation = made.model.network, made.validation
    hook = network.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    whole = validation.measure(network, lambda: None)
    hook.remove()
    assert {validation.dataset.name_of(k) for k in range(60)}.isdisjoint(
        made.dataset.name_of(k) for k in range(180)
    )
    # The last picture by hand: encoded, its Gaussian drawn from, scaled, noised.
    k = 59
    pixels = validation.dataset.take(validation._places[k : k + 1]).pixels
    z = unit_normal(0, "validated latents", k, shape=torch.Size((2, 4, 4)))[None]
    x0 = made.source.stage.encode(to_images(pixels), z)
    eps = unit_normal(0, "validation", k, shape=torch.Size((2, 4, 4)))[None]
    at = made.model.schedule.at(torch.tensor([k * 100 // 60]), x0)
    torch.testing.assert_close(torch.cat(seen)[k : k + 1], add_noise(x0, eps, at), rtol=2e-3, atol=2e-3)
    monkeypatch.setattr(noisy_validation, "_BLOCK", 7)
    parted = made.validation.measure(network, lambda: None)
    assert parted["all"].loss == pytest.approx(whole["all"].loss, rel=1e-4)


def test_pictures_of_another_source_are_validated_on_as_latents(tmp_path: Path, place: Path) -> None:
    other = sides().take(np.arange(12))
    np.savez(tmp_path / "v.npz", arr_0=other.pixels.numpy(), arr_1=np.array(["white", "grey", "black"] * 4))
    source = {"validation": str(tmp_path / "v.npz")}
    made = job(config(tmp_path, place / "model", noisy_classifier=source, data={"channels": 1, "size": 8}))
    assert len(made.dataset) == 240 and len(made.validation.dataset) == 12
    assert made.validation.measure(made.network, lambda: None)["all"].pictures == 12


def test_without_a_cache_pictures_are_encoded_as_they_come_which_random_crops_need(
    tmp_path: Path, place: Path
) -> None:
    with pytest.raises(ValueError, match="crop=random .* no cache of latents can hold.*latents.cache=false"):
        run(tmp_path / "no", config(tmp_path, place / "model", data={"crop": "random"}), crop="random")
    settings = config(tmp_path, place / "model", latents={"cache": False}, steps=2)
    run(tmp_path / "run", replace(settings, data=replace(settings.data, crop="random")), crop="random")
    assert not (tmp_path / "cache").exists()
    model = load_model(place / "model")
    assert load_noisy_classifier(tmp_path / "run").config.latent == model.config.latent


def test_a_run_does_not_continue_with_other_latents(tmp_path: Path, place: Path) -> None:
    settings = config(tmp_path, place / "model", steps=2, sample_every=0)
    run(tmp_path / "run", settings)
    run(tmp_path / "run", replace(settings, first_stage=str(place / "stage.safetensors")))  # the same ones
    other = save_stage(tmp_path / "other.safetensors", seed=1)
    with pytest.raises(ValueError, match=r"other settings: noisy_classifier\.latent\.first_stage"):
        run(tmp_path / "run", replace(settings, first_stage=str(other)))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"noisy_classifier": {"network": {"channel_mult": [1, 1, 1, 1]}}}, "become latents of 4: a side"),
        ({"noisy_classifier": {"network": {"in_channels": 3}}}, "in_channels=3 does not fit the data"),
        ({"noisy_classifier": {"network": {"image_size": 2}}}, "image_size=2 does not fit the data"),
        ({"first_stage": "nowhere.safetensors"}, "does not exist"),
        ({"first_stage": "CLASSIFIER"}, "not a first stage"),
        ({"first_stage": "PIXELS"}, "is a model of pixels, which has none"),
        ({"first_stage": "", "noisy_classifier": {"latent": LATENT}}, "latent is set and no first_stage"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, place: Path, changes: Any, words: str) -> None:
    named = changes.get("first_stage", "MODEL")
    if named == "PIXELS":
        train(tiny_config(steps=1), tmp_path / "pixels", dataset=sides())
    places = {"MODEL": place / "model", "CLASSIFIER": place / "classifier", "PIXELS": tmp_path / "pixels"}
    settings = config(tmp_path, "", **{**changes, "first_stage": str(places.get(named, named))})
    with pytest.raises(ValueError, match=words):
        run(tmp_path / "run", settings)


def test_the_recipe_fits_the_model_beside_it() -> None:
    guided, classifier = load_preset("latent-64").config, load_preset("latent-classifier-64").config
    assert classifier.noisy_classifier is not None
    assert to_dict(classifier.noisy_classifier.schedule) == to_dict(guided.model.schedule)
    assert classifier.data.size == guided.model.image_size


@pytest.fixture
def unnoise(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run the program in this process -> (exit status, stdout, stderr)."""

    def call(*args: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["unnoise", *map(str, args)])
        code: Any = 0
        try:
            main()
        except SystemExit as stop:
            code = stop.code or 0
        return code, *capsys.readouterr()

    return call


def test_from_data_to_guided_pictures_by_command(
    unnoise: Any, tmp_path: Path, place: Path, monkeypatch: Any
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    data = sides().take(np.arange(240))
    names = np.array([CLASSES[k] for k in data.label.tolist()])
    np.savez(tmp_path / "shades.npz", arr_0=data.pixels.numpy(), arr_1=names)
    sets = [
        *("data.size=8", "noisy_classifier.network.width=16", "noisy_classifier.schedule.steps=100"),
        *("noisy_classifier.network.head_channels=16", "sample_every=0", "noisy_classifier.held_out=0.2"),
    ]
    code, _, said = unnoise(
        "train", "latent-classifier-64", "--data", tmp_path / "shades.npz", "--first-stage", place / "model",
        "--out", tmp_path / "guide", "--steps", 3, "--batch-size", 16, "--device", "cpu", "--compile", "off",
        *(part for each in sets for part in ("--set", each)),
    )  # fmt: skip
    assert code == 0, said
    assert "latents: 2x4x4, scaled by" in said
    guided = ("--classifier", tmp_path / "guide", "--scale", 9, "--steps", 4, "--precision", "float32")
    code, _, said = unnoise("sample", place / "model", "-n", 3, *guided, "--out", tmp_path / "drawn")
    assert code == 0, said
    code, _, said = unnoise(
        "edit", "vary", place / "model", tmp_path / "drawn" / "000001.png", "--strength", 0.5, "-n", 2,
        "--label", "white", *guided, "--out", tmp_path / "varied",
    )  # fmt: skip
    assert code == 0, said
    code, out, said = unnoise("sample", place / "classifier", "-n", 1, "--out", tmp_path / "no")
    assert code == 2 and out == "" and "it cannot draw, only guide a model" in said
