"""Fine-tuning: a run begins with the weights of a model, row by name, and of no other network."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.cli.test_app import unnoise
from tests.train.test_autoencoder import KINDS, tiny_stage
from tests.train.test_latents import latent_config, stage_of
from tests.train.tiny import assert_same_run, changed, tiny_config, tiny_data, tiny_run, weights
from unnoise.config.load import merge
from unnoise.first_stage import load_first_stage, save_first_stage
from unnoise.model import load_model, with_decoder
from unnoise.train.events import Note, Saved

STILL = {"lr": 1e-30, "weight_decay": 0.0}
"""An optimiser whose steps leave every float32 as it is."""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("trained") / "run"
    tiny_run(run)
    return run


def begun(out: Path, start: Path, data: Any = None, **changes: Any) -> tuple[dict[str, torch.Tensor], str]:
    """Weights after a step that changes nothing, and what was said of the beginning."""
    config = tiny_config(**{"optimizer": STILL, "steps": 1, "start_from": str(start), "seed": 5, **changes})
    _, events = tiny_run(out, config, dataset=data)
    notes = [event.text for event in events if isinstance(event, Note)]
    return weights(out), next(text for text in notes if "begins with" in text)


def test_it_begins_with_the_weights(tmp_path: Path, trained: Path) -> None:
    found, said = begun(tmp_path / "more", trained)
    expected = weights(trained)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert said == f"begins with the weights of {trained} (12 steps)"


def test_classes_begin_with_the_class_of_their_name(tmp_path: Path, trained: Path) -> None:
    data = replace(tiny_data(), classes=("new", "c", "a"))
    found, said = begun(tmp_path / "more", trained, data)
    before, after = weights(trained)["label_emb.weight"], found["label_emb.weight"]
    assert torch.equal(after[1:], before[[2, 0, 3]])  # c, a and no class
    assert not any(torch.equal(after[0], row) for row in before)
    assert said.endswith("new to it, and begun fresh: new")


@pytest.mark.parametrize("classes", [("a",), ("a", "b", "c", "d", "e")])
def test_there_may_be_fewer_classes_or_more(tmp_path: Path, trained: Path, classes: tuple[str, ...]) -> None:
    data = tiny_data()
    data = replace(data, classes=classes, labels=data.labels % len(classes))
    found, _ = begun(tmp_path / "more", trained, data)
    before, after = weights(trained)["label_emb.weight"], found["label_emb.weight"]
    both = min(3, len(classes))
    assert len(after) == len(classes) + 1
    assert torch.equal(after[:both], before[:both])
    assert torch.equal(after[-1], before[-1])


def test_a_model_without_classes_learns_some_and_one_with_them_none(tmp_path: Path, trained: Path) -> None:
    none = replace(tiny_data(), labels=None, classes=())
    plain, _ = begun(tmp_path / "none", trained, none)
    assert "label_emb.weight" not in plain
    told, said = begun(tmp_path / "some", tmp_path / "none")
    assert said.endswith("begun fresh: no class, a, b, c")
    assert all(torch.equal(told[name], value) for name, value in plain.items())


def test_words_begin_with_their_word(tmp_path: Path) -> None:
    text = {"what": "text", "encoder": {"kind": "tokens", "width": 16, "depth": 1, "length": 8, "heads": 1}}
    network = {"context_width": 16, "transformer_depth": 1, "attention": [1], "dropout": 0.0}
    settings = {"model": {"network": network, "told": [text]}, "label_dropout": 0.0}
    first = replace(tiny_data(), labels=None, classes=(), captions=["red blue", "blue"] * 12)
    tiny_run(tmp_path / "first", tiny_config(**settings, steps=1), dataset=first)
    again = replace(first, captions=["blue yellow", "yellow"] * 12)
    found, said = begun(tmp_path / "again", tmp_path / "first", again, **settings)
    before, after = (load_model(tmp_path / name).info.vocabulary for name in ("first", "again"))
    key = "encoders.0.transformer.token_emb.weight"
    old = weights(tmp_path / "first")[key]
    for word in set(before) & set(after):
        assert torch.equal(found[key][after.index(word)], old[before.index(word)]), word
    assert "yellow" in said
    assert "blue" not in said


def test_a_run_cut_off_ends_in_the_same_bits_though_the_beginning_is_gone(
    tmp_path: Path, trained: Path
) -> None:
    start = tmp_path / "start.safetensors"
    shutil.copy(trained / "model.safetensors", start)
    config = tiny_config(start_from=str(start), seed=7)
    tiny_run(tmp_path / "whole", config)

    class Stop(Exception):
        pass

    def stop(event: object) -> None:
        if isinstance(event, Saved) and event.step == 4:
            raise Stop

    with pytest.raises(Stop):
        tiny_run(tmp_path / "cut", config, on_event=stop)
    start.unlink()
    tiny_run(tmp_path / "cut", config)
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"model": {"network": {"width": 32}}}, "another network than this recipe's (width: 16 -> 32)"),
        ({"model": {"network": {"depth": 2}}}, "depth: 1 -> 2"),
        (
            {"model": {"variance": "fixed_small"}, "objective": {"name": "simple"}},
            "out_channels: 2 -> 1",
        ),
        ({"kind": "gan"}, "holds no discriminator"),
    ],
)
def test_other_networks_are_refused(
    tmp_path: Path, trained: Path, changes: dict[str, Any], expected: str
) -> None:
    with pytest.raises(ValueError) as caught:
        begun(tmp_path / "more", trained, **changes)
    assert expected in str(caught.value)


def test_another_reading_of_the_same_weights_is_told(tmp_path: Path, trained: Path) -> None:
    schedule = {"steps": 20, "beta_start": 0.0001, "beta_end": 0.03}
    _, said = begun(tmp_path / "more", trained, model={"predicts": "x0", "schedule": schedule})
    assert said.endswith(
        "it learned with other settings: predicts: eps -> x0; schedule.beta_end: 0.02 -> 0.03"
    )


def test_the_same_schedule_in_other_words_is_no_other(tmp_path: Path) -> None:
    default = {"name": "linear", "steps": 1000, "beta_start": None, "beta_end": None}
    tiny_run(tmp_path / "run", tiny_config(model={"schedule": default}, steps=1))
    spelt = {"name": "linear", "steps": 1000, "beta_start": 0.0001, "beta_end": 0.02}
    _, said = begun(tmp_path / "more", tmp_path / "run", model={"schedule": spelt})
    assert said.endswith("run (1 steps)")


def test_a_latent_model_brings_its_first_stage_and_scale(tmp_path: Path) -> None:
    file = tmp_path / "stage.safetensors"
    save_first_stage(file, stage_of("kl"))
    tiny_run(tmp_path / "first", latent_config(tmp_path, file))
    data, bright = tiny_data(), tiny_data(shift=20)
    again = latent_config(
        tmp_path,
        file,
        first_stage="",
        latents={"required": True, "scale": "channel"},
        start_from=str(tmp_path / "first"),
    )
    for name, dataset in (("same", data), ("others", bright)):
        tiny_run(tmp_path / name, again, dataset=dataset)
        one, two = (load_model(tmp_path / run) for run in ("first", name))
        assert one.config.latent == two.config.latent  # the hash covers weights and scale
    wide = changed(again, model={"network": {"width": 32}}, data={"cache": str(tmp_path / "unused")})
    with pytest.raises(ValueError, match=r"another network than this recipe's \(width: 16 -> 32\)"):
        tiny_run(tmp_path / "wide", wide, dataset=data)
    assert not (tmp_path / "unused").exists()  # refused before anything is encoded


@KINDS
def test_a_decoder_learns_alone(tmp_path: Path, changes: dict[str, Any]) -> None:
    tiny_run(tmp_path / "stage", tiny_stage(**changes, steps=2))
    alone = merge(changes, {"autoencoder": {"freeze_encoder": True, "revive_after": 0}})
    tiny_run(tmp_path / "more", tiny_stage(**alone, steps=2, seed=3, start_from=str(tmp_path / "stage")))
    one, two = (load_first_stage(tmp_path / name).network.state_dict() for name in ("stage", "more"))
    others = {name.partition(".")[0] for name in one if not torch.equal(one[name], two[name])}
    assert others == {"decoder", "post_quant_conv"}


def test_a_decoder_of_other_latents_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "stage.safetensors"
    save_first_stage(file, stage_of("kl"))
    tiny_run(tmp_path / "run", latent_config(tmp_path, file))
    model = load_model(tmp_path / "run")
    assert model.first_stage is not None
    with pytest.raises(ValueError, match="has another encoder than the model's"):
        with_decoder(model, stage_of("kl", seed=1))

    other = stage_of("kl")
    with torch.no_grad():
        other.network.decoder.conv_out.bias.add_(0.5)
    save_first_stage(tmp_path / "other.safetensors", other)
    out = tmp_path / "out.safetensors"
    done = unnoise("convert", "run", out, "--first-stage", "other.safetensors", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    exchanged = load_model(out)
    x = torch.randn(2, *model.config.shape, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(exchanged.decode(x), model.decode(x) + 0.5, atol=1e-5)
    assert exchanged.first_stage is not None
    assert exchanged.first_stage.scale == model.first_stage.scale
    done = unnoise(
        "convert", "other.safetensors", "x.safetensors", "--first-stage", "other.safetensors", cwd=tmp_path
    )
    assert "--first-stage is for latent models, and this is a first stage" in done.stderr


def test_a_beginning_that_is_not_there_is_refused_before_data_are_read(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="start_from: .*nowhere does not exist"):
        begun(tmp_path / "run", tmp_path / "nowhere", data=object())
    done = unnoise(
        "train", "fashion-28", "--data", "fashion-mnist-10k", "--start-from", "no-such", cwd=tmp_path
    )
    assert done.returncode == 2 and done.stderr.startswith("unnoise: start_from: no-such does not exist")


def test_a_frozen_encoder_needs_one(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="name the first stage whose decoder is to learn with start_from"):
        tiny_run(tmp_path / "run", tiny_stage(autoencoder={"freeze_encoder": True}))
