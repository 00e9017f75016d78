"""Training GANs: what a run leaves, that it continues to the bit, that collapse is said aloud."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.train.gans import tiny_gan
from tests.train.tiny import assert_same_run, changed, tiny_data, tiny_run, weights
from unnoise import gan
from unnoise.config.load import from_dict, from_yaml, to_dict
from unnoise.config.resolve import data_config, resolve, settings_yaml
from unnoise.config.schema import TrainConfig
from unnoise.gan import load_gan
from unnoise.images import to_images
from unnoise.presets import load_preset
from unnoise.train.check import check
from unnoise.train.events import Note
from unnoise.train.gan import GanJob
from unnoise.train.gan_health import Health, grouped, spread, verdict
from unnoise.train.report import read_log, report_run

EVALUATE = {"every": 4, "n": 10, "features": "unnoise-small", "metric": "FD", "keep_best": True}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Standing statistics of few batches."""
    monkeypatch.setattr(gan, "STANDING_BATCHES", 2)


def job(data=None, **changes) -> GanJob:
    data = data or tiny_data()
    config = resolve(tiny_gan(**changes), size=8, channels=data.channels, classes=len(data.classes))
    return GanJob(config, data, torch.device("cpu"))


def unlabelled():
    return replace(tiny_data(), labels=None, classes=())


def test_a_run_leaves_a_gan_and_its_readings(tmp_path: Path) -> None:
    result, _ = tiny_run(tmp_path, tiny_gan(evaluate=EVALUATE))
    assert result.steps == 8 and not result.skipped and result.best is not None
    model = load_gan(tmp_path)
    assert model.info.step == 8 and model.info.ema_rate == 0.9 and model.classes == ("a", "b", "c")
    best = load_gan(tmp_path / "best.safetensors")
    assert best.info.scores == {"FD[unnoise-small]": result.best.value} and best.info.step == result.best.step
    log = read_log(tmp_path)
    played = [line for line in log if "d/real" in line]
    assert [line["step"] for line in played] == [2, 4, 6, 8]  # the first step met no verdict yet
    names = ("d/fake", "d/margin", "d/accuracy", "d/loss", "d/grad_norm", "grad_norm")
    assert all(np.isfinite(line[name]) for line in played for name in names)
    checked = [line for line in log if "health/diversity" in line]
    assert [line["step"] for line in checked] == [1, 2, 4, 8]
    wanted = {
        "near_copies",
        "score/training",
        "score/held_out",
        "score/drawn",
        "generator/first",
        "discriminator/ratio",
    }
    assert {f"health/{name}" for name in wanted} <= checked[-1].keys()
    assert [line["step"] for line in log if "evaluation/FD[unnoise-small]" in line] == [4, 8]
    page = report_run(tmp_path, result)
    assert page is not None and "The game" in page.read_text() and "near copies" in page.read_text()


def test_a_run_that_was_stopped_continues_to_the_bit(tmp_path: Path) -> None:
    config = tiny_gan(steps=6, save_every=3, sample_every=0, optimizer={"decay": "none"})
    tiny_run(tmp_path / "whole", config)
    tiny_run(tmp_path / "parts", changed(config, steps=3))
    tiny_run(tmp_path / "parts", config)
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.parametrize("place", ["observe", "save"])
def test_a_run_that_died_continues_to_the_bit(place, tmp_path: Path, monkeypatch) -> None:
    """Killed in the discriminator's turn of step 6, or while a model file is written."""
    config = tiny_gan()
    tiny_run(tmp_path / "whole", config)
    calls = []

    def die(self, *args, **options):
        calls.append(place)
        if len(calls) == 8:  # the first two observations were to measure
            raise KeyboardInterrupt
        return original(self, *args, **options)

    original = getattr(GanJob, place)
    if place == "save":
        calls += ["before"] * 6
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(GanJob, place, die)
        tiny_run(tmp_path / "parts", config)
    tiny_run(tmp_path / "parts", config)
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


def test_another_seed_is_another_run_and_the_same_seed_the_same(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        tiny_run(tmp_path / name, tiny_gan(steps=2, seed=seed))
    assert_same_run(tmp_path / "a", tmp_path / "b")
    a, c = weights(tmp_path / "a"), weights(tmp_path / "c")
    assert not torch.equal(a["linear.weight"], c["linear.weight"])


def test_what_is_drawn_for_a_step_depends_on_its_place_alone() -> None:
    whole = job().draw(3, range(6))
    part = job().draw(3, range(2, 5))
    for name in ("pixels", "z", "label", "changes"):
        assert torch.equal(getattr(whole, name)[2:5], getattr(part, name)), name
    assert not torch.equal(whole.z, job().draw(4, range(6)).z)
    # Two different batches of real pictures, each with the classes that are drawn beside it.
    player = job()
    for turn in range(2):
        places = np.arange(6) + (3 * 2 + turn) * 6
        assert torch.equal(whole.pixels[:, turn], player.dataset.batch(3, places).pixels)
        assert torch.equal(whole.label[:, 1 + turn], player.dataset.labels_at(places))


def test_both_players_learn_what_can_be_learned(tmp_path: Path) -> None:
    """Pictures of one grey level a class: drawn ones come to have it."""
    levels = np.array([40, 130, 220])
    labels = np.arange(240) % 3
    random = np.random.default_rng(0)
    pixels = levels[labels][:, None, None, None] + random.integers(-9, 10, (240, 8, 8, 1))
    data = replace(
        tiny_data(), store=type(tiny_data().store)(pixels.astype(np.uint8)), labels=labels, content="levels"
    )
    config = tiny_gan(
        steps=150, batch_size=24, micro_batch=24, save_every=150, sample_every=0,
        gan={"augment": [], "r1": 0.0, "generator": {"attention": []}, "discriminator": {"attention": []}},
        optimizer={"decay": "none"},
    )  # fmt: skip
    tiny_run(tmp_path, config, dataset=data)
    drawn = load_gan(tmp_path).sample(n=30, batch_size=30)
    means = [drawn.pixels[drawn.labels == k].float().mean().item() for k in range(3)]
    assert np.abs(np.array(means) - levels).max() < 30, means


def test_data_without_labels_train_without_classes(tmp_path: Path) -> None:
    tiny_run(tmp_path, tiny_gan(steps=2), dataset=unlabelled())
    model = load_gan(tmp_path)
    assert model.classes == () and model.settings.classes is None
    assert model.sample(n=2).labels is None


def test_nothing_is_held_out_where_nothing_is_asked_for() -> None:
    player = job(gan={"held_out": 0.0})
    assert len(player.dataset) == 24
    measured = player.health.scores(player.averaged(dict(player.network.named_parameters())), player.opponent)
    assert measured.keys() == {"score/training", "score/drawn"}


def test_collapse_is_seen_and_said(tmp_path: Path, monkeypatch) -> None:
    """A generator that ignores z and noise draws one picture a class."""
    player = job()
    healthy = player.averaged(dict(player.network.named_parameters()))
    fine = player.health.diversity(healthy)
    same = {name: torch.zeros_like(p) for name, p in healthy.network.named_parameters() if "gain" in name}
    weights = {**dict(healthy.network.named_parameters()), **same}
    weights["linear.weight"] = torch.zeros_like(healthy.network.linear.weight)
    for name, value in weights.items():
        if name.endswith((".gain.weight", ".bias.weight")):
            weights[name] = value.clone()
            weights[name][:, -4:] = 0  # the chunk of z
    measured = player.health.diversity(player.averaged(weights))
    assert measured["diversity"] < 0.05 and measured["near_copies"] == 1.0
    assert fine["diversity"] > measured["diversity"] and "collapsed" in verdict(measured)
    assert not verdict({"diversity": 0.9, "near_copies": 0.1}) and not verdict({})
    monkeypatch.setattr(Health, "diversity", lambda self, model: measured)
    _, events = tiny_run(tmp_path, tiny_gan(steps=20, sample_every=20))
    said = [e.text for e in events if isinstance(e, Note) and "the generator has collapsed" in e.text]
    assert said and not any("after step 1:" in text for text in said)  # it was young then


def test_distances_within_groups() -> None:
    features = torch.tensor([[0.0, 0], [3, 4], [100, 0], [100, 1], [100, 3]])
    found = spread(features, [2, 3])
    assert found.mean == pytest.approx((5 + (1 + 3 + 2) / 3) / 2)
    assert found.nearest.tolist() == [5, 5, 1, 1, 2]


def test_groups_are_classes_of_two_pictures_at_least() -> None:
    data = replace(tiny_data(), labels=np.array([0] * 20 + [1] * 3 + [2]))
    assert [len(each) for each in grouped(data, 0)] == [20, 3]
    assert all((data.labels[each] == k).all() for k, each in enumerate(grouped(data, 0)))
    assert [len(each) for each in grouped(unlabelled(), 0)] == [24]


def test_what_a_discriminator_knows_by_heart_is_seen() -> None:
    """A discriminator that knows its pictures scores them above held-out ones."""
    player = job(gan={"augment": []})
    opponent = player.opponent

    pictures = player.dataset.take(np.arange(len(player.dataset))).pixels
    known = {round(mean * 1e5) for mean in to_images(pictures).mean((1, 2, 3)).tolist()}

    def scores(images, label, changes):
        means = images.mean((1, 2, 3)).tolist()
        return torch.tensor([1.0 if round(mean * 1e5) in known else -1.0 for mean in means])

    opponent.scores = scores
    measured = player.health.scores(player.averaged(dict(player.network.named_parameters())), opponent)
    assert (
        measured["score/training"] > 0.9 and measured["score/held_out"] < 0 and measured["overfitting"] > 0.7
    )


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"gan": {"discriminator_steps": 0}}, "gan.discriminator_steps=0 is not possible; use 1 or more"),
        ({"gan": {"discriminator_lr": 0.0}}, "gan.discriminator_lr=0.0 is not possible; use more than 0"),
        ({"gan": {"r1": -1.0}}, "gan.r1=-1.0 is not possible; use 0 or more"),
        ({"gan": {"held_out": 1.0}}, "gan.held_out=1.0 is not possible; use a share in"),
        ({"gan": {"augment": ["color", "color"]}}, "gan.augment=.* is not possible; name each once"),
        ({"precision": "float16"}, "precision=float16: .* use bfloat16 or float32"),
        ({"compile": "on"}, "compile=on: .* leave it out"),
        ({"evaluate": {"steps": "10"}}, "evaluate.steps=10 means nothing to a GAN"),
        ({"evaluate": {"guidance": 2.0}}, "evaluate.guidance=2.0 means nothing to a GAN"),
    ],
)
def test_numbers_that_cannot_be_are_refused(changes, said) -> None:
    with pytest.raises(ValueError, match=said):
        check(tiny_gan(**changes), processes=1)


def test_settings_of_other_kinds_are_refused() -> None:
    with pytest.raises(ValueError, match="a GAN has no such setting .label_dropout.*its own are under gan"):
        data_config(tiny_gan(label_dropout=0.5))
    with pytest.raises(ValueError, match="gan is set, but kind=diffusion trains none"):
        data_config(tiny_gan(kind="diffusion"))
    with pytest.raises(ValueError, match="data.channels=4: a GAN draws grey .1. or RGB .3."):
        resolve(tiny_gan(), size=8, channels=4, classes=3)
    with pytest.raises(ValueError, match="a side of 9 pixels is no multiple of 2"):
        resolve(tiny_gan(), size=9, channels=1, classes=3)
    with pytest.raises(ValueError, match="gan.generator.classes=5 does not fit the data, which say 3"):
        resolve(tiny_gan(gan={"generator": {"classes": 5}}), size=8, channels=1, classes=3)


def test_settings_survive_yaml() -> None:
    config = resolve(tiny_gan(), size=8, channels=1, classes=3)
    text = settings_yaml(config)
    assert "objective" not in text and "classifier" not in text
    assert from_yaml(TrainConfig, text) == config == from_dict(TrainConfig, to_dict(config))


@pytest.mark.parametrize(
    "name, size, channels", [("gan-28", 28, 1), ("gan-64", 64, 3), ("gan-tiny", 28, 1), ("gan-tiny", 32, 3)]
)
def test_presets_are_whole(name, size, channels) -> None:
    config = load_preset(name).config
    check(config, processes=1)
    data_config(config)
    for classes in (0, 1, 10, 300):
        resolve(config, size=size, channels=channels, classes=classes)


def test_two_pictures_are_enough_and_one_is_not(tmp_path: Path) -> None:
    pixels = tiny_data().store.pixels
    two = replace(unlabelled(), store=type(tiny_data().store)(pixels[:2]))
    result, _ = tiny_run(tmp_path / "two", tiny_gan(steps=2), dataset=two)
    assert result.steps == 2
    assert "health/diversity" not in read_log(tmp_path / "two")[-1]
    one = replace(unlabelled(), store=type(tiny_data().store)(pixels[:1]))
    with pytest.raises(ValueError, match="has one picture, none can be held out"):
        tiny_run(tmp_path / "one", tiny_gan(steps=2), dataset=one)
