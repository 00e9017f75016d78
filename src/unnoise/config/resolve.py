"""Completes a run's settings with what only the data can say: size, channels, classes."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from unnoise.config.agree import agree, check_size, sized
from unnoise.config.gan import resolve_gan
from unnoise.config.load import differences, to_yaml
from unnoise.config.model import ModelConfig, ToldConfig
from unnoise.config.schema import (
    AutoencoderConfig,
    ClassifierConfig,
    DataConfig,
    GanConfig,
    NoisyClassifierConfig,
    TrainConfig,
)
from unnoise.networks.conditioner_settings import (
    ClassEmbedderSettings,
    ConditionerSettings,
    FeaturesSettings,
    PatchesSettings,
    SpatialRescalerSettings,
    TextEncoderSettings,
)
from unnoise.networks.settings import UNetSettings

NEEDS = {
    "class": "the class", "text": "captions", "layout": "boxes", "map": "a semantic map",
    "low_res": "the picture in small", "inpaint": "a part of the picture", "grey": "the picture in grey",
}  # fmt: skip
"""What an encoder reads, for people."""
OPEN = {
    TextEncoderSettings: "vocabulary",
    ClassEmbedderSettings: "classes",
    SpatialRescalerSettings: "in_channels",
    PatchesSettings: "in_channels",
    FeaturesSettings: "features",
}
"""Settings of encoders that the data decide."""
KINDS = {
    "diffusion": (
        *("model", "objective", "timesteps", "label_dropout", "sample_steps", "sample_count", "evaluate"),
        *("first_stage", "latents"),
    ),
    "classifier": ("classifier",),
    "noisy_classifier": ("noisy_classifier", "timesteps", "first_stage", "latents"),
    "autoencoder": ("autoencoder",),
    "gan": ("gan", "sample_count", "evaluate"),
}
"""Kind of training -> the settings that not every kind has, but this one."""


def data_config(config: TrainConfig) -> DataConfig:
    """The data settings with the model's size and channels where they leave them open; refuses misfits."""
    check_kind(config)
    model, data = config.model, config.data
    if config.kind == "classifier":
        return data
    if config.kind == "noisy_classifier":
        return _seen_by_classifier(data, config.noisy_classifier or NoisyClassifierConfig())
    if config.kind == "autoencoder":
        stage = config.autoencoder or AutoencoderConfig()
        data = sized(data, "autoencoder", stage.image_size, stage.network.in_channels)
        if data.size:
            stage.network.check_side(data.size)
        return data
    if config.kind == "gan":
        generator = (config.gan or GanConfig()).generator
        data = sized(data, "gan.generator", generator.image_size, generator.out_channels)
        if data.size:
            generator.check_side(data.size)
        return data
    _check_low_res(model)
    data = sized(data, "model", model.image_size, model.channels)
    if data.size:
        check_size(model.latent, model.network, data.size)
    return data


def _seen_by_classifier(data: DataConfig, settings: NoisyClassifierConfig) -> DataConfig:
    """The data settings of a classifier of noisy pictures, or of noisy latents."""
    network, where = settings.network, "noisy_classifier.network"
    if settings.latent is None:
        data = sized(data, where, network.image_size, network.in_channels)
    elif network.image_size:
        side = network.image_size * settings.latent.factor
        if data.size not in (None, side):
            raise ValueError(
                f"{where}.image_size={network.image_size} are latents of {side} pixels, and "
                f"data.size={data.size}; set one of them"
            )
        data = replace(data, size=side)
    if data.size:
        check_size(settings.latent, network, data.size)
    return data


def resolve(
    config: TrainConfig,
    *,
    size: int,
    channels: int,
    classes: int,
    told: Mapping[str, int] | None = None,
) -> TrainConfig:
    """The complete settings of a run on data of this size (pixels), channels and classes (0: unlabelled).

    ValueError where a setting contradicts the data. Label dropout adds the null class as the last row.
    `told`: what encoders read -> its channels, or how many different tokens or classes there are.
    """
    if config.kind == "classifier":
        return _resolve_classifier(config, size=size, channels=channels, classes=classes)
    if config.kind == "noisy_classifier":
        return _resolve_noisy_classifier(config, size=size, channels=channels, classes=classes)
    if config.kind == "autoencoder":
        return _resolve_autoencoder(config, size=size, channels=channels)
    if config.kind == "gan":
        return resolve_gan(config, size=size, channels=channels, classes=classes)
    model = config.model
    _check_low_res(model)
    image_size = agree("model.image_size", model.image_size, size)
    image_channels = agree("model.channels", model.channels, channels)
    if model.latent is not None:
        check_size(model.latent, model.network, image_size)
    label_dropout = config.label_dropout if classes else 0.0
    rows = classes + (label_dropout > 0) if classes else None
    drawn = image_channels if model.latent is None else model.latent.channels
    outputs = drawn * (2 if model.variance in ("learned", "learned_range") else 1)
    encoders = _resolve_told(model, {**(told or {}), "class": rows or 0})
    beside = sum(each.encoder.left for each in encoders if isinstance(each.encoder, SpatialRescalerSettings))
    inputs = drawn + (image_channels if model.low_res else 0) + beside
    if any(each.what == "class" for each in encoders):
        rows = None  # an encoder knows the classes, not the network
    network = replace(
        model.network,
        in_channels=agree("model.network.in_channels", model.network.in_channels, inputs),
        out_channels=agree("model.network.out_channels", model.network.out_channels, outputs),
        classes=agree("model.network.classes", model.network.classes, rows),
    )
    if isinstance(network, UNetSettings):
        network = replace(network, concat_level=model.low_res_noise > 0)
    resolved = replace(model, image_size=image_size, channels=image_channels, network=network, told=encoders)
    _check_low_res(resolved)
    return replace(
        config,
        model=resolved,
        data=replace(config.data, size=image_size, channels=image_channels),
        label_dropout=label_dropout,
    )


def _resolve_told(model: ModelConfig, known: Mapping[str, int]) -> tuple[ToldConfig, ...]:
    """The encoders, what they leave open taken from the data."""
    return tuple(
        replace(each, encoder=_resolve_encoder(f"model.told[{number}]", each, known.get(each.what, 0)))
        for number, each in enumerate(model.told)
    )


def _resolve_encoder(where: str, told: ToldConfig, count: int) -> ConditionerSettings:
    encoder = told.encoder
    if not count:
        raise ValueError(
            f"{where} tells the model {NEEDS[told.what]}, and the data have none; name data that do, or "
            "leave it out"
        )
    for kind, name in OPEN.items():
        if isinstance(encoder, kind):
            settled: Any = {name: agree(f"{where}.encoder.{name}", getattr(encoder, name), count)}
            encoder = replace(encoder, **settled)
    encoder.check()
    return encoder


def _resolve_classifier(config: TrainConfig, *, size: int, channels: int, classes: int) -> TrainConfig:
    settings = config.classifier or ClassifierConfig()
    _check_classes(classes)
    if channels not in (1, 3):
        raise ValueError(
            f"data.channels={channels}: a classifier sees grey (1) or RGB (3); set data.channels to 1 or 3"
        )
    rows = agree("classifier.network.classes", settings.network.classes, classes)
    return replace(
        config,
        classifier=replace(settings, network=replace(settings.network, classes=rows)),
        data=replace(config.data, size=size, channels=channels),
    )


def _resolve_noisy_classifier(config: TrainConfig, *, size: int, channels: int, classes: int) -> TrainConfig:
    settings = config.noisy_classifier or NoisyClassifierConfig()
    _check_classes(classes)
    where, network, latent = "noisy_classifier.network", settings.network, settings.latent
    check_size(latent, network, size)
    side, seen = (size, channels) if latent is None else (size // latent.factor, latent.channels)
    network = replace(
        network,
        image_size=agree(f"{where}.image_size", network.image_size, side),
        in_channels=agree(f"{where}.in_channels", network.in_channels, seen),
        classes=agree(f"{where}.classes", network.classes, classes),
    )
    network.check()
    return replace(
        config,
        noisy_classifier=replace(settings, network=network),
        data=replace(config.data, size=size, channels=channels),
    )


def _resolve_autoencoder(config: TrainConfig, *, size: int, channels: int) -> TrainConfig:
    settings = config.autoencoder or AutoencoderConfig()
    network = replace(
        settings.network,
        in_channels=agree("autoencoder.network.in_channels", settings.network.in_channels, channels),
    )
    network.check()
    network.check_side(size)
    image_size = agree("autoencoder.image_size", settings.image_size, size)
    return replace(
        config,
        autoencoder=replace(settings, network=network, image_size=image_size),
        compile="off",
        data=replace(config.data, size=size, channels=channels),
    )


def _check_classes(classes: int) -> None:
    if classes < 2:
        raise ValueError(
            f"a classifier needs pictures of two classes at least, the data have {classes or 'no labels'}; "
            "name data with labels, such as a folder with a sub-folder a class"
        )


def settings_yaml(config: TrainConfig) -> str:
    """YAML of a run's settings, complete but for those that its kind of training does not have."""
    return to_yaml(config, without=_foreign(config))


def _foreign(config: TrainConfig) -> list[str]:
    """Settings that only other kinds of training have."""
    return [name for names in KINDS.values() for name in names if name not in KINDS[config.kind]]


def check_kind(config: TrainConfig) -> None:
    """Refuse settings of another kind of training than the one that `kind` names."""
    for kind in ("classifier", "noisy_classifier", "autoencoder", "gan"):
        if config.kind != kind and getattr(config, kind) is not None:
            raise ValueError(
                f"{kind} is set, but kind={config.kind} trains none; leave it out, or set kind={kind}"
            )
    if config.kind == "diffusion":
        return
    without = replace(config, **{name: getattr(TrainConfig(), name) for name in _foreign(config)})
    foreign = differences(without, config)
    if foreign:
        name = {"autoencoder": "a first stage", "gan": "a GAN"}.get(config.kind, "a classifier")
        raise ValueError(
            f"{name} has no such setting ({foreign[0]}); leave it out, its own are under {config.kind}"
        )


def null_label(config: TrainConfig) -> int | None:
    """Index of the null class, or None for a model without one."""
    rows = config.model.class_rows
    return rows - 1 if rows and config.label_dropout > 0 else None


def check_model(model: ModelConfig) -> None:
    """Refuse settings that contradict one another before anything is built."""
    _check_low_res(model)
    learned = model.variance in ("learned", "learned_range")
    if not 0 <= model.v_posterior <= 1 or (model.v_posterior and model.variance != "fixed_small"):
        raise ValueError(
            f"model.v_posterior={model.v_posterior:g} with model.variance={model.variance}: it is the share "
            "of beta in the variance fixed_small; use 0..1 with that one, 0 with others"
        )
    network = model.network
    channels = model.channels if model.latent is None else model.latent.channels
    if channels and network.out_channels and network.out_channels != channels * (1 + learned):
        raise ValueError(
            f"model.network.out_channels={network.out_channels} does not fit {channels} channels with "
            f"{model.variance} variance; leave it out or use {channels * (1 + learned)}"
        )


def _check_low_res(model: ModelConfig) -> None:
    """Refuse an upsampler that enlarges nothing, and noise where there is no small picture."""
    if model.low_res is None:
        if model.low_res_noise:
            raise ValueError(
                f"model.low_res_noise={model.low_res_noise:g} is for upsamplers; leave it out, or set "
                "model.low_res, the side of the small pictures"
            )
    elif not 0 < model.low_res < (model.image_size or math.inf):
        raise ValueError(
            f"model.low_res={model.low_res} is not below model.image_size={model.image_size}; use 1.."
            f"{(model.image_size or 2) - 1}, or leave it out for a model that is no upsampler"
        )
    if model.low_res is not None and model.latent is not None:
        raise ValueError(
            f"model.low_res={model.low_res} is for models of pixels; a latent one is told the small picture "
            "by an encoder: model.told, what=low_res"
        )
    if not 0 <= model.low_res_noise < 1:
        raise ValueError(f"model.low_res_noise={model.low_res_noise:g} is not possible; use 0 or less than 1")
    network = model.network
    if not isinstance(network, UNetSettings):
        if not model.low_res_noise:
            return
        raise ValueError(
            f"model.low_res_noise={model.low_res_noise:g}, but a network of kind {network.kind} is not "
            "told of it; use 0, or model.network.kind=adm"
        )
    if network.concat_level and not model.low_res_noise:
        raise ValueError(
            "model.network.concat_level=True, but there is no noise to be told of: leave it out, it follows "
            "model.low_res_noise"
        )
