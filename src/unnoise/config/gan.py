"""Completes a GAN's settings with what only the data can say."""

from dataclasses import replace

from unnoise.config.agree import agree
from unnoise.config.schema import GanConfig, TrainConfig


def resolve_gan(config: TrainConfig, *, size: int, channels: int, classes: int) -> TrainConfig:
    """The complete settings of a GAN on data of this size (pixels), channels and classes (0: unlabelled).

    ValueError where a setting contradicts the data, or makes no network.
    """
    settings = config.gan or GanConfig()
    if channels not in (1, 3):
        raise ValueError(
            f"data.channels={channels}: a GAN draws grey (1) or RGB (3); set data.channels to 1 or 3"
        )
    where, rows = "gan.generator", classes or None
    generator = replace(
        settings.generator,
        image_size=agree(f"{where}.image_size", settings.generator.image_size, size),
        out_channels=agree(f"{where}.out_channels", settings.generator.out_channels, channels),
        classes=agree(f"{where}.classes", settings.generator.classes, rows),
    )
    where = "gan.discriminator"
    discriminator = replace(
        settings.discriminator,
        image_size=agree(f"{where}.image_size", settings.discriminator.image_size, size),
        in_channels=agree(f"{where}.in_channels", settings.discriminator.in_channels, channels),
        classes=agree(f"{where}.classes", settings.discriminator.classes, rows),
    )
    generator.check()
    discriminator.check()
    return replace(
        config,
        gan=replace(settings, generator=generator, discriminator=discriminator),
        compile="off",
        data=replace(config.data, size=size, channels=channels),
    )
