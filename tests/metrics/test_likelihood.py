"""Bits per dimension of a model on pictures: the bound of diffusion/likelihood.py, no more and no less."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.cli.test_app import refused, unnoise
from tests.models import tiny_model
from unnoise.config.requests import LikelihoodRequest
from unnoise.data import DataReport, Dataset, order
from unnoise.data.dataset import Squares
from unnoise.diffusion.condition import Condition
from unnoise.diffusion.likelihood import bits_per_dim, rate_distortion
from unnoise.diffusion.noise import SeededNoise
from unnoise.diffusion.spacing import space
from unnoise.diffusion.transforms import clip_x0
from unnoise.images import to_images
from unnoise.metrics.likelihood import likelihood
from unnoise.metrics.likelihood_report import lines, page
from unnoise.model import save_model

NAMES = ("a", "b", "c")


def model(**options):
    return tiny_model(**{"classes": NAMES, "steps": 24, "width": 32} | options)


def data(count=5, *, classes=NAMES, size=8, channels=1, labelled=True):
    pixels = np.random.default_rng(3).integers(0, 256, (count, size, size, channels)).astype(np.uint8)
    return Dataset(
        store=Squares(pixels),
        size=size,
        channels=channels,
        report=DataReport(source="made up", pictures=count, size=size, channels=channels),
        content="made up",
        name_of=str,
        labels=np.arange(count) % len(classes) if labelled else None,
        classes=classes if labelled else (),
    )


def request(**options):
    return LikelihoodRequest(**{"n": 5, "batch_size": 5, "seed": 2} | options)


def directly(made, pictures, *, seed=2, keep="", label=None, clip=True):
    """The published loop on all pictures at once."""
    ids = order.indices(seed, len(pictures), 0, len(pictures))
    batch = pictures.take(ids)
    schedule = made.schedule.respaced(space(keep, made.schedule.steps))
    denoise = clip_x0(made.denoiser) if clip else made.denoiser
    label = batch.label if label is None else torch.full((len(ids),), label)
    with torch.no_grad():
        return bits_per_dim(
            denoise,
            to_images(batch.pixels),
            schedule,
            cond=Condition(label=label),
            noise=SeededNoise(seed, ids),
        )


@pytest.mark.parametrize(("steps", "keep", "clip"), [("all", "", True), ("4", "4", True), ("all", "", False)])
def test_it_is_the_published_loop_however_batched(steps, keep, clip):
    made, pictures = model(), data()
    expected = directly(made, pictures, keep=keep, clip=clip)
    for batch_size in (3, 5) if steps == "all" and clip else (3,):
        found = likelihood(made, pictures, request(steps=steps, clip=clip, batch_size=batch_size))
        torch.testing.assert_close(found.terms, expected.vlb.double().mean(0), rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(found.x0_mse, expected.x0_mse.double().mean(0), rtol=1e-4, atol=1e-6)
        assert found.total.mean == pytest.approx(expected.total.double().mean().item(), rel=1e-4)
        spread = expected.total.double().std().item() / math.sqrt(5)
        assert found.total.error == pytest.approx(spread, rel=1e-3)
    assert found.whole == (steps == "all") and len(found.timesteps) == (24 if found.whole else 4)


def test_the_parts_add_up():
    found = likelihood(model(), data(), request())
    assert found.total.mean == pytest.approx(found.prior.mean + found.terms.sum().item())
    assert found.rate + found.decoder == pytest.approx(found.total.mean)
    first, last = found.exchange[0], found.exchange[-1]
    assert first.steps == 24 and first.rate == pytest.approx(found.rate)
    assert last.steps == 2 and last.rate == pytest.approx(found.prior.mean + found.terms[23:].sum().item())
    assert [row.rate for row in found.exchange] == sorted((r.rate for r in found.exchange), reverse=True)


def test_the_table_reads_the_curve_of_the_bound():
    made, pictures = model(), data()
    rate, distortion = rate_distortion(directly(made, pictures))
    for row in likelihood(made, pictures, request()).exchange:
        assert row.rate == pytest.approx(rate[24 - row.steps].item(), rel=1e-4, abs=1e-6)
        assert row.distortion == pytest.approx(distortion[24 - row.steps].item(), rel=1e-4)


def test_classes_are_found_by_name():
    made, pictures = model(), data()
    other = replace(pictures, classes=("c", "a", "b"), labels=(pictures.labels + 1) % 3)
    assert likelihood(made, pictures, request()).total == likelihood(made, other, request()).total
    wrong = replace(pictures, labels=(pictures.labels + 1) % 3)
    assert likelihood(made, wrong, request()).total != likelihood(made, pictures, request()).total


@pytest.mark.parametrize("labelled", [True, False])
def test_without_labels_the_null_class_is_told(labelled):
    made = model()
    found = likelihood(made, data(labelled=labelled), request(labels=False))
    expected = directly(made, data(), label=made.null_label)
    assert found.total.mean == pytest.approx(expected.total.double().mean().item(), rel=1e-4)
    assert "null class" in found.conditioned


def test_an_unconditional_model_is_told_nothing():
    found = likelihood(model(classes=(), null=False), data(labelled=False), request(n=2))
    assert "unconditional" in found.conditioned


def test_one_picture_has_no_error_and_json_says_so():
    found = likelihood(model(), data(), request(n=1))
    assert math.isnan(found.total.error)
    facts = json.loads(json.dumps(found.facts(), allow_nan=False))
    assert facts["error"] is None and facts["pictures"] == 1
    assert [term["step"] for term in facts["terms"]] == list(range(24))
    assert "±" not in next(lines(found))


def test_the_models_state_is_as_it_was():
    made = model()
    made.network.train()
    made.network.compute_dtype = torch.bfloat16
    found = likelihood(made, data(), request())
    assert made.network.training and made.network.compute_dtype == torch.bfloat16
    assert found.total == likelihood(model(), data(), request()).total


def test_progress_counts_every_call():
    seen = []
    asked = request(steps="4", batch_size=2)
    likelihood(model(), data(), asked, on_step=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (20, 20) and len(seen) == 12
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})


@pytest.mark.parametrize(
    ("made", "pictures", "asked", "expected"),
    [
        ({}, {"size": 10}, {}, "10x10 grey pictures, the model knows 8x8 grey"),
        ({}, {"channels": 3}, {}, "8x8 RGB"),
        ({}, {}, {"n": 6}, "use 1..5"),
        ({}, {}, {"n": 0}, "use 1..5"),
        ({}, {}, {"batch_size": 0}, "batch_size=0"),
        ({}, {}, {"steps": "25"}, "25"),
        ({}, {}, {"steps": "many"}, "many"),
        ({}, {"classes": ("a", "hat")}, {}, "'hat'"),
        ({"null": False}, {"labelled": False}, {}, "has no labels"),
        ({"null": False}, {}, {"labels": False}, "labels are off"),
    ],
)
def test_what_does_not_fit_is_refused(made, pictures, asked, expected):
    with pytest.raises(ValueError, match=expected) as caught:
        likelihood(model(**made), data(**pictures), request(**asked))
    assert "\n" not in str(caught.value)


def test_the_page_tells_a_shorter_process_and_loads_nothing():
    found = likelihood(model(), data(), request(steps="4"))
    text = page(found, {"model": "<tiny>"})
    assert "not of the 24 that published bounds take" in text and "&lt;tiny&gt;" in text
    assert "http" not in text.replace("http://www.w3.org", "") and "<script" not in text
    assert "warning" in list(lines(found))[-1]
    assert "published bounds" not in page(likelihood(model(), data(), request()), {})


@pytest.fixture
def files(tmp_path):
    save_model(tmp_path / "m.safetensors", model())
    pixels = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 1)).astype(np.uint8)
    np.savez(tmp_path / "d.npz", arr_0=pixels, arr_1=np.array(["a", "b", "c", "a", "b"]))
    return tmp_path


def test_the_command(files):
    done = unnoise("likelihood", "m.safetensors", "d.npz", "-n", 4, "--out", "found", cwd=files)
    assert done.returncode == 0, done.stderr
    assert "bits/dim, 4 pictures, 24 of 24 steps" in done.stdout
    facts = json.loads((files / "found" / "likelihood.json").read_text())
    assert facts["bits_per_dim"] == pytest.approx(facts["prior"] + sum(t["bits"] for t in facts["terms"]))
    assert facts["protocol"]["model"].startswith("m.safetensors, SHA-256 ")
    assert (files / "found" / "likelihood.html").read_text().startswith("<!doctype html>")


def test_the_command_refuses_in_one_line(files):
    assert "use 1..5" in refused("likelihood", "m.safetensors", "d.npz", "-n", 6, cwd=files)
