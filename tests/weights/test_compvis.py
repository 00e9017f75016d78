"""CompVis's latent models: every published one key by key, and their checkpoints taken apart."""

import dataclasses
import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.goldens import directory, manifest
from tests.networks.test_conditioners import conditioner_settings_of
from tests.networks.unets import ldm_settings_of
from tests.weights.latents import encoder_of
from unnoise.diffusion.schedule import make_betas
from unnoise.modelfile import layout
from unnoise.networks.autoencoder import build_first_stage
from unnoise.networks.build import build_network
from unnoise.networks.settings import UNetSettings
from unnoise.presets import latent_presets, load_preset
from unnoise.weights.compvis import AVERAGE, ENCODER, FIRST_STAGE, NETWORK, load, recognise, split

GROUP = "ldm_published_shapes.json.gz"


def recorded() -> dict[str, Any]:
    """Those with a U-Net; first stages have tests of their own."""
    path = directory() / GROUP
    models = json.loads(gzip.decompress(path.read_bytes()))["models"] if path.exists() else {}
    return {name: model for name, model in models.items() if "unet" in model}


def shapes_of(spec: dict[str, Any]) -> dict[str, list[int]]:
    if "same_shapes_as" in spec:
        name, part = spec["same_shapes_as"].split(" / ")
        return recorded()[name][part]["shapes"]
    return spec["shapes"]


def built(build: Any, settings: Any) -> nn.Module:
    with torch.device("meta"):
        return build(settings)


def check(network: nn.Module, spec: dict[str, Any]) -> None:
    """Keys, shapes and count."""
    assert {key: list(value.shape) for key, value in network.state_dict().items()} == shapes_of(spec)
    assert sum(p.numel() for p in network.parameters()) == spec["n_params"]
    assert not list(network.buffers())


@pytest.mark.golden
@pytest.mark.parametrize("name", recorded())
def test_published_unets_and_encoders_are_the_originals(name: str) -> None:
    spec = recorded()[name]
    settings = ldm_settings_of(spec["unet"]["params"])
    network = built(build_network, settings)
    check(network, spec["unet"])
    known = [preset for preset in latent_presets().values() if preset.expect.layout == layout(network)]
    assert known, "no preset"
    encoder = spec["cond_stage"]
    for preset in known:
        model = preset.published().model
        assert computed(model.network) == computed(settings)
        schedule = spec["schedule"]
        assert (model.schedule.beta_start, model.schedule.beta_end, model.schedule.steps) == (
            schedule["linear_start"],
            schedule["linear_end"],
            schedule["timesteps"],
        )
        assert preset.expect.scale == (None if spec["scale_by_std"] else spec["scale_factor"])
        assert preset.config.objective.error == spec["loss_type"]
        stage = load_preset(preset.expect.first_stage).expect
        assert stage is not None and stage.parameters == spec["first_stage"]["n_params"]
        if not isinstance(encoder, dict) or not encoder["n_params"]:
            assert encoder_of(preset) is None
            continue
        assert model.told[0].encoder == conditioner_settings_of(encoder["params"])
        check(encoder_of(preset), encoder)


def computed(settings: UNetSettings) -> UNetSettings:
    """What decides the numbers: heads count only where nothing overrides them."""
    heads = 1 if settings.head_channels else settings.heads
    return dataclasses.replace(settings, heads=heads, checkpoint=False)


def checkpoint(name: str, *, average: bool = True) -> dict[str, Tensor]:
    """A state dict as CompVis's files of a published model have it, without memory."""
    preset = latent_presets()[name]
    model, encoder = preset.published().model, encoder_of(preset)
    stage = load_preset(preset.expect.first_stage).config.autoencoder
    assert stage is not None
    state = {}
    network = built(build_network, model.network).state_dict()
    for prefix, part in (
        (NETWORK, network),
        (FIRST_STAGE, built(build_first_stage, stage.network).state_dict()),
        (ENCODER, encoder.state_dict() if encoder else {}),
    ):
        state |= {prefix + key: value for key, value in part.items()}
    if average:
        state |= {AVERAGE + key.replace(".", ""): torch.empty_like(value) for key, value in network.items()}
        state |= {"model_ema.decay": torch.tensor(0.9999), "model_ema.num_updates": torch.tensor(3)}
    s = model.schedule
    state["betas"] = make_betas(s.name, s.steps, start=s.beta_start, end=s.beta_end).float()
    if preset.expect.scale is None:
        state["scale_factor"] = torch.tensor(0.7)
    state[FIRST_STAGE + "loss.logvar"] = torch.zeros(())
    return state


@pytest.mark.parametrize("name", latent_presets())
def test_every_published_checkpoint_is_recognised(name: str) -> None:
    preset, state = latent_presets()[name], checkpoint(name)
    found = recognise(split(state, Path("model.ckpt")), Path("model.ckpt"), name=name)
    assert (found.name, found.config, found.averaged) == (name, preset.published().model, True)
    assert found.scale == pytest.approx(preset.expect.scale or 0.7)
    encoder = encoder_of(preset)
    for network, part in (
        (built(build_network, found.config.network), found.network_state),
        (built(build_first_stage, found.first_stage), found.first_stage_state),
        *([(encoder, found.encoder_state)] if encoder else []),
    ):
        network.load_state_dict(part, strict=True, assign=True)
    plain = split(checkpoint(name, average=False), Path("model.ckpt"))
    assert not plain.averaged and plain.network.keys() == found.network_state.keys()


def test_an_average_is_taken_weight_by_weight_and_must_be_whole() -> None:
    state = {NETWORK + "a.b.weight": torch.zeros(2), NETWORK + "a.bias": torch.zeros(2)}
    state |= {AVERAGE + "abweight": torch.ones(2)}
    with pytest.raises(ValueError, match="averages 1 of 2 weights, a.bias not"):
        split(state, Path("x.ckpt"))
    parts = split(state | {AVERAGE + "abias": torch.full((2,), 2.0)}, Path("x.ckpt"))
    assert parts.network["a.b.weight"].tolist() == [1, 1] and parts.network["a.bias"].tolist() == [2, 2]


def test_unlike_files_are_refused() -> None:
    path, name = Path("model.ckpt"), "ldm-semantic-256"
    state = checkpoint(name)
    same = recognise(split(checkpoint("ldm-ffhq-256"), path), path)
    assert same.name == "", "three published models are alike"
    with pytest.raises(ValueError, match="fits not ldm-ffhq-256"):
        recognise(split(state, path), path, name="ldm-ffhq-256")
    with pytest.raises(ValueError, match="'ldm' is no published latent model"):
        recognise(split(state, path), path, name="ldm")
    with pytest.raises(ValueError, match="1000 betas, .* are not those of ldm-semantic-256"):
        recognise(split(state | {"betas": state["betas"] * 1.01}, path), path)
    less = {key: value for key, value in state.items() if key != FIRST_STAGE + "decoder.conv_out.bias"}
    with pytest.raises(ValueError, match="is not vq-f4, that of ldm-semantic-256"):
        recognise(split(less, path), path)
    with pytest.raises(ValueError, match="no weights under model.diffusion_model"):
        split({"a": torch.zeros(1)}, path)
    church = {k: v for k, v in checkpoint("ldm-lsun-church-256").items() if k != "scale_factor"}
    with pytest.raises(ValueError, match="lacks scale_factor"):
        recognise(split(church, path), path)


class ModelCheckpoint:
    """Named in a file as Lightning's class of this name is."""


class Harmful:
    def __reduce__(self) -> Any:
        return print, ("run",)


def test_files_are_read_and_nothing_in_them_is_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from unnoise.weights import torchfile

    name = f"{ModelCheckpoint.__module__}.ModelCheckpoint"
    content = {"state_dict": {NETWORK + "a": torch.ones(1)}, "callbacks": {ModelCheckpoint: {"best": 1.0}}}
    torch.save(content, tmp_path / "plain.ckpt")
    with pytest.raises(ValueError, match=f"holds code besides weights .*{ModelCheckpoint.__name__}"):
        torchfile.read_checkpoint(tmp_path / "plain.ckpt")
    monkeypatch.setattr(torchfile, "LIGHTNING", (name,))
    assert list(torchfile.read_checkpoint(tmp_path / "plain.ckpt")) == [NETWORK + "a"]
    torch.save(content | {"more": Harmful()}, tmp_path / "harmful.ckpt")
    with pytest.raises(ValueError, match="holds code"):
        load(tmp_path / "harmful.ckpt")
    assert "run" not in capsys.readouterr().out
    torch.save({"state_dict": {"a": [1]}}, tmp_path / "list.ckpt")
    with pytest.raises(ValueError, match="holds more than weights"):
        load(tmp_path / "list.ckpt")


def test_the_layout_of_a_whole_model_is_understood() -> None:
    """ "ldm_layout" of ldm_schedules: with an average and a scale that was measured."""
    if not (directory() / "ldm_schedules.json").exists():
        pytest.skip("ldm_schedules is not there")
    layout = manifest("ldm_schedules")["ldm_layout"]["state_dict_keys_with_ema_scale_by_std_learn_logvar"]
    state = {key: torch.ones(shape) for key, shape in layout.items()}
    parts = split(state, Path("x.ckpt"))
    assert list(parts.network) == ["p"] and parts.averaged and parts.scale == 1.0
    assert parts.betas is not None and len(parts.betas) == 1000
