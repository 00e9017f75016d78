"""What a diffusion model is, as frozen dataclasses: the settings that its file keeps and drawing needs."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from unnoise.config.kinds import ByKind
from unnoise.networks.conditioner_settings import ClassEmbedderSettings, ConditionerSettings
from unnoise.networks.settings import NetworkSettings, UNetSettings


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """Which betas a model is trained on."""

    name: Literal["linear", "cosine", "scaled_linear", "sqrt"] = "linear"
    steps: int = 1000
    beta_start: float | None = None
    """First beta; None takes the schedule's own (linear: 1e-4 scaled by 1000/steps)."""
    beta_end: float | None = None
    rescale_timesteps: bool = False
    """Tell the network t * 1000 / steps instead of t (Improved DDPM's default)."""


Told = Literal["class", "text", "layout", "map", "low_res", "inpaint", "grey"]


@dataclass(frozen=True, kw_only=True)
class ToldConfig:
    """One thing that a model is told besides x and t, and how its network reads it."""

    what: Told
    """class; text: captions; layout: boxes with classes; map: a class for every pixel; low_res: the picture
    in small; inpaint: the picture without a region, and which; grey: the picture without its colours."""
    encoder: Annotated[ConditionerSettings, ByKind()]
    """tokens, class, features and patches are read by cross-attention, spatial lies beside x."""
    dropout: float = 0.1
    """Share of the training pictures that are not told it, which classifier-free guidance needs."""
    words: int = 4096
    """Entries at most of the vocabulary that is built from the captions; for text."""
    frozen: str = ""
    """Folder of a frozen text encoder in transformers' layout, whose features an encoder of kind features
    reads instead of a vocabulary of its own; for text."""
    length: int = 77
    """Tokens of a caption at most, of that encoder."""
    tag_dropout: float = 0.0
    """Share of the training pictures that are told their caption without some of its tags, the parts after
    the first comma: every number of them equally often. So short prompts work; for text of a vocabulary."""
    missing: Literal["refuse", "empty"] = "refuse"
    """What of pictures without a caption: refuse the data, or tell them nothing; for text."""
    boxes: int = 16
    """Boxes of a picture at most, the largest; for layout."""
    grid: int = 16
    """Places of a box's corners in each direction; for layout."""
    factor: int = 4
    """How many times smaller the small picture is; for low_res."""
    degradation: Literal["bicubic", "area", "worn"] = "bicubic"
    """How it is made: by a filter, or worn as found pictures are (see data/degrade.py); for low_res."""
    holes: Literal["box", "half", "strokes", "wide", "mixed"] = "mixed"
    """What is taken out of pictures; for inpaint."""
    hole: Literal["grey", "black"] = "grey"
    """What is seen there; for inpaint. The published model has seen black."""


@dataclass(frozen=True, kw_only=True)
class LatentConfig:
    """The latents that a model draws in."""

    channels: int
    factor: int
    """Pixels that a latent position stands for in each direction."""
    first_stage: str
    """Hash of the first stage: latents of another mean nothing."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """A diffusion model: its network, its schedule, what the network predicts."""

    network: Annotated[NetworkSettings, ByKind()] = field(default_factory=UNetSettings)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    predicts: Literal["eps", "x0", "v", "mean"] = "eps"
    variance: Literal["fixed_small", "fixed_large", "learned", "learned_range"] = "learned_range"
    v_posterior: float = 0.0
    """Share of beta in the variance fixed_small; 0 is the posterior's (latent diffusion)."""
    image_size: int | None = None
    """Side in pixels that it is trained at; None takes the data's."""
    channels: int | None = None
    """Channels of a picture; None takes the data's."""
    low_res: int | None = None
    """Side in pixels of the small picture that an upsampler is given; None for a model without one."""
    low_res_noise: float = 0.0
    """Largest sigma of the noise laid over that small picture in training, where each gets its own from 0 up
    and the network is told it (noise augmentation, arXiv 2106.15282); 0 for none."""
    latent: LatentConfig | None = None
    """The latents that the network draws in; None for pixels. Training takes it from its `first_stage`."""
    told: tuple[ToldConfig, ...] = ()
    """What encoders, trained with the network, tell it."""

    @property
    def class_rows(self) -> int | None:
        """Rows of the class embedding, the null class included, wherever it is; None without classes."""
        for told in self.told:
            if isinstance(told.encoder, ClassEmbedderSettings):
                return told.encoder.classes
        return self.network.classes

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of what the network draws: a picture, or its latents. Of complete settings."""
        assert self.image_size and self.channels, "settings are complete"
        if self.latent is None:
            return self.channels, self.image_size, self.image_size
        side = self.image_size // self.latent.factor
        return self.latent.channels, side, side
