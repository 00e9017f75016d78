"""CompVis's checkpoints as models: loaded, drawn from, converted; what they cannot be told is refused."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import unnoise
from tests.networks.first_stages import TINY_KL, TINY_VQ
from tests.weights.latents import checkpoint, latent_preset, publish, saved, stage_preset, stage_state
from tests.weights.test_compvis import checkpoint as full_size
from unnoise.config.model import ModelConfig, ScheduleConfig, ToldConfig
from unnoise.config.requests import GenerateRequest
from unnoise.data.masks import masked
from unnoise.diffusion.condition import Condition
from unnoise.first_stage import FirstStage, load_first_stage
from unnoise.model import Model, load_model
from unnoise.networks.conditioned import Conditioned
from unnoise.networks.conditioner_settings import (
    ClassEmbedderSettings,
    ConditionerSettings,
    SpatialRescalerSettings,
    TextEncoderSettings,
)
from unnoise.networks.settings import UNetSettings
from unnoise.noisy_classifier import load_noisy_classifier
from unnoise.planning import plan
from unnoise.presets import Preset, latent_presets
from unnoise.told import HOLE
from unnoise.weights import compvis_models
from unnoise.weights.compvis import AVERAGE, ENCODER, NETWORK

STAGE = stage_preset(TINY_VQ, 16)
TEXT = TextEncoderSettings(width=16, depth=1, vocabulary=200, length=6, heads=1, head_channels=16)
LAID = SpatialRescalerSettings(stages=0, out_channels=None)
ENCODERS: dict[str, ConditionerSettings] = {
    "class": ClassEmbedderSettings(width=16),
    "text": TEXT,
    "layout": TEXT,
    "map": SpatialRescalerSettings(out_channels=3, stages=2),
    "inpaint": LAID,
    "low_res": LAID,
}
COUNTED = {"text": 200, "layout": 200, "map": 4, "inpaint": 4, "low_res": 3}
"""What is told -> its channels or tokens."""


def entry(told: Any = None, *, guided: bool = False, scale: float | None = 0.5) -> Preset:
    """A tiny model that counts as published."""
    reads, dropout = told in ("class", "text", "layout"), 0.1 * guided
    encoders = (
        (ToldConfig(what=told, encoder=ENCODERS[told], dropout=dropout, degradation="worn", hole="black"),)
        if told
        else ()
    )
    model = ModelConfig(
        network=UNetSettings(
            width=32, depth=1, channel_mult=(1, 2), attention=(2,), head_channels=32, adagn=False,
            transformer_depth=int(reads), context_width=16 if reads else None,
        ),
        variance="fixed_small",
        schedule=ScheduleConfig(name="scaled_linear", beta_start=0.0015, beta_end=0.0195),
        told=encoders,
    )  # fmt: skip
    classes = (4 if guided else 5) if told == "class" else 0
    return latent_preset(
        f"tiny-{told}", model, 16, told=COUNTED, classes=classes, label_dropout=dropout, scale=scale
    )


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Write the checkpoint of a tiny model -> its path."""

    def write(told: Any = None, **options: Any) -> Path:
        model = entry(told, **options)
        publish(monkeypatch, [model], STAGE)
        return saved(tmp_path / "model.ckpt", checkpoint(model, STAGE))

    return write


@pytest.mark.parametrize("name", latent_presets())
def test_every_published_model_becomes_one_of_ours(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FirstStage, "hash", "0" * 16)  # weights are without memory here
    known = latent_presets()[name]
    state = full_size(name)
    model = compvis_models.read(state, Path("model.ckpt"), name=name)
    assert isinstance(model, Model) and model.first_stage is not None and model.config.latent is not None
    assert model.info.preset == name and model.first_stage.info.preset == known.expect.first_stage
    assert model.first_stage.scale == (pytest.approx(known.expect.scale or 0.7),)
    assert (model.config.predicts, model.config.variance) == ("eps", "fixed_small")
    assert model.config == replace(
        known.published().model, latent=replace(model.config.latent, first_stage="0" * 16)
    )
    assert isinstance(model.network, Conditioned) == bool(known.config.model.told)
    channels, height, width = model.config.shape
    sides = [known.expect.size // model.config.latent.factor] * 2
    assert (channels, height, width) == (model.config.network.out_channels, *sides)
    assert model.null_label == (1000 if name == "ldm-imagenet-256-v2" else None)
    if known.expect.classes:
        assert len(model.class_names) == 1000


def test_a_checkpoint_is_a_model_of_the_averaged_weights(file: Any) -> None:
    path = file("class", guided=True)
    state = torch.load(path)["state_dict"]
    model = unnoise.load(path)
    network, stage = model.network, model.first_stage
    assert model.info.preset == "tiny-class" and model.info.licence == "MIT"
    assert (model.null_label, model.class_names) == (4, ("0", "1", "2", "3"))
    assert torch.equal(network.network.out[2].bias, state[AVERAGE + "out2bias"])
    assert not torch.equal(network.network.out[2].bias, state[NETWORK + "out.2.bias"])
    assert torch.equal(network.encoders[0].embedding.weight, state[ENCODER + "embedding.weight"])
    assert stage.scale == (0.5,) and model.config.latent.first_stage == stage.hash
    assert torch.allclose(model.schedule.betas[[0, -1]].float(), torch.tensor([0.0015, 0.0195]))
    drawn, other, free = (
        model.sample(n=1, steps="3", labels=[label], guidance=scale).pixels
        for label, scale in ((1, 1.0), (2, 1.0), (1, 3.0))
    )
    assert drawn.shape == (1, 16, 16, 3)
    assert not torch.equal(drawn, other) and not torch.equal(drawn, free)


def test_a_scale_that_was_measured_comes_from_the_file(file: Any) -> None:
    model = load_model(file(scale=None))
    assert model.first_stage.scale == (pytest.approx(0.7),)
    assert not model.config.told and model.sample(n=1, steps="2").pixels.shape == (1, 16, 16, 3)


def test_sample_and_convert_on_the_command_line(file: Any, tmp_path: Path, program: Any) -> None:
    path, ours = file("class", guided=True), tmp_path / "ours.safetensors"
    draw = ("-n", 2, "--steps", 3, "--label", 3, "--guidance", 2, "--precision", "float32")
    assert program("sample", path, *draw, "--out", tmp_path / "a")[0] == 0
    code, said, _ = program("convert", path, ours)
    assert code == 0 and "model, preset tiny-class" in said
    before, after = load_model(path), load_model(ours)
    assert (after.config, after.null_label) == (before.config, 4)
    assert program("sample", ours, *draw, "--out", tmp_path / "b")[0] == 0
    for k in range(2):
        a, b = (Image.open(tmp_path / folder / f"{k:06d}.png").tobytes() for folder in "ab")
        assert a == b
    code, _, complaint = program("convert", path, tmp_path / "folder", "--to", "diffusers")
    assert code == 2 and "one file of ours" in complaint and not (tmp_path / "folder").exists()


def test_what_fits_no_published_model_ends_with_2(file: Any, tmp_path: Path, program: Any) -> None:
    path = file()
    wrong = replace(entry("class"), name="other")
    for options, words in (
        (("--preset", "adm-64"), "'adm-64' is no published latent model; use one of tiny-None"),
        ((), "fits no published latent model; use the checkpoint of one of tiny-None"),
    ):
        if not options:
            saved(path, checkpoint(wrong, STAGE))
        code, _, complaint = program("sample", path, "--out", tmp_path / "a", *options)
        assert code == 2 and complaint.count("\n") == 1 and words in complaint


class Touch:
    """Unpickled, it leaves a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("command", ["sample", "convert"])
def test_code_inside_is_refused_and_not_run(file: Any, tmp_path: Path, program: Any, command: str) -> None:
    path, mark = file(), tmp_path / "ran"
    content = torch.load(path)
    saved(path, {**content, "callbacks": Touch(mark)})
    out = ("--out", tmp_path / "a") if command == "sample" else (tmp_path / "a.safetensors",)
    code, _, complaint = program(command, path, *out)
    assert code == 2 and "nothing in it was run" in complaint and complaint.count("\n") == 1
    assert not mark.exists()
    torch.load(path, weights_only=False)
    assert mark.exists(), "the test would notice"


@pytest.mark.parametrize("settings", [TINY_KL, TINY_VQ], ids=["kl", "vq"])
def test_first_stages_alone(
    settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: Any
) -> None:
    stage = stage_preset(settings, 16)
    publish(monkeypatch, [entry()], stage)
    state = stage_state(stage)
    losses = {"loss.logvar": torch.zeros(()), "loss.discriminator.main.1.count": torch.tensor(3)}
    path = saved(tmp_path / "model.ckpt", {"epoch": 1, "state_dict": state | losses})
    found = load_first_stage(path)
    assert found.config == stage.config.autoencoder and found.scale == (1.0,)
    assert found.info.preset == "tiny" and found.network.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[key]) for key, value in found.network.state_dict().items())
    code, said, _ = program("convert", path, tmp_path / "stage.safetensors")
    assert code == 0 and f"first stage, {settings.kind}-f4, preset tiny" in said
    again, images = load_first_stage(tmp_path / "stage.safetensors"), torch.rand(1, 3, 16, 16)
    assert again.hash == found.hash
    assert torch.equal(again.decode(again.encode(images)), found.decode(found.encode(images)))
    for load, words in ((load_model, "alone it cannot draw"), (load_noisy_classifier, "is a first stage")):
        with pytest.raises(ValueError, match=words):
            load(path)
    with pytest.raises(ValueError, match="fits not kl-f32; use the checkpoint of one of tiny"):
        load_first_stage(path, preset="kl-f32")
    del state["decoder.conv_out.bias"]
    with pytest.raises(ValueError, match="fits no published one"):
        load_first_stage(saved(tmp_path / "less.ckpt", {"state_dict": state}))


def test_a_whole_model_is_no_first_stage(file: Any) -> None:
    with pytest.raises(ValueError, match="no first stage .* but a whole model"):
        load_first_stage(file())


def test_words_are_refused_and_numbers_of_tokens_are_read(file: Any, tmp_path: Path, program: Any) -> None:
    path = file("text", guided=True)
    model = load_model(path)
    parts = model.teller.words(["7 199", "", "1 2 3 4 5 6 7"])
    assert parts["text"].tolist() == [
        [101, 7, 199, 102, 0, 0], [101, 102, 0, 0, 0, 0], [101, 1, 2, 3, 4, 102]
    ]  # fmt: skip
    with torch.no_grad():  # the padding is read as well
        told = model.network.encode(Condition(parts=parts), (4, 4)).context
        assert torch.equal(told, model.network.encoders[0](parts["text"]))
    pixels = [
        model.sample(n=1, steps="3", prompts=[words], guidance=scale).pixels
        for words, scale in (("7 199", 1.0), ("8", 1.0), ("7 199", 3.0))
    ]
    assert not torch.equal(pixels[0], pixels[1]) and not torch.equal(pixels[0], pixels[2])
    for words in ("a painting", "200", "-1", "7, 8"):
        code, _, complaint = program("sample", path, "--prompt", words, "--out", tmp_path / "a")
        assert code == 2 and complaint.count("\n") == 1 and "BERT's tokens" in complaint


def test_guidance_needs_a_model_that_learned_without_being_told(file: Any) -> None:
    model = load_model(file("text"))
    with pytest.raises(ValueError, match="guidance=2 cannot work with this model: it always was told"):
        plan(model, GenerateRequest(prompts=("7",), guidance=2.0))


def test_boxes_are_refused_where_their_tokens_are_unknown(file: Any) -> None:
    model = load_model(file("layout"))
    with pytest.raises(ValueError, match="boxes as tokens that its file does not explain"):
        plan(model, GenerateRequest(given="fashion-mnist", given_boxes="boxes.json"))


def test_what_no_encoder_was_trained_for_lies_beside_the_latents(file: Any) -> None:
    model, images = load_model(file("inpaint")), 2 * torch.rand(1, 3, 16, 16) - 1
    hole = torch.zeros(1, 1, 16, 16, dtype=torch.bool)
    hole[..., :8, :8] = True
    parts = model.teller.parts({HOLE: hole}, images)
    beside = model.network.encode(Condition(parts=parts), torch.Size((4, 4))).concat
    assert torch.equal(beside[:, :3], model.first_stage.encode(masked(images, hole, -1.0))), "holes are black"
    assert beside[0, 3].tolist() == [[1, 1, -1, -1]] * 2 + [[-1] * 4] * 2
    small = load_model(file("low_res"))
    parts = {"low_res": torch.rand(1, 3, 4, 4)}
    beside = small.network.encode(Condition(parts=parts), torch.Size((4, 4))).concat
    assert torch.equal(beside, parts["low_res"])


def test_maps_are_told_by_the_encoder_of_the_file(file: Any) -> None:
    model = load_model(file("map"))
    levels = torch.randint(0, 4, (1, 16, 16))
    parts = model.teller.parts({"map": levels}, None)
    beside = model.network.encode(Condition(parts=parts), torch.Size((4, 4))).concat
    assert beside.shape == (1, 3, 4, 4)
