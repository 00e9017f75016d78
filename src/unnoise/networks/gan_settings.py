"""What a GAN's two networks are built from: frozen dataclasses, free of torch.

A compact BigGAN (Brock, Donahue, Simonyan 2019, arXiv 1809.11096).
"""

from dataclasses import dataclass

from unnoise.networks.settings import check_multiple


@dataclass(frozen=True, kw_only=True)
class GeneratorSettings:
    """The generator: z and a class in, a picture out, through residual blocks that double its sides."""

    image_size: int | None = None
    """Side in pixels; None until the data are known."""
    out_channels: int | None = None
    """Channels of a picture; None until the data are known."""
    classes: int | None = None
    """Rows of the class embedding; None without classes (or data not yet known)."""
    chunk: int = 16
    """Numbers of z that each level reads for itself (hierarchical latents); z has one chunk a level."""
    class_width: int = 64
    """Width of the class embedding that all blocks share."""
    width: int = 32
    """Channels before `channel_mult`."""
    channel_mult: tuple[float, ...] = (1, 2, 4)
    """Width of each level from the picture's own size on, each half the size of the one before."""
    patch: int = 1
    """Side of the squares of pixels that the last layer draws at each position, as `UNetSettings.patch`."""
    depth: int = 1
    """Residual blocks a level; the first one doubles the sides."""
    attention: tuple[int, ...] = ()
    """Down-sampling factors with self-attention, of one head."""

    @property
    def latent(self) -> int:
        """Numbers in z."""
        return self.chunk * len(self.channel_mult)

    @property
    def size_factor(self) -> int:
        """The side of a picture must be a multiple of this."""
        return int(self.patch * 2 ** (len(self.channel_mult) - 1))

    def check_side(self, side: int) -> None:
        """Refuse a side (pixels) that the up-samplings do not reach; the error names those that fit."""
        check_multiple(side, self.size_factor)

    def check(self) -> None:
        """Refuse numbers that make no network, and what is still open."""
        numbers = ("image_size", "out_channels", "chunk", "class_width", "width", "patch", "depth")
        _check(self, "generator", numbers, attended=[2**k for k in range(len(self.channel_mult) - 1)])
        self.check_side(self.image_size or 0)


@dataclass(frozen=True, kw_only=True)
class ProjectionSettings:
    """The discriminator: a picture and a class in, how real it looks out, through blocks that halve sides.

    The class enters by projection (Miyato & Koyama 2018, arXiv 1802.05637).
    """

    image_size: int | None = None
    """Side in pixels; None until the data are known."""
    in_channels: int | None = None
    """Channels of a picture; None until the data are known."""
    classes: int | None = None
    """Rows of the class embedding; None without classes (or data not yet known)."""
    width: int = 32
    """Channels before `channel_mult`."""
    channel_mult: tuple[float, ...] = (1, 2, 4)
    """Width of each level from the picture's own size on, each half the size of the one before."""
    patch: int = 1
    """Side of the squares of pixels that the first layer sees as one position, as `UNetSettings.patch`."""
    depth: int = 1
    """Residual blocks a level; the first one halves the sides."""
    attention: tuple[int, ...] = ()
    """Down-sampling factors with self-attention, of one head."""

    @property
    def size_factor(self) -> int:
        """The side of a picture must be a multiple of this."""
        return int(self.patch * 2 ** (len(self.channel_mult) - 1))

    def check_side(self, side: int) -> None:
        """Refuse a side (pixels) that the down-samplings do not divide; the error names those that fit."""
        check_multiple(side, self.size_factor)

    def check(self) -> None:
        """Refuse numbers that make no network, and what is still open."""
        numbers = ("image_size", "in_channels", "width", "patch", "depth")
        _check(self, "discriminator", numbers, attended=[2**k for k in range(1, len(self.channel_mult))])
        self.check_side(self.image_size or 0)


def _check(
    settings: GeneratorSettings | ProjectionSettings,
    owner: str,
    numbers: tuple[str, ...],
    *,
    attended: list[int],
) -> None:
    for name in numbers:
        value = getattr(settings, name)
        if value is None or value < 1:
            raise ValueError(f"the {owner}'s {name}={value} makes no network; use 1 or more")
    if settings.classes is not None and settings.classes < 1:
        raise ValueError(f"the {owner}'s classes={settings.classes} makes no network; use 1 or more")
    widths = [int(mult * settings.width) for mult in settings.channel_mult]
    if len(widths) < 2 or min(widths) < 1:
        raise ValueError(
            f"the {owner}'s channel_mult={settings.channel_mult} with width={settings.width} must name two "
            "levels or more, each of one channel or more"
        )
    for factor in settings.attention:
        if factor not in attended:
            raise ValueError(
                f"the {owner}'s attention={settings.attention} names {factor}, but its blocks end at factors "
                f"{', '.join(map(str, attended))}; use those"
            )
        if (settings.image_size or 0) // (settings.patch * factor) < 2:
            raise ValueError(
                f"the {owner}'s attention={settings.attention} at factor {factor} of {settings.image_size} "
                "pixels has one position to look at; use a smaller factor"
            )
