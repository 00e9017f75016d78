"""Completes a run's settings with what only the data can say: size, channels, classes."""

from dataclasses import replace
from typing import TypeVar

from unnoise.config.schema import DataConfig, ModelConfig, TrainConfig

T = TypeVar("T", int, int | None)


def data_config(config: TrainConfig) -> DataConfig:
    """The data settings with the model's size and channels where they leave them open; refuses misfits."""
    model, data = config.model, config.data
    if model.image_size and data.size and model.image_size != data.size:
        raise ValueError(
            f"model.image_size={model.image_size} and data.size={data.size} differ; set one of them"
        )
    if size := data.size or model.image_size:
        model.network.check_side(size)
    return replace(data, size=data.size or model.image_size, channels=data.channels or model.channels)


def resolve(config: TrainConfig, *, size: int, channels: int, classes: int) -> TrainConfig:
    """The complete settings of a run on data of this size (pixels), channels and classes (0: unlabelled).

    ValueError where a setting contradicts the data. Label dropout adds the null class as the last row.
    """
    model = config.model
    image_size = _agree("model.image_size", model.image_size, size)
    image_channels = _agree("model.channels", model.channels, channels)
    label_dropout = config.label_dropout if classes else 0.0
    rows = classes + (label_dropout > 0) if classes else None
    outputs = image_channels * (2 if model.variance in ("learned", "learned_range") else 1)
    network = replace(
        model.network,
        in_channels=_agree("model.network.in_channels", model.network.in_channels, image_channels),
        out_channels=_agree("model.network.out_channels", model.network.out_channels, outputs),
        classes=_agree("model.network.classes", model.network.classes, rows),
    )
    resolved = replace(model, image_size=image_size, channels=image_channels, network=network)
    return replace(
        config,
        model=resolved,
        data=replace(config.data, size=image_size, channels=image_channels),
        label_dropout=label_dropout,
    )


def null_label(config: TrainConfig) -> int | None:
    """Index of the null class, or None for a model without one."""
    rows = config.model.network.classes
    return rows - 1 if rows and config.label_dropout > 0 else None


def check_model(model: ModelConfig) -> None:
    """Refuse settings that contradict one another before anything is built."""
    learned = model.variance in ("learned", "learned_range")
    network = model.network
    if model.channels and network.out_channels and network.out_channels != model.channels * (1 + learned):
        raise ValueError(
            f"model.network.out_channels={network.out_channels} does not fit {model.channels} channels with "
            f"{model.variance} variance; leave it out or use {model.channels * (1 + learned)}"
        )


def _agree(name: str, setting: int | None, data: T) -> T:
    """The data's value, unless the setting names another one."""
    if setting is not None and setting != data:
        raise ValueError(
            f"{name}={setting} does not fit the data, which say {data}; leave {name} out, or change the data"
        )
    return data
