"""Every preset builds what it says; the published ones the original's networks, key by key."""

import gzip
import json
from typing import Any

import pytest
import torch
from torch import nn

from tests.goldens import directory
from tests.networks.unets import encoder_settings_of, settings_of
from unnoise.modelfile import layout
from unnoise.networks.build import build_network
from unnoise.networks.encoder_unet import EncoderUNet
from unnoise.networks.unet import UNet
from unnoise.presets import load_preset, preset_names

MULTS = {512: (0.5, 1, 1, 2, 2, 4, 4), 256: (1, 1, 2, 2, 4, 4), 128: (1, 1, 2, 3, 4), 64: (1, 2, 3, 4)}
"""Default channel multipliers by side (trap 8)."""
GROUP = "adm_published_shapes.json.gz"


def recorded() -> dict[str, Any]:
    path = directory() / GROUP
    return json.loads(gzip.decompress(path.read_bytes()))["models"] if path.exists() else {}


def factors(side: int, resolutions: str) -> list[int]:
    return [side // int(each) for each in resolutions.split(",")]


def network_of(flags: dict[str, Any]) -> nn.Module:
    """The network that flags of the original's scripts mean, on the meta device."""
    with torch.device("meta"):
        if "classifier_width" in flags:
            side = flags["image_size"]
            classifier = encoder_settings_of(
                {
                    "image_size": side,
                    "in_channels": 3,
                    "out_channels": 1000,
                    "model_channels": flags["classifier_width"],
                    "num_res_blocks": flags["classifier_depth"],
                    "attention_resolutions": factors(side, flags["classifier_attention_resolutions"]),
                    "channel_mult": MULTS[side],
                    "num_head_channels": 64,
                    "use_scale_shift_norm": flags["classifier_use_scale_shift_norm"],
                    "resblock_updown": flags["classifier_resblock_updown"],
                    "pool": flags["classifier_pool"],
                }
            )
            return EncoderUNet(classifier)
        upsampler = "large_size" in flags
        side = flags["large_size"] if upsampler else flags["image_size"]
        mult = MULTS[256] if upsampler and side == 512 else MULTS[side]
        args = {
            "num_heads": 4,
            **flags,
            "in_channels": 3,
            "out_channels": 6 if flags.get("learn_sigma") else 3,
            "model_channels": flags["num_channels"],
            "attention_resolutions": factors(side, flags["attention_resolutions"]),
            "channel_mult": mult,
            "num_classes": 1000 if flags.get("class_cond") else None,
            "use_scale_shift_norm": flags.get("use_scale_shift_norm", True),
        }
        return UNet(settings_of(args, super_res=upsampler))


def shapes(network: nn.Module) -> dict[str, list[int]]:
    return {key: list(value.shape) for key, value in network.state_dict().items()}


@pytest.mark.golden
@pytest.mark.parametrize("name", recorded())
def test_keys_and_shapes_are_the_originals(name: str) -> None:
    model = recorded()[name]
    network = network_of(model["flags"])
    assert shapes(network) == model["shapes"]
    assert sum(value.numel() for value in network.parameters()) == model["n_params"]
    assert [key for key, _ in network.named_buffers()] == model["buffers"]


@pytest.mark.golden
@pytest.mark.parametrize("name", recorded())
def test_a_preset_is_this_network(name: str) -> None:
    model = recorded()[name]
    wanted = layout(network_of(model["flags"]))
    found = [p.expect for p in map(load_preset, preset_names()) if p.expect and p.expect.layout == wanted]
    assert found and {expect.parameters for expect in found} == {model["n_params"]}


WITH_EXPECT = [
    name
    for name in preset_names()
    if load_preset(name).expect and load_preset(name).config.kind != "autoencoder"
]
"""Those of first stages are tested beside them."""


@pytest.mark.parametrize("name", WITH_EXPECT)
def test_networks_are_what_presets_expect(name: str) -> None:
    preset = load_preset(name)
    config = preset.published()
    with torch.device("meta"):
        if config.noisy_classifier is not None:
            network: nn.Module = EncoderUNet(config.noisy_classifier.network)
        else:
            network = build_network(config.model.network)
    assert preset.expect is not None
    assert layout(network) == preset.expect.layout
    assert sum(value.numel() for value in network.parameters()) == preset.expect.parameters


@pytest.mark.parametrize(
    ("name", "schedule", "order", "heads", "head_channels"),
    [
        ("adm-64", ("cosine", 1000), "new", 4, 64),
        ("adm-128", ("linear", 1000), "legacy", 4, None),
        ("adm-256", ("linear", 1000), "legacy", 4, 64),
        ("adm-up-64-256", ("linear", 1000), "legacy", 4, None),
        ("adm-up-128-512", ("linear", 1000), "legacy", 4, 64),
        ("iddpm-cifar10", ("cosine", 4000), "legacy", 4, None),
        ("iddpm-lsun-bedroom", ("linear", 1000), "legacy", 1, None),
    ],
)
def test_what_shapes_do_not_show(
    name: str, schedule: tuple[str, int], order: str, heads: int, head_channels: int | None
) -> None:
    """Trap 6: the flags of the READMEs, spelt out again."""
    model = load_preset(name).published().model
    network = model.network
    assert (model.schedule.name, model.schedule.steps) == schedule
    assert (network.attention_order, network.heads, network.head_channels) == (order, heads, head_channels)
    assert (model.predicts, model.variance) == ("eps", "learned_range")


@pytest.mark.parametrize(
    ("side", "depth", "batch", "steps", "lr", "weight_decay", "noise"),
    [
        (64, 4, 1024, 300_000, 6e-4, 0.2, "cosine"),
        (128, 2, 256, 300_000, 3e-4, 0.05, "linear"),
        (256, 2, 256, 500_000, 3e-4, 0.05, "linear"),
        (512, 2, 256, 500_000, 3e-4, 0.05, "linear"),
    ],
)
def test_classifiers_are_trained_as_published(
    side: int, depth: int, batch: int, steps: int, lr: float, weight_decay: float, noise: str
) -> None:
    """The paper's table of classifiers, and the training script's defaults."""
    config = load_preset(f"adm-classifier-{side}").published()
    settings = config.noisy_classifier
    assert settings is not None and settings.noised and config.timesteps.name == "uniform"
    assert (settings.network.depth, settings.network.width, settings.network.pool) == (
        depth,
        128,
        "attention",
    )
    assert (settings.schedule.name, settings.schedule.steps) == (noise, 1000)
    assert (config.batch_size, config.steps) == (batch, steps)
    optimizer = config.optimizer
    assert (optimizer.lr, optimizer.weight_decay, optimizer.decay) == (lr, weight_decay, "linear")
    assert optimizer.warmup_steps == 0 and optimizer.clip_norm is None
    assert (config.data.crop, config.data.flip) == ("random", True)
    assert config.ema.rates == (0.0,)  # the weights themselves


@pytest.mark.parametrize(
    ("name", "variance", "rate", "dropout", "flip"),
    [
        ("ddpm-cifar10", "fixed_large", 2e-4, 0.1, True),
        ("ddpm-lsun-bedroom", "fixed_small", 2e-5, 0.0, False),
        ("ddpm-lsun-church", "fixed_small", 2e-5, 0.0, True),
        ("ddpm-celebahq-256", "fixed_small", 2e-5, 0.0, True),
        ("ddim-celeba-64", "fixed_large", 2e-4, 0.1, True),
    ],
)
def test_what_ddpms_shapes_do_not_show(
    name: str, variance: str, rate: float, dropout: float, flip: bool
) -> None:
    config = load_preset(name).published()
    model = config.model
    assert (model.predicts, model.variance, model.network.dropout) == ("eps", variance, dropout)
    assert (model.schedule.name, model.schedule.steps, model.schedule.rescale_timesteps) == (
        *("linear", 1000), False,
    )  # fmt: skip
    assert (config.optimizer.lr, config.optimizer.clip_norm, config.data.flip) == (rate, 1.0, flip)
    assert (config.objective.name, config.ema.rates, config.label_dropout) == ("simple", (0.9999,), 0)


def test_presets_train_on_anybodys_classes_and_sizes_are_kept() -> None:
    from unnoise.config.resolve import data_config, resolve

    config = load_preset("adm-256").config
    assert data_config(config).size == 256
    assert resolve(config, size=256, channels=3, classes=7).model.network.classes == 7
    classifier = load_preset("adm-classifier-256").config
    assert data_config(classifier).size == 256
    resolved = resolve(classifier, size=256, channels=3, classes=7)
    assert resolved.noisy_classifier is not None and resolved.noisy_classifier.network.classes == 7
    with pytest.raises(ValueError, match="noisy_classifier.network.image_size=256 does not fit the data"):
        resolve(classifier, size=128, channels=3, classes=7)
    with pytest.raises(ValueError, match="two classes at least"):
        resolve(classifier, size=256, channels=3, classes=0)


def test_an_upsampler_sees_twice_the_channels() -> None:
    model = load_preset("adm-up-tiny").published().model
    assert (model.low_res, model.network.in_channels, model.network.out_channels) == (8, 6, 6)


def test_settings_of_another_kind_are_refused() -> None:
    from unnoise.config.resolve import check_kind

    with pytest.raises(ValueError, match="noisy_classifier is set, but kind=diffusion"):
        check_kind(load_preset("adm-classifier-tiny", ["kind=diffusion"]).config)
    with pytest.raises(ValueError, match="its own are under noisy_classifier"):
        check_kind(load_preset("adm-classifier-tiny", ["label_dropout=0.3"]).config)


def test_a_misspelt_key_of_a_family_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from unnoise.presets import load

    entry = {"summary": "", "source": "", "licence": "", "train": {}, "expectt": {}}
    monkeypatch.setattr(load, "_entries", lambda: {"wrong": entry})
    with pytest.raises(ValueError, match="preset wrong: unknown setting expectt; did you mean"):
        load_preset("wrong")
