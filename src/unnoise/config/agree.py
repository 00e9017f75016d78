"""What settings and data say of one thing, which must agree: sides, channels, counts."""

from dataclasses import replace
from typing import TypeVar

from unnoise.config.model import LatentConfig
from unnoise.config.schema import DataConfig
from unnoise.networks.settings import EncoderUNetSettings, NetworkSettings

T = TypeVar("T", int, int | None)


def agree(name: str, setting: int | None, data: T) -> T:
    """The data's value, unless the setting names another one."""
    if setting is not None and setting != data:
        raise ValueError(
            f"{name}={setting} does not fit the data, which say {data}; leave {name} out, or change the data"
        )
    return data


def sized(data: DataConfig, owner: str, size: int | None, channels: int | None) -> DataConfig:
    """The data settings, what they leave open taken from the network's."""
    if size and data.size and size != data.size:
        raise ValueError(f"{owner}.image_size={size} and data.size={data.size} differ; set one of them")
    return replace(data, size=data.size or size, channels=data.channels or channels)


def check_size(
    latent: LatentConfig | None, network: NetworkSettings | EncoderUNetSettings, size: int
) -> None:
    """Refuse a side (pixels) that the first stage or the network does not divide."""
    factor = 1 if latent is None else latent.factor
    if size % factor:
        raise ValueError(
            f"a side of {size} pixels is no multiple of {factor}, the first stage's down-sampling; use "
            f"{max(1, size // factor) * factor}"
        )
    try:
        network.check_side(size // factor)
    except ValueError as error:
        if factor == 1:
            raise
        raise ValueError(f"pictures of {size} pixels become latents of {size // factor}: {error}") from None
