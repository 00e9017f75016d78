"""First stages as files, the scale of their latents, and pictures in tiles."""

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.models import tiny_classifier
from tests.networks.first_stages import TINY_KL, TINY_VQ
from unnoise.config.schema import AutoencoderConfig
from unnoise.first_stage import (
    LatentStatistics,
    load_first_stage,
    make_first_stage,
    measure_latents,
    save_first_stage,
)
from unnoise.model import load_model
from unnoise.modelfile import ModelInfo
from unnoise.noisy_classifier import load_noisy_classifier, save_noisy_classifier

BOTH = pytest.mark.parametrize("settings", [TINY_KL, TINY_VQ], ids=["kl", "vq"])
SCRIPT = Path(__file__).parent.parent / "scripts" / "decoding_memory.py"


def fresh(settings, seed=0):
    torch.manual_seed(seed)
    return make_first_stage(AutoencoderConfig(network=settings, image_size=16), ModelInfo(step=7, preset="x"))


@BOTH
def test_files_hold_all_that_is_needed(settings, tmp_path):
    stage = fresh(settings)
    images = torch.rand(3, 3, 16, 16) * 2 - 1
    stage = stage.scaled(measure_latents([stage.encode(images)]), per_channel=True)
    save_first_stage(tmp_path / "model.safetensors", stage)
    for place in (tmp_path, tmp_path / "model.safetensors"):
        again = load_first_stage(place)
        assert again.config == stage.config and again.scale == stage.scale
        assert again.statistics == stage.statistics and again.hash == stage.hash
        assert again.info.step == 7 and again.info.version
        latents = stage.encode(images)
        assert torch.equal(again.encode(images), latents)
        assert torch.equal(again.decode(latents), stage.decode(latents))


@BOTH
def test_scaled_latents_have_deviation_one(settings):
    stage = fresh(settings)
    images = torch.rand(8, 3, 16, 16) * 2 - 1
    raw = stage.encode(images)
    statistics = measure_latents(raw.split(3))
    whole = stage.scaled(statistics).encode(images)
    assert (whole - whole.mean()).square().mean().sqrt() == pytest.approx(1, rel=1e-5)
    each = stage.scaled(statistics, per_channel=True)
    assert torch.allclose(each.encode(images).std((0, 2, 3), correction=0), torch.ones(3), rtol=1e-5)
    assert torch.allclose(each.decode(each.encode(images)), stage.decode(raw), atol=1e-5)


def test_statistics_are_those_of_the_whole_in_any_batches():
    values = (
        torch.randn(12, 3, 4, 5, dtype=torch.float64) * torch.tensor([1, 20, 300]).view(1, 3, 1, 1) + 1000
    )
    rows = values.transpose(0, 1).flatten(1)
    for sizes in (12, 5, 1):
        found = measure_latents(values.split(sizes))
        assert found.count == 12 * 20
        assert found.mean == pytest.approx(rows.mean(1).tolist(), rel=1e-12)
        assert found.std == pytest.approx(rows.std(1, correction=0).tolist(), rel=1e-10)
    assert found.scale[0] == pytest.approx(1 / values.std(correction=0).item(), rel=1e-10)


def test_nothing_to_measure_is_refused():
    with pytest.raises(ValueError, match="give at least one batch"):
        measure_latents([])
    with pytest.raises(ValueError, match="all the same"):
        assert measure_latents([torch.ones(2, 3, 4, 4)]).scale


def test_noise_draws_latents_of_the_gaussian():
    stage = dataclasses.replace(fresh(TINY_KL), scale=(2.0,))
    images = torch.rand(2, 3, 16, 16)
    posterior = stage.posterior(images)
    z = torch.randn(2, 3, 4, 4)
    assert torch.allclose(stage.encode(images, z), 2 * (posterior.mean + posterior.std * z))
    assert torch.allclose(stage.encode(images), 2 * posterior.mean)
    with pytest.raises(ValueError, match="codebook has no Gaussian"):
        fresh(TINY_VQ).encode(images, z)


@pytest.mark.parametrize("scale", [(), (1.0, 2.0), (0.0,), (float("inf"),), (-1.0, 1.0, 1.0)])
def test_scales_that_fit_no_latents_are_refused(scale):
    with pytest.raises(ValueError, match="does not fit latents of 3 channels"):
        dataclasses.replace(fresh(TINY_KL), scale=scale)


def test_the_hash_tells_first_stages_apart():
    stage, statistics = fresh(TINY_KL), LatentStatistics(count=1, mean=(0, 0, 0), std=(2, 2, 2))
    others = [fresh(TINY_KL, seed=1), fresh(TINY_VQ), stage.scaled(statistics)]
    assert len({stage.hash, *(other.hash for other in others)}) == 4
    assert fresh(TINY_KL).hash == stage.hash


@BOTH
def test_tiles_blend_to_nearly_the_whole(settings):
    stage = fresh(settings)
    images = torch.randn(1, 3, 6, 8).clamp(-1, 1)
    images = torch.nn.functional.interpolate(images, (48, 64), mode="bicubic")
    latents, tiled = stage.encode(images), stage.encode_tiled(images, tile=8, overlap=4)
    assert tiled.shape == latents.shape
    assert (tiled - latents).std() < 0.5 * latents.std()
    whole = stage.decode(latents)
    for overlap in (0, 4, None):
        assert stage.decode_tiled(latents, tile=8, overlap=overlap).shape == whole.shape
    assert torch.equal(stage.decode_tiled(latents, tile=64), stage.decode_tiled(latents))
    assert torch.allclose(stage.decode_tiled(latents), whole, atol=1e-5)  # one tile is the whole
    with pytest.raises(ValueError, match="tiles of 8 positions cannot share 8; use 0..7"):
        stage.decode_tiled(latents, tile=8, overlap=8)


def test_other_files_are_refused_both_ways(tmp_path):
    stage = fresh(TINY_KL)
    save_first_stage(tmp_path / "stage.safetensors", stage)
    with pytest.raises(ValueError, match="first stage.*cannot draw"):
        load_model(tmp_path / "stage.safetensors")
    save_noisy_classifier(tmp_path / "other.safetensors", tiny_classifier())
    with pytest.raises(ValueError, match="is a noisy classifier, not a first stage"):
        load_first_stage(tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="is an autoencoder, not a classifier of noisy.*noisy-classifier-28"):
        load_noisy_classifier(tmp_path / "stage.safetensors")


@pytest.mark.slow
def test_tiles_bound_the_memory_of_large_pictures():
    """The full-size decoder of kl-f4 on 256x256 pixels; docs/first-stages.md has the figures of 1024x1024."""
    command = [sys.executable, SCRIPT, "--preset=kl-f4", "--side=256", "--tile=16"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    peak, before = map(float, re.findall(r"([\d.]+) GB", done.stdout))
    assert peak - before < 0.25, done.stdout
