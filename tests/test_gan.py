"""GANs as models: their file, one request one picture, truncation, what means nothing to them."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

import unnoise
from tests.cli.test_app import refused
from tests.models import NAMES, tiny_model
from unnoise import gan
from unnoise.config.requests import GenerateRequest
from unnoise.drawing import load
from unnoise.gan import GanModel, build_gan, load_gan, measured_standing, save_gan, truncated
from unnoise.generate import generate, sample
from unnoise.job import Job, run_job
from unnoise.model import load_model, save_model
from unnoise.modelfile import ModelInfo
from unnoise.networks.gan_settings import GeneratorSettings
from unnoise.planning import plan


def tiny_gan_model(*, classes=NAMES, channels=1, size=8, seed=0) -> GanModel:
    settings = GeneratorSettings(
        image_size=size, out_channels=channels, classes=len(classes) or None, width=16, channel_mult=(1, 2),
        chunk=4, class_width=8,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build_gan(settings, ModelInfo(classes=tuple(classes)))
        # As training leaves it: without, the first norm would undo any truncation of the first chunk.
        torch.nn.init.normal_(model.network.linear.bias)
    model.network.eval().requires_grad_(False)
    model.network.load_state_dict({**model.network.state_dict(), **measured_standing(model.network)})
    return model


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Standing statistics of few batches."""
    monkeypatch.setattr(gan, "STANDING_BATCHES", 4)


def pixels(model: GanModel, **options) -> torch.Tensor:
    return sample(model, **{"precision": "float32", **options}).pixels


def test_a_file_holds_all_that_drawing_needs(tmp_path: Path) -> None:
    model = tiny_gan_model()
    path = tmp_path / "model.safetensors"
    save_gan(path, model)
    found = unnoise.load(path)
    assert isinstance(found, GanModel) and found.settings == model.settings and found.classes == NAMES
    assert torch.equal(pixels(found, n=7, seed=3), pixels(model, n=7, seed=3))
    with safe_open(path, "pt") as file:
        assert json.loads(file.metadata()["unnoise"])["kind"] == "gan"
    assert load_gan(tmp_path).info.version == unnoise.__version__
    save_gan(path, found)
    again, state = load_gan(path).network.state_dict(), model.network.state_dict()
    assert again.keys() == state.keys() and all(torch.equal(again[key], state[key]) for key in state)


def test_a_picture_depends_on_its_seed_and_index_alone() -> None:
    model = tiny_gan_model()
    whole = pixels(model, n=9, seed=4, truncation=0.7)
    alone = pixels(model, n=1, first=5, seed=4, truncation=0.7, labels=[0], batch_size=3)
    assert (whole[5:6].int() - alone.int()).abs().max() <= 1
    assert not torch.equal(whole, pixels(model, n=9, seed=5, truncation=0.7))
    exact = [pixels(model, n=9, seed=4, exact=True, batch_size=b) for b in (1, 9)]
    assert torch.equal(*exact)


def test_classes_are_drawn_in_turn_or_as_asked() -> None:
    model = tiny_gan_model()
    assert sample(model, n=6).names == (*NAMES, NAMES[0])
    found = sample(model, n=4, labels=["sneaker", "0"])
    assert found.labels.tolist() == [3, 0, 3, 0]
    assert torch.equal(found.pixels, sample(model, n=4, labels=[NAMES[3], NAMES[0]]).pixels)
    nameless = GanModel(model.network, ModelInfo())
    assert plan(nameless, GenerateRequest(n=2, labels=("4",))).labels == (4,)
    with pytest.raises(ValueError, match="class 'boat' is unknown"):
        sample(model, labels="boat")
    free = tiny_gan_model(classes=())
    assert sample(free, n=2).labels is None
    with pytest.raises(ValueError, match="label '1': this GAN is unconditional"):
        sample(free, labels="1")


def test_truncated_numbers_are_those_of_resampling() -> None:
    """Against the moments of the normal distribution cut at t: var = 1 - 2 t phi(t) / (2 Phi(t) - 1)."""
    z = torch.randn(200_000, generator=torch.Generator().manual_seed(0))
    assert truncated(z, None) is z
    for most in (0.1, 0.5, 1.0, 2.0, 6.0):
        t = torch.tensor(most, dtype=torch.float64)
        density = torch.exp(-(t**2) / 2) / (2 * torch.pi) ** 0.5
        wanted = 1 - 2 * t * density / torch.erf(t / 2**0.5)
        found = truncated(z, most)
        assert found.abs().max() <= most and found.dtype == z.dtype
        assert found.double().var().item() == pytest.approx(wanted.item(), rel=0.02)
        assert torch.equal(found.argsort(), z.argsort()) or torch.allclose(
            found[z.argsort()], found.sort().values
        )
    kept = z[z.abs() <= 1]
    quantiles = torch.linspace(0.05, 0.95, 19)
    assert torch.allclose(truncated(z, 1.0).quantile(quantiles), kept.quantile(quantiles), atol=0.01)
    assert torch.allclose(truncated(z, 6.0), z.clamp(-6, 6), atol=1e-4)
    # Far out in the tail, where erf is 1 in float32.
    assert truncated(torch.tensor([-9.0, 9.0]), 3.0).tolist() == pytest.approx([-3.0, 3.0], abs=1e-6)


def test_truncation_moves_pictures_smoothly_and_makes_them_alike() -> None:
    model = tiny_gan_model()
    grid = [0.02, 0.25, 0.5, 0.52, 1.0, 2.0, None]
    drawn = {t: pixels(model, n=60, labels=["0"], truncation=t).float() for t in grid}
    spread = [drawn[t].var(0).mean().item() for t in grid]
    assert spread[0] < spread[1] < spread[2] < spread[4] < spread[5] < spread[6] * 1.05
    assert (drawn[0.5] - drawn[0.52]).abs().mean() < 0.3 * (drawn[0.5] - drawn[1.0]).abs().mean()


def test_standing_statistics_are_of_the_truncation_and_measured_once(monkeypatch) -> None:
    model, calls = tiny_gan_model(), []
    original = gan.measured_standing
    monkeypatch.setattr(
        gan, "measured_standing", lambda network, t=None: (calls.append(t), original(network, t))[1]
    )
    for truncation in (0.5, None, 0.5, 1.0):
        for _ in range(2):
            list(generate(model, GenerateRequest(n=2, truncation=truncation)))
    assert calls == [0.5, 1.0]
    own, cut = model.network.state_dict(), model.generator(0.5).state_dict()
    assert all(torch.equal(own[key], cut[key]) == (not key.endswith((".mean", ".var"))) for key in own)
    again = original(tiny_gan_model().network, 0.5)
    assert all(torch.equal(cut[key], value) for key, value in again.items())
    # Of z as large as it is drawn: what leaves the first norm has mean 0 and variance 1.
    norm = model.generator(0.5).levels[0][0].norm1.norm
    z = truncated(torch.randn(4000, model.settings.latent), 0.5)
    x = model.network.linear(z[:, : model.settings.chunk]).unflatten(1, (-1, 4, 4))
    assert norm(x).mean().abs() < 0.05 and norm(x).var() == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize(
    "options, said",
    [
        ({"steps": "10"}, "steps=10 means nothing to a GAN, which draws in one step; leave it out"),
        ({"guidance": 2.0}, "guidance=2.0 means nothing to a GAN"),
        ({"sampler": "heun"}, "sampler=heun means nothing to a GAN"),
        ({"eta": 0.5}, "eta=0.5 means nothing to a GAN"),
        ({"prompts": ["a"]}, "prompts=.'a'. means nothing to a GAN"),
        ({"height": 16}, "height=16 means nothing to a GAN"),
        ({"clip": "dynamic"}, "clip=dynamic means nothing to a GAN"),
        ({"truncation": 0.0}, "truncation=0 leaves no z; use more than 0, or leave it out"),
        ({"truncation": -1.0}, "truncation=-1 leaves no z"),
        ({"n": 0}, "n=0 is too small; use 1 or more"),
    ],
)
def test_options_that_mean_nothing_are_refused(options, said) -> None:
    with pytest.raises(ValueError, match=said):
        sample(tiny_gan_model(), **options)


def test_truncation_means_nothing_to_a_diffusion_model() -> None:
    with pytest.raises(ValueError, match="truncation=0.5 is for GANs"):
        sample(tiny_model(), n=1, truncation=0.5, steps="2")


def test_what_works_step_by_step_refuses_a_gan(tmp_path: Path) -> None:
    save_gan(tmp_path / "model.safetensors", tiny_gan_model())
    with pytest.raises(ValueError, match="is a GAN, which draws in one step"):
        load_model(tmp_path)
    save_model(tmp_path / "other.safetensors", tiny_model())
    assert load(tmp_path / "other.safetensors").denoiser
    with pytest.raises(ValueError, match="is a diffusion model, not a GAN"):
        load_gan(tmp_path / "other.safetensors")
    told = refused("convert", str(tmp_path), str(tmp_path / "c"), "--to", "diffusers")
    assert "is a GAN, which draws in one step" in told


def test_jobs_write_pictures_that_say_how_they_were_drawn(tmp_path: Path) -> None:
    model = tiny_gan_model()
    ready = plan(model, GenerateRequest(n=5, truncation=0.5, precision="float32"))
    for name in ("one", "two"):
        run_job(ready, Job(out=tmp_path / name, weights="w"))
    files = sorted((tmp_path / "one").glob("0*.png"))
    assert len(files) == 5 and (tmp_path / "one" / "grid.png").exists()
    assert json.loads((tmp_path / "one" / "request.json").read_text())["truncation"] == 0.5
    files[2].unlink()
    run_job(ready, Job(out=tmp_path / "one", weights="w"))
    assert files[2].read_bytes() == (tmp_path / "two" / files[2].name).read_bytes()
    other = replace(ready, request=replace(ready.request, truncation=1.0))
    with pytest.raises(ValueError, match="holds another request .truncation: 0.5 there, 1.0 now"):
        run_job(other, Job(out=tmp_path / "one", weights="w"))
    with pytest.raises(ValueError, match="frames: a GAN draws in one step"):
        run_job(ready, Job(out=tmp_path / "film", weights="w", frames=True))
    assert not (tmp_path / "film").exists()
    npz = run_job(ready, Job(out=tmp_path / "npz", weights="w", npz=True))
    assert np.load(npz)["arr_0"].shape == (5, 8, 8, 1)
