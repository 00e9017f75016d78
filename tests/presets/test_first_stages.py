"""Every published first stage is a preset, key by key (ldm_published_shapes)."""

import gzip
import json
from typing import Any

import pytest
import torch

from tests.goldens import directory
from tests.networks.first_stages import first_stage_settings_of
from unnoise.config.load import from_yaml
from unnoise.config.resolve import data_config, resolve, settings_yaml
from unnoise.config.schema import TrainConfig
from unnoise.modelfile import layout
from unnoise.networks.autoencoder import build_first_stage
from unnoise.networks.discriminator import Discriminator
from unnoise.networks.first_stage_settings import DiscriminatorSettings
from unnoise.presets import load_preset, preset_names

GROUP = "ldm_published_shapes.json.gz"
STAGES = [name for name in preset_names() if load_preset(name).config.kind == "autoencoder"]


def recorded() -> dict[str, dict[str, Any]]:
    """ "MODEL / first_stage" or "MODEL / autoencoder" -> what is recorded of it, shapes included."""
    path = directory() / GROUP
    if not path.exists():
        return {}
    models = json.loads(gzip.decompress(path.read_bytes()))["models"]
    found = {
        f"{name} / {part}": model[part]
        for name, model in models.items()
        for part in ("first_stage", "autoencoder")
        if isinstance(model.get(part), dict)
    }
    return {
        name: {**found[spec["same_shapes_as"]], "params": spec["params"]}
        if "same_shapes_as" in spec
        else spec
        for name, spec in found.items()
    }


def has_discriminator(spec: dict[str, Any]) -> bool:
    return any(key.startswith("loss.discriminator.") for key in spec["shapes"])


@pytest.mark.golden
@pytest.mark.parametrize("name", recorded())
def test_keys_and_shapes_are_the_originals(name: str) -> None:
    spec = recorded()[name]
    with torch.device("meta"):
        network = build_first_stage(first_stage_settings_of(spec["params"]))
    wanted = {key: shape for key, shape in spec["shapes"].items() if not key.startswith("loss.")}
    assert {key: list(value.shape) for key, value in network.state_dict().items()} == wanted
    count = sum(value.numel() for value in network.parameters())
    assert count == spec["n_params"] - spec["n_params_by_child"]["loss"]
    assert not list(network.buffers()) and all(key.startswith("loss.") for key in spec["buffers"])
    same = [preset for preset in STAGES if expected_layout(preset) == layout(network)]
    assert same, "no preset"


@pytest.mark.golden
@pytest.mark.parametrize("name", [name for name, spec in recorded().items() if has_discriminator(spec)])
def test_discriminators_are_the_originals(name: str) -> None:
    spec = recorded()[name]
    layers = spec["params"]["lossconfig"]["params"].get("disc_num_layers", 3)
    network = Discriminator(DiscriminatorSettings(layers=layers), 3)
    prefix = "loss.discriminator."
    wanted = {key[len(prefix) :]: v for key, v in spec["shapes"].items() if key.startswith(prefix)}
    assert {key: list(value.shape) for key, value in network.state_dict().items()} == wanted


def expected_layout(preset: str) -> str | None:
    expect = load_preset(preset).expect
    return expect.layout if expect else None


@pytest.mark.parametrize("name", [name for name in STAGES if load_preset(name).expect])
def test_networks_are_what_presets_expect(name: str) -> None:
    preset = load_preset(name)
    with torch.device("meta"):
        network = build_first_stage(preset.published().autoencoder.network)
    assert layout(network) == preset.expect.layout
    assert sum(value.numel() for value in network.parameters()) == preset.expect.parameters


@pytest.mark.parametrize(
    ("name", "codes", "weight", "start", "layers"),
    [
        ("kl-f4", None, 0.5, 50001, 3),
        ("kl-f8", None, 0.5, 50001, 3),
        ("kl-f16", None, 0.5, 50001, 3),
        ("kl-f32", None, 0.5, 50001, 3),
        ("vq-f4", 8192, 0.75, 0, 3),
        ("vq-f4-noattn", 8192, 0.75, 11, 3),
        ("vq-f8", 16384, 0.6, 1, 2),
        ("vq-f8-n256", 256, 0.75, 250001, 3),
        ("vq-f16", 16384, 0.75, 250001, 2),
    ],
)
def test_what_shapes_do_not_show(
    name: str, codes: int | None, weight: float, start: int, layers: int
) -> None:
    """The table of first stages, spelt out again (systems.md, section 5)."""
    config = load_preset(name).published()
    stage = config.autoencoder
    assert (stage.adversary.weight, stage.adversary.start) == (weight, start)
    assert (stage.adversary.network.layers, stage.adversary.network.width) == (layers, 64)
    assert (stage.adversary.loss, stage.pixel_loss, stage.perceptual_weight) == ("hinge", "l1", 1.0)
    assert config.optimizer.betas == (0.5, 0.9) and config.optimizer.lr == pytest.approx(4.5e-6 * 24)
    if codes:
        assert (stage.network.codes, stage.network.beta_on, stage.network.beta) == (codes, "codebook", 0.25)
        assert stage.codebook_weight == 1.0
    else:
        assert stage.kl_weight == 1e-6


def test_first_stages_train_on_anybodys_channels_and_sizes_that_fit() -> None:
    config = load_preset("kl-f4-tiny").config
    resolved = resolve(config, size=48, channels=1, classes=7)
    assert resolved.autoencoder.network.in_channels == 1 and resolved.autoencoder.image_size == 48
    assert from_yaml(TrainConfig, settings_yaml(resolved)).autoencoder == resolved.autoencoder
    with pytest.raises(ValueError, match="50 pixels is no multiple of 4.*use 48 or 52"):
        resolve(config, size=50, channels=3, classes=0)
    assert data_config(load_preset("kl-f8").config).size == 256


def test_settings_of_another_kind_are_refused() -> None:
    config = load_preset("kl-f4-tiny", ["objective.name=simple"]).config
    with pytest.raises(ValueError, match="a first stage has no such setting .objective.name"):
        data_config(config)
    with pytest.raises(ValueError, match="autoencoder is set, but kind=diffusion trains none"):
        data_config(load_preset("kl-f4-tiny", ["kind=diffusion"]).config)
