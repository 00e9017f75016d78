"""A latent model: its pictures encoded once, its scale measured, its file complete, misfits refused."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.train.tiny import assert_same_run, tiny_config, tiny_data, tiny_run
from unnoise.config.requests import GenerateRequest, LikelihoodRequest
from unnoise.config.schema import AutoencoderConfig, TrainConfig
from unnoise.data.dataset import Squares
from unnoise.diffusion.noise import seeded_generator
from unnoise.first_stage import FirstStage, load_first_stage, make_first_stage, save_first_stage
from unnoise.generate import generate, sample
from unnoise.images import to_images, to_pixels
from unnoise.metrics.likelihood import likelihood
from unnoise.model import load_model
from unnoise.networks.first_stage_settings import KlSettings, VqSettings
from unnoise.planning import plan
from unnoise.presets import load_preset, preset_names
from unnoise.train import estimate, kept
from unnoise.train.latents import cached_latents

SMALL = {"variance": "fixed_small"}
LATENT = {"channels": 2, "factor": 2, "first_stage": "a"}
KINDS = {"kl": KlSettings, "vq": VqSettings}


def stage_of(kind: str, seed: int = 0, channels: int = 1) -> FirstStage:
    settings = KINDS[kind](in_channels=channels, width=32, depth=1, channel_mult=(1, 1), latent_channels=2)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        stage = make_first_stage(AutoencoderConfig(network=settings, image_size=8))
    stage.network.eval().requires_grad_(False)
    return stage


@pytest.fixture(params=KINDS)
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / f"{request.param}.safetensors"
    save_first_stage(path, stage_of(request.param))
    return path


def latent_config(tmp_path: Path, file: Path, **changes: object) -> TrainConfig:
    model = {"network": {"dropout": 0.0}, "variance": "fixed_small"}
    settings = {
        "first_stage": str(file), "model": model, "objective": {"name": "simple"}, "steps": 4,
        "data": {"cache": str(tmp_path / "cache")},
    }  # fmt: skip
    return tiny_config(**{**settings, **changes})


def cached(tmp_path: Path, kind: str = "kl", **options: object):
    return cached_latents(tiny_data(), stage_of(kind), str(tmp_path / "cache"), lambda *_: None, **options)


@pytest.mark.parametrize("kind", KINDS)
def test_the_cache_holds_what_the_encoder_says_of_pictures_and_their_mirror_images(tmp_path, kind):
    data, stage = tiny_data(), stage_of(kind)
    found = cached(tmp_path, kind)
    images = to_images(data.take(np.arange(24)).pixels)
    for view, seen in enumerate((images, images.flip(3))):
        expected = stage.network.encode(seen)
        torch.testing.assert_close(
            torch.tensor(found.moments[:, view]).float(), expected, rtol=1e-3, atol=1e-3
        )
    # At a place of the sequence lie the latents of the picture that training sees there, mirrored as it is.
    places = np.arange(40)
    z = torch.randn(40, 2, 4, 4, generator=seeded_generator(0, "z"))
    seen = to_images(data.batch(0, places).pixels)
    expected = stage.encode(seen, z) if kind == "kl" else stage.encode(seen)
    torch.testing.assert_close(found.batch(places, z), expected, rtol=2e-3, atol=2e-3)
    assert torch.equal(data.labels_at(places), data.batch(0, places).label)


def test_an_interrupted_encoding_continues_where_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr("unnoise.train.kept.BLOCK", 4)
    monkeypatch.setattr("unnoise.train.kept.SAVED_EVERY", 2)
    seen = []

    def stop(done: int, total: int) -> None:
        seen.append(done)
        if done == 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached_latents(tiny_data(), stage_of("kl"), str(tmp_path / "a"), stop)
    again = cached_latents(
        tiny_data(), stage_of("kl"), str(tmp_path / "a"), lambda done, _: seen.append(done)
    )
    assert seen == [4, 8, 12, 16, 20, 20, 24]  # what was noted at 16 is not encoded anew
    whole = cached_latents(tiny_data(), stage_of("kl"), str(tmp_path / "b"), lambda *_: None)
    assert np.array_equal(again.moments, whole.moments)
    assert [path.suffix for path in (tmp_path / "a" / "latents").iterdir() if path.suffix != ".lock"] == [
        ".npy"
    ]


def test_latents_of_another_first_stage_or_other_data_are_never_taken(tmp_path):
    first = cached(tmp_path)
    other = cached_latents(tiny_data(), stage_of("kl", seed=1), str(tmp_path / "cache"), lambda *_: None)
    assert not np.array_equal(first.moments, other.moments)
    moved = cached_latents(tiny_data(shift=9), stage_of("kl"), str(tmp_path / "cache"), lambda *_: None)
    assert not np.array_equal(first.moments, moved.moments)
    assert len(list((tmp_path / "cache" / "latents").glob("*.npy"))) == 3


@pytest.mark.parametrize("scale", ["model", "channel"])
def test_scaled_latents_have_deviation_one(tmp_path, file, scale):
    tiny_run(tmp_path / "run", latent_config(tmp_path, file, latents={"scale": scale}))
    model = load_model(tmp_path / "run")
    latents = model.encode(to_images(tiny_data().take(np.arange(24)).pixels))
    axes = (0, 2, 3) if scale == "channel" else (0, 1, 2, 3)
    assert len(model.first_stage.scale) == (2 if scale == "channel" else 1)
    torch.testing.assert_close(latents.std(axes), torch.ones_like(latents.std(axes)), rtol=0.01, atol=0)
    assert model.first_stage.statistics.count == 24 * 4 * 4


def test_the_first_stages_own_scale_may_be_kept(tmp_path):
    file = tmp_path / "scaled.safetensors"
    save_first_stage(file, replace(stage_of("kl"), scale=(0.25,)))
    tiny_run(tmp_path / "run", latent_config(tmp_path, file, latents={"scale": "keep"}))
    assert load_model(tmp_path / "run").first_stage.scale == (0.25,)


def test_one_file_draws_and_training_from_the_cache_touches_no_pixels(tmp_path, file, monkeypatch):
    config = latent_config(tmp_path, file)
    tiny_run(tmp_path / "run", config)

    def touched(*_: object) -> None:
        raise AssertionError("a picture was read")

    with monkeypatch.context() as patch:
        patch.setattr(Squares, "drawn", touched)
        patch.setattr(Squares, "center", touched)
        tiny_run(tmp_path / "again", config)
    assert_same_run(tmp_path / "run", tmp_path / "again")
    stage = load_first_stage(file)
    file.unlink()
    shutil.rmtree(tmp_path / "cache")
    model = load_model(tmp_path / "run")
    assert model.config.shape == (2, 4, 4) and model.config.latent.factor == 2
    assert model.first_stage.hash == model.config.latent.first_stage
    for key, value in stage.network.state_dict().items():
        assert torch.equal(model.first_stage.network.state_dict()[key], value)
    drawn = sample(model, n=3, steps="4", labels="b", guidance=2.0)
    assert drawn.pixels.shape == (3, 8, 8, 1) and drawn.names == ("b",) * 3
    # What is drawn is the decoder's picture of the last latents, which no clip has touched.
    request, last = GenerateRequest(n=1, steps="4"), []
    ready = plan(model, request)
    (batch,) = generate(
        model, GenerateRequest(n=1, steps="4"), on_step=lambda progress: last.append(progress.x)
    )
    assert ready.shape == (2, 4, 4) and ready.picture == (1, 8, 8) and last[-1].shape == (1, 2, 4, 4)
    assert torch.equal(batch.pixels, to_pixels(model.first_stage.decode(last[-1])))


def test_encoding_at_every_step_learns_the_same_latents(tmp_path):
    """A codebook's latents have no noise of their own, so that the two ways see the same, but for float16."""
    file = tmp_path / "vq.safetensors"
    save_first_stage(file, stage_of("vq"))
    for name, cache in (("cached", True), ("not", False)):
        tiny_run(tmp_path / name, latent_config(tmp_path, file, latents={"cache": cache}))
    a, b = (load_model(tmp_path / name).network.state_dict() for name in ("cached", "not"))
    assert all(torch.allclose(a[key], b[key], atol=5e-3) for key in a)
    assert not all(torch.equal(a[key], b[key]) for key in a)


def test_a_run_does_not_continue_with_another_first_stage(tmp_path):
    file = tmp_path / "kl.safetensors"
    save_first_stage(file, stage_of("kl"))
    config = latent_config(tmp_path, file)
    tiny_run(tmp_path / "run", config)
    moved = tmp_path / "moved.safetensors"
    file.rename(moved)
    tiny_run(tmp_path / "run", replace(config, first_stage=str(moved)))  # the same one lies elsewhere
    save_first_stage(file, stage_of("kl", seed=1))
    with pytest.raises(ValueError, match=r"other settings: model\.latent\.first_stage"):
        tiny_run(tmp_path / "run", config)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"objective": {"name": "hybrid"}}, "latents have none"),
        ({"data": {"crop": "random"}}, "latents.cache=false"),
        ({"model": {**SMALL, "low_res": 4}}, "what=low_res"),
        ({"model": {**SMALL, "network": {"channel_mult": [1, 1, 1, 1]}}}, "become latents of 4: a side"),
        ({"model": {**SMALL, "channels": 3}}, "pictures of 1 channels"),
        ({"model": {**SMALL, "network": {"width": 16, "attention": [1], "head_channels": 7}}}, "divisor"),
        ({"first_stage": "nowhere.safetensors"}, "does not exist"),
        ({"first_stage": "", "model": {**SMALL, "latent": LATENT}}, "no first_stage is named"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(tmp_path, changes, words):
    file = tmp_path / "kl.safetensors"
    save_first_stage(file, stage_of("kl"))
    config = latent_config(tmp_path, file, **changes)
    data = replace(tiny_data(), crop=config.data.crop)
    with pytest.raises(ValueError, match=words):
        tiny_run(tmp_path / "run", config, dataset=data)
    assert not (tmp_path / "cache").exists()  # before anything is encoded, which takes minutes elsewhere


OF_LATENTS = [name for name in preset_names() if load_preset(name).config.latents.required]


@pytest.mark.parametrize("name", OF_LATENTS)
def test_recipes_of_latents_do_not_fall_back_on_pixels(tmp_path, name):
    with pytest.raises(ValueError, match="no first stage is named"):
        tiny_run(tmp_path / "run", load_preset(name).config)


def test_encoding_takes_nothing_of_the_minutes(tmp_path, file, monkeypatch):
    """The clock stands still but while pictures are encoded, for an hour each time."""

    class Clock:
        now = 0.0

        def perf_counter(self) -> float:
            return self.now

    clock, planned, make, within = Clock(), [], kept._make, estimate.steps_within

    def hourly(*given: object) -> None:
        clock.now += 3600
        make(*given)

    def steps_within(seconds: float, *given: object, **named: object) -> int:
        planned.append((seconds, clock.now))
        return within(seconds, *given, **named)

    monkeypatch.setattr("unnoise.train.start.time", clock)
    monkeypatch.setattr(kept, "_make", hourly)
    monkeypatch.setattr(estimate, "steps_within", steps_within)
    tiny_run(tmp_path / "run", latent_config(tmp_path, file, minutes=0.005))
    assert planned == [(pytest.approx(0.3), 3600.0)]


def test_a_damaged_cache_is_refused_by_name(tmp_path):
    cached(tmp_path)
    (path,) = (tmp_path / "cache" / "latents").glob("*.npy")
    np.save(path, np.zeros((3, 2), np.float16))
    with pytest.raises(ValueError, match=f"{path.name} holds other latents"):
        cached(tmp_path)


def test_what_only_models_of_pixels_can_is_refused(tmp_path, file):
    tiny_run(tmp_path / "run", latent_config(tmp_path, file))
    model = load_model(tmp_path / "run")
    for clip in ("static", "dynamic"):
        with pytest.raises(ValueError, match=f"clip={clip} confines pictures"):
            sample(model, n=1, steps="2", clip=clip)
    with pytest.raises(ValueError, match="draws latents"):
        likelihood(model, tiny_data(), LikelihoodRequest(n=1))
