"""A cascade: equal to its stages one by one, chained strictly, continued from where it was stopped."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from tests.models import tiny_model, tiny_upsampler
from unnoise.cascade import Link, cascade, chain, run_cascade
from unnoise.config.load import to_dict
from unnoise.config.requests import GenerateRequest, UpsamplerOptions
from unnoise.generate import sample
from unnoise.images import read_request
from unnoise.job import Job

FAST = {"steps": "3", "precision": "float32"}
QUICK = UpsamplerOptions(steps="2")


@pytest.fixture(scope="module")
def models():
    """4x4 -> 8x8 -> 16x16."""
    return [tiny_model(size=4), tiny_upsampler(noise=0.4), tiny_upsampler(size=16, low_res=8, seed=2)]


def links(models):
    return [Link(model, f"m{k}", f"hash{k}") for k, model in enumerate(models)]


def drawn(models, options=None, **request):
    batches = list(cascade(models, GenerateRequest(**FAST, **request), options))
    return torch.cat([b.pixels for b in batches]), sum((b.names for b in batches), ())


@pytest.mark.parametrize("exact", [True, False])
def test_a_cascade_is_its_stages_one_by_one(models, exact):
    options = [UpsamplerOptions(steps="2", low_res_noise=0.2), UpsamplerOptions(steps="4", sampler="ddpm")]
    request = {"labels": ["sandal", "sneaker"], "n": 5, "seed": 7, "exact": exact}
    batch = sample(models[0], guidance=2.5, **request, **FAST)
    for model, how in zip(models[1:], options, strict=True):
        batch = sample(model, low_res=batch, precision="float32", **request, **to_dict(how))
    whole, names = drawn(models, options, guidance=2.5, **request)
    assert names == ("Sandal", "Sneaker", "Sandal", "Sneaker", "Sandal") == batch.names
    assert torch.equal(whole, batch.pixels)


def test_guidance_is_the_first_models_alone(models):
    plans = chain(
        links(models), GenerateRequest(guidance=3.0, guidance_course="linear", **FAST), [QUICK, QUICK]
    )
    assert [p.request.guidance for p in plans] == [3.0, 1.0, 1.0]
    assert {p.request.guidance_course for p in plans[1:]} == {"constant"}


def test_classes_are_told_by_name(models):
    other = tiny_upsampler(classes=("Sandal", "Bag", "ANKLE BOOT", "Trouser", "Sneaker", "T-shirt/top"))
    plans = chain(links([models[0], other]), GenerateRequest(n=5, **FAST), [QUICK])
    assert plans[1].labels == (5, 3, 0, 4, 2)
    plain = tiny_upsampler(classes=())
    middle = tiny_upsampler(size=16, low_res=8, seed=2)
    through = chain(links([models[0], plain, middle]), GenerateRequest(n=5, **FAST), [QUICK, QUICK])
    assert [p.labels for p in through] == [(0, 1, 2, 3, 4), (), (0, 1, 2, 3, 4)]
    blank = chain(links([tiny_model(size=4, classes=()), models[1]]), GenerateRequest(**FAST), [QUICK])
    assert blank[1].labels == (5,), "no class is the null class"


def nameless(model):
    return replace(model, info=replace(model.info, classes=()))


def test_numbers_mean_the_same_where_there_are_as_many(models):
    plans = chain(links([nameless(models[0]), models[1]]), GenerateRequest(labels=("2",), **FAST), [QUICK])
    assert plans[1].labels == (2,) and plans[1].name(0) == "Sandal"
    with pytest.raises(ValueError, match="m0 knows 5 classes, m1 2, and not both have names"):
        few = tiny_upsampler(classes=("a", "b"))
        chain(links([nameless(models[0]), few]), GenerateRequest(**FAST), [QUICK])


def colour(**options):
    return tiny_upsampler(channels=3, **options)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda m: [m[0]], "one upsampler at least"),
        (lambda m: [m[0], m[2]], "m0 draws 4x4 grey pictures, m1 enlarges 8x8 grey ones"),
        (lambda m: [m[0], m[1], m[1]], "m1 draws 8x8 grey pictures, m2 enlarges 4x4 grey ones"),
        (lambda m: [m[0], colour()], "m0 draws 4x4 grey pictures, m1 enlarges 4x4 RGB ones"),
        (lambda m: [m[0], m[0]], "m1 is no upsampler, so it cannot enlarge what m0 draws"),
        (lambda m: [m[1], m[2]], "m0 is an upsampler from 4x4"),
        (lambda m: [m[0], tiny_upsampler(classes=("Bag", "Coat"))], "'T-shirt/top' of m0 .*m1"),
        (
            lambda m: [tiny_model(size=4, classes=()), tiny_upsampler(null=False)],
            "m0 draws without classes, m1 needs one",
        ),
    ],
)
def test_what_does_not_chain_is_refused_naming_both(models, wrong, words):
    chosen = wrong(models)
    with pytest.raises(ValueError, match=words) as error:
        chain(links(chosen), GenerateRequest(**FAST), [QUICK] * (len(chosen) - 1))
    assert "\n" not in str(error.value)


def test_options_of_a_stage_are_refused_by_its_name(models):
    with pytest.raises(ValueError, match="m2: steps=200"):
        chain(links(models), GenerateRequest(**FAST), [QUICK, UpsamplerOptions(steps="200")])
    with pytest.raises(ValueError, match="m2: low_res_noise=0.1 .*use 0: this one was trained without"):
        chain(links(models), GenerateRequest(**FAST), [QUICK, UpsamplerOptions(low_res_noise=0.1)])
    with pytest.raises(ValueError, match="1 options are given for 2 upsamplers"):
        chain(links(models), GenerateRequest(**FAST), [QUICK])


def job(models, out, *, options=None, request=None, **settings):
    wanted = GenerateRequest(**{"n": 6, "batch_size": 4, "exact": True, **FAST, **(request or {})})
    plans = chain(links(models), wanted, options or [QUICK] * (len(models) - 1))
    return run_cascade(plans, Job(out=out, weights=f"hash{len(models) - 1}", **settings))


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_what_a_job_writes(models, tmp_path):
    assert job(models, tmp_path) == tmp_path
    numbered = [f"{k:06d}.png" for k in range(6)]
    for folder in (tmp_path, tmp_path / "4x4", tmp_path / "8x8"):
        files = sorted(p.name for p in folder.iterdir() if p.is_file())
        assert files == [*numbered, "grid.png", "request.json"]
    manifest = json.loads((tmp_path / "request.json").read_text())
    assert manifest["model_sha256"] == "hash0" and manifest["seed"] == 0 and manifest["steps"] == "3"
    assert [u["model_sha256"] for u in manifest["upsamplers"]] == ["hash1", "hash2"]
    assert [u["steps"] for u in manifest["upsamplers"]] == ["2", "2"]
    request = read_request(tmp_path / "000004.png")
    options = [UpsamplerOptions(**how) for how in request.pop("upsamplers")]
    assert (request["first"], request["n"], request["labels"]) == (4, 1, ["Ankle boot"])
    (again,) = cascade(models, GenerateRequest(**request), options)
    assert np.array_equal(again.pixels[0, ..., 0], np.asarray(Image.open(tmp_path / "000004.png")))
    small = sample(models[0], **read_request(tmp_path / "4x4" / "000004.png"))
    assert np.array_equal(small.pixels[0, ..., 0], np.asarray(Image.open(tmp_path / "4x4" / "000004.png")))


class Stop(BaseException):
    pass


@pytest.mark.parametrize("npz", [False, True])
def test_an_interrupted_job_continues(models, tmp_path, npz):
    models, more, seen = models[:2], {"n": 9}, []

    def stop(batch):
        seen.append(batch.ids)
        raise Stop

    part, whole = tmp_path / "part", tmp_path / "whole"
    with pytest.raises(Stop):
        job(models, part, npz=npz, on_batch=stop, request=more)
    job(models, part, npz=npz, on_batch=lambda batch: seen.append(batch.ids), request=more)
    assert seen == [tuple(range(8)), (8,)]
    job(models, whole, npz=npz, request=more)
    assert contents(part) == contents(whole)
    if not npz:
        (part / "000003.png").unlink()
        (part / "4x4" / "000003.png").unlink()
        job(models, part, on_batch=lambda batch: seen.append(batch.ids), request=more)
        assert seen[2:] == [(3,)] and contents(part) == contents(whole)


def test_a_longer_job_keeps_what_a_shorter_one_drew(models, tmp_path):
    seen = []
    job(models[:2], tmp_path)
    job(models[:2], tmp_path, request={"n": 8}, on_batch=lambda batch: seen.append(batch.ids))
    assert seen == [(6, 7)]


def test_npz_files_have_the_pictures_of_the_folders(models, tmp_path):
    job(models, tmp_path / "png")
    job(models, tmp_path / "npz", npz=True)
    for folder, side in (("", 16), ("4x4", 4), ("8x8", 8)):
        with np.load(tmp_path / "npz" / folder / f"samples_6x{side}x{side}x1.npz") as file:
            assert file["arr_1"].tolist() == [0, 1, 2, 3, 4, 0]
            for k, picture in enumerate(file["arr_0"]):
                png = np.asarray(Image.open(tmp_path / "png" / folder / f"{k:06d}.png"))
                assert np.array_equal(png, picture[..., 0])


def test_another_cascade_in_the_same_folder_is_refused(models, tmp_path):
    job(models, tmp_path)
    before = contents(tmp_path)
    with pytest.raises(ValueError, match="upsamplers.2.steps: 2 there, 4 now"):
        job(models, tmp_path, options=[QUICK, UpsamplerOptions(steps="4")])
    with pytest.raises(ValueError, match="another request"):
        job(models[:2], tmp_path)
    assert contents(tmp_path) == before
    (tmp_path / "new" / "8x8").mkdir(parents=True)
    (tmp_path / "new" / "8x8" / "000000.png").write_bytes(b"mine")
    with pytest.raises(ValueError, match="not from this command"):
        job(models, tmp_path / "new")


def test_small_pictures_of_a_job_can_be_enlarged_anew(models, tmp_path):
    """A stage's folder is a folder of `unnoise sample`: pictures, classes and all, without its sheet."""
    job(models, tmp_path)
    batch = sample(models[1], low_res=str(tmp_path / "4x4"), steps="2", exact=True, precision="float32")
    assert batch.names[:5] == ("T-shirt/top", "Trouser", "Sandal", "Sneaker", "Ankle boot")
    kept = [np.asarray(Image.open(tmp_path / "8x8" / f"{k:06d}.png")) for k in range(6)]
    assert np.array_equal(batch.pixels[..., 0].numpy(), np.stack(kept))
