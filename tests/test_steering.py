"""Guidance as a request asks for it: every kind, mixed, off, and companions that do not fit."""

import hashlib
from dataclasses import replace

import pytest
import torch

from tests.models import NAMES, tiny_classifier, tiny_model
from unnoise.config.model import ScheduleConfig
from unnoise.config.requests import GenerateRequest
from unnoise.diffusion.condition import Condition, null
from unnoise.diffusion.guidance import Strength, classifier_free, classifier_guide, two_models
from unnoise.diffusion.noise import SeededNoise
from unnoise.diffusion.samplers import SAMPLERS, Ddim, Ddpm
from unnoise.diffusion.spacing import grid
from unnoise.diffusion.transforms import clip_x0
from unnoise.diffusion.walk import run
from unnoise.generate import sample
from unnoise.images import to_pixels
from unnoise.model import save_model
from unnoise.noisy_classifier import save_noisy_classifier
from unnoise.planning import plan
from unnoise.steering import FOLDED_BELOW
from unnoise.store import identity

DRAWING = [name for name, kind in SAMPLERS.items() if not kind.ascends]


@pytest.fixture(scope="module")
def model():
    return tiny_model(predicts="eps")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("companions")
    save_noisy_classifier(folder / "classifier.safetensors", tiny_classifier())
    save_noisy_classifier(folder / "again.safetensors", tiny_classifier())
    save_noisy_classifier(folder / "other.safetensors", tiny_classifier(seed=6))
    save_model(folder / "weaker.safetensors", tiny_model(seed=3, width=64, predicts="v"))
    save_model(folder / "unconditional.safetensors", tiny_model(seed=4, classes=()))
    return folder


def draw(model, **options):
    return sample(model, **{"n": 3, "steps": "4", "precision": "float32", "labels": "sandal"} | options)


def by_hand(model, sampler, denoise, guide=None, *, label=2):
    """The same three pictures from the pieces of diffusion/."""
    schedule, noise = grid("4", model.schedule), SeededNoise(0, range(3))
    like = torch.empty(3, 1, 8, 8)
    cond = Condition(label=torch.full((3,), label))
    x = noise(like, step=-1, draw=0)
    for step in run(sampler, denoise, x, schedule.path(like), cond=cond, noise=noise, guide=guide):
        x = step.x
    return to_pixels(x)


@pytest.mark.parametrize("name", ["ddim", "ddpm"])
def test_a_classifier_guides_as_its_algorithm_says(model, files, name):
    guide = classifier_guide(tiny_classifier().network, 3.0)
    sampler = {"ddim": Ddim(), "ddpm": Ddpm()}[name]
    wanted = by_hand(model, sampler, clip_x0(model.denoiser), guide)
    drawn = draw(model, sampler=name, classifier=str(files / "classifier.safetensors"), scale=3.0)
    assert torch.equal(drawn.pixels, wanted)
    assert not torch.equal(drawn.pixels, draw(model, sampler=name).pixels)


def test_a_score_is_not_shifted_where_nothing_is_left_of_the_picture(files):
    """By default, on a cosine schedule: an interval says otherwise, and a mean is always shifted."""
    cosine = ScheduleConfig(name="cosine", steps=100)
    model = tiny_model(predicts="eps", schedule=cosine)
    save_noisy_classifier(files / "cosine.safetensors", tiny_classifier(schedule=cosine))
    options = {"classifier": str(files / "cosine.safetensors"), "scale": 3.0}
    guide = classifier_guide(tiny_classifier().network, 3.0, strength=Strength(high=FOLDED_BELOW))
    first = model.schedule.at(99, torch.empty(1))
    assert (1 / first.alpha_bar - 1).sqrt() > FOLDED_BELOW
    drawn = draw(model, **options).pixels
    assert torch.equal(drawn, by_hand(model, Ddim(), clip_x0(model.denoiser), guide))
    whole = classifier_guide(tiny_classifier().network, 3.0)
    everywhere = draw(model, guidance_interval=(0.0, 1e9), **options).pixels
    assert torch.equal(everywhere, by_hand(model, Ddim(), clip_x0(model.denoiser), whole))
    assert not torch.equal(everywhere, drawn)
    mean = draw(model, sampler="ddpm", **options).pixels
    assert torch.equal(mean, by_hand(model, Ddpm(), clip_x0(model.denoiser), whole))


def test_the_gradient_may_be_taken_at_the_mean(model, files):
    options = {"sampler": "ddpm", "classifier": str(files / "classifier.safetensors"), "scale": 3.0}
    guide = classifier_guide(tiny_classifier().network, 3.0)
    wanted = by_hand(model, Ddpm(guide_at="mean"), clip_x0(model.denoiser), guide)
    assert torch.equal(draw(model, guide_at="mean", **options).pixels, wanted)


@pytest.mark.parametrize("sampler", DRAWING)
def test_every_sampler_takes_every_guidance_at_once(model, files, sampler):
    """And each kind moves the pictures."""
    kinds = {
        "free": {"guidance": 2.0},
        "classifier": {"classifier": str(files / "classifier.safetensors"), "scale": 2.0},
        "weaker": {"weaker": str(files / "weaker.safetensors"), "weaker_scale": 1.5},
    }
    every = {key: value for kind in kinds.values() for key, value in kind.items()}
    mixed = draw(model, sampler=sampler, **every).pixels
    for kind in kinds.values():
        without = {key: value for key, value in every.items() if key not in kind}
        assert not torch.equal(draw(model, sampler=sampler, **without).pixels, mixed), kind


def test_mixed_guidance_is_the_composition_of_its_kinds(model, files):
    weaker = tiny_model(seed=3, width=64, predicts="v").denoiser
    strength = Strength(0.1, 20.0, "cosine")
    denoise = two_models(model.denoiser, weaker, 1.5, strength=strength)
    nothing = lambda cond: null(cond, {"label": 5})  # noqa: E731
    denoise = clip_x0(classifier_free(denoise, nothing, 2.0, strength=strength))
    guide = classifier_guide(tiny_classifier().network, 0.5, strength=strength)
    drawn = draw(
        model, guidance=2.0, weaker=str(files / "weaker.safetensors"), weaker_scale=1.5,
        classifier=str(files / "classifier.safetensors"), scale=0.5,
        guidance_interval=(0.1, 20.0), guidance_course="cosine",
    )  # fmt: skip
    assert torch.equal(drawn.pixels, by_hand(model, Ddim(), denoise, guide))


@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
def test_off_scales_are_identities(model, files, sampler):
    plain = draw(model, sampler=sampler).pixels
    off = {
        "guidance": 1.0, "classifier": str(files / "classifier.safetensors"), "scale": 0.0,
        "weaker": str(files / "weaker.safetensors"), "weaker_scale": 1.0,
    }  # fmt: skip
    assert torch.equal(draw(model, sampler=sampler, **off).pixels, plain)
    never = off | {"scale": 4.0, "weaker_scale": 3.0, "guidance": 2.0, "guidance_interval": (1e6, 1e7)}
    assert torch.equal(draw(model, sampler=sampler, **never).pixels, plain)


def test_a_classifier_gives_an_unconditional_model_classes(files):
    model = tiny_model(classes=(), predicts="eps")
    options = {"classifier": str(files / "classifier.safetensors"), "scale": 3.0, "sampler": "ddpm"}
    drawn = draw(model, **options)
    assert drawn.names == ("Sandal",) * 3 and drawn.labels.tolist() == [2, 2, 2]
    guide = classifier_guide(tiny_classifier().network, 3.0)

    def untold(x, at, cond):
        return model.denoiser(x, at, Condition())

    assert torch.equal(drawn.pixels, by_hand(model, Ddpm(), clip_x0(untold), guide))
    turns = draw(model, n=7, labels=(), **options)
    assert turns.names == (*NAMES, *NAMES[:2])
    # A weaker model that knows no classes serves one that does: it is told nothing.
    draw(tiny_model(), weaker=str(files / "unconditional.safetensors"))


def test_a_conditional_model_may_be_told_nothing(model, files):
    options = {"classifier": str(files / "classifier.safetensors"), "scale": 3.0}
    guide = classifier_guide(tiny_classifier().network, 3.0)

    def untold(x, at, cond):
        return model.denoiser(x, at, Condition(label=torch.full((len(x),), 5)))

    drawn = draw(model, conditional=False, **options)
    assert torch.equal(drawn.pixels, by_hand(model, Ddim(), clip_x0(untold), guide))
    assert drawn.names == ("Sandal",) * 3


def test_a_job_is_known_by_what_is_in_its_files_not_by_their_paths(model, files):
    def known(name):
        request = GenerateRequest(classifier=str(files / name), scale=1.0)
        return identity(plan(model, request), "model")

    assert known("classifier.safetensors") == known("again.safetensors") != known("other.safetensors")
    content = (files / "classifier.safetensors").read_bytes()
    assert known("classifier.safetensors")["classifier"] == hashlib.sha256(content).hexdigest()


CLASSES = tuple("abcde")


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"size": 16}, ["16", "a side of 8"]),
        ({"channels": 3}, ["3 channels", "for 1"]),
        ({"steps": 50}, ["50", "100"]),
        ({"classes": NAMES[:3]}, ["3 classes", "the model 5"]),
        ({"classes": CLASSES}, ["'a'", "T-shirt/top"]),
        ({"classes": (), "count": 7}, ["7 classes"]),
        ({"noised": False}, ["clean pictures alone"]),
    ],
)
def test_a_classifier_that_does_not_fit_is_refused(model, tmp_path, other, words):
    file = tmp_path / "classifier.safetensors"
    save_noisy_classifier(file, tiny_classifier(**other))
    with pytest.raises(ValueError) as refused:
        draw(model, classifier=str(file), scale=1.0)
    for word in [str(file), *words]:
        assert word in str(refused.value)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"size": 16}, ["16", "a side of 8"]),
        ({"steps": 50}, ["50", "100"]),
        ({"classes": NAMES[:3]}, ["4 class rows", "model 6"]),
        ({"null": False}, ["null class None"]),
        ({"classes": CLASSES}, ["'a'"]),
    ],
)
def test_a_weaker_model_that_does_not_fit_is_refused(model, tmp_path, other, words):
    file = tmp_path / "weaker.safetensors"
    save_model(file, tiny_model(**other))
    with pytest.raises(ValueError) as refused:
        draw(model, weaker=str(file))
    for word in [str(file), *words]:
        assert word in str(refused.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"scale": 2.0}, ["scale=2", "none is named"]),
        ({"scale": 2.0, "classifier": "nowhere"}, ["nowhere does not exist"]),
        ({"scale": 2.0, "classifier": "WEAKER"}, ["diffusion model", "not a classifier"]),
        ({"weaker": "CLASSIFIER"}, ["classifier of noisy pictures", "cannot draw"]),
        ({"conditional": False, "guidance": 2.0}, ["conditional=False", "guidance=2"]),
        ({"guide_at": "mean"}, ["guide_at=mean", "ddim", "ddpm"]),
        ({"guidance_interval": (3.0, 1.0), "guidance": 2.0}, ["interval", "empty"]),
        ({"guidance_course": "square"}, ["guidance_course", "cosine"]),
        ({"classifier": "CLASSIFIER", "labels": "hat"}, ["'hat'", "Sneaker"]),
    ],
)
def test_refusals(model, files, options, words):
    places = {"WEAKER": files / "weaker.safetensors", "CLASSIFIER": files / "classifier.safetensors"}
    options = {key: str(places.get(value, value)) if value in ("WEAKER", "CLASSIFIER") else value
               for key, value in options.items()}  # fmt: skip
    with pytest.raises(ValueError) as refused:
        draw(model, **options)
    for word in words:
        assert word in str(refused.value)


def test_a_model_without_null_class_cannot_be_told_nothing(files):
    with pytest.raises(ValueError, match="conditional=False.*label dropout"):
        draw(tiny_model(null=False), conditional=False)


def test_the_classifier_computes_in_the_precision_of_the_model(model, files):
    request = GenerateRequest(classifier=str(files / "classifier.safetensors"), precision="bfloat16")
    low = sample(model, **{"n": 2, "steps": "3", "classifier": request.classifier, "precision": "bfloat16"})
    high = sample(model, **{"n": 2, "steps": "3", "classifier": request.classifier, "precision": "float32"})
    assert (low.pixels.int() - high.pixels.int()).abs().float().mean() < 8
    assert replace(request, scale=None) == request  # None means 1 with a classifier
    one = sample(model, **{"n": 2, "steps": "3", "classifier": request.classifier, "scale": 1.0,
                           "precision": "float32"})  # fmt: skip
    assert torch.equal(one.pixels, high.pixels)
