"""What a model is told besides x and t: of pictures, what lies beside them, or words, parts of a condition.

Made in two steps. `Teller.raw` reads, tokenizes and draws, on the CPU, as functions of (seed, place);
`Teller.parts` encodes and degrades pictures, where the model is.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from unnoise.config.model import ModelConfig, ToldConfig
from unnoise.data import Batch
from unnoise.data.beside import Aside
from unnoise.data.degrade import grey, resized, worn
from unnoise.data.layout import LayoutTokens
from unnoise.data.maps import one_hot
from unnoise.data.masks import draw_masks, masked
from unnoise.diffusion.noise import seeded_generator
from unnoise.first_stage import FirstStage
from unnoise.frozen_text import FrozenText
from unnoise.images import to_images
from unnoise.networks.conditioned import MASK
from unnoise.networks.conditioner_settings import (
    PatchesSettings,
    SpatialRescalerSettings,
    TextEncoderSettings,
)
from unnoise.text import Tokenizer, without_tags
from unnoise.token_ids import TokenIds

OF_PICTURES = ("low_res", "inpaint", "grey")
"""What is made of the picture itself."""
HOLE = "hole"
"""(B, 1, H, W) bool among the raw data: what of a picture is to be filled in."""
SMALL = "small"
"""(B, C, h, w) in [-1, 1] among the raw data: small pictures, worn on the CPU."""
HOLES = {"grey": 0.0, "black": -1.0}
"""What a hole is filled with -> its value."""
BESIDE = ("layout", "map")
"""What lies beside a picture."""
SEEN = (*OF_PICTURES, "map")
"""What can be shown as a picture."""


@dataclass(frozen=True, eq=False)
class Teller:
    """Tells one model. Settings are complete."""

    config: ModelConfig
    tokenizer: Tokenizer | TokenIds | None = None
    """Of captions."""
    box_classes: tuple[str, ...] = ()
    first_stage: FirstStage | None = None
    frozen: FrozenText | None = None
    """Of captions too, instead of a tokenizer."""

    @property
    def told(self) -> tuple[ToldConfig, ...]:
        """All but the class, which is a condition's label."""
        return tuple(each for each in self.config.told if each.what != "class")

    def needs_pictures(self, ready: Collection[str] = ()) -> bool:
        """Whether something is made of the picture itself, besides what lies ready."""
        return any(each.what in OF_PICTURES and each.what not in ready for each in self.told)

    @property
    def length(self) -> int:
        """Tokens of a caption at most."""
        lengths = [
            each.encoder.length
            for each in self.told
            if each.what == "text" and isinstance(each.encoder, TextEncoderSettings)
        ]
        return lengths[0]

    def words(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Raw data of captions."""
        if self.frozen is not None:
            context, mask = self.frozen(texts)
            return {"text": context, "text" + MASK: mask}
        assert self.tokenizer is not None, "a model of text has a vocabulary, or a frozen encoder"
        tokens, mask = self.tokenizer.encode(texts, self.length)
        return {"text": tokens, "text" + MASK: mask}

    def thinned(self, captions: list[str], *, seed: int, places: np.ndarray) -> list[str]:
        """Captions for training, some without some of their tags: a function of (seed, place)."""
        share = max((each.tag_dropout for each in self.told), default=0.0)
        if not share:
            return captions
        found = []
        for caption, place in zip(captions, places.tolist(), strict=True):
            generator = seeded_generator(seed, "tags", place)
            drop = torch.rand((), generator=generator).item() < share
            found.append(without_tags(caption, generator) if drop else caption)
        return found

    def raw(self, batch: Batch, aside: Aside | None, *, seed: int, places: np.ndarray) -> dict[str, Tensor]:
        """What pictures of a data set and what lies beside them say.

        Holes, and how pictures are worn, are drawn for the places, numbers of the pictures.
        """
        found: dict[str, Tensor] = {}
        if any(each.what in BESIDE for each in self.told):
            assert aside is not None, "settings are resolved on data with boxes and maps"
            found |= self.raw_beside(aside)
        for each in self.told:
            if each.what == "text":
                assert batch.caption is not None, "settings are resolved on data with captions"
                found |= self.words(batch.caption)
            elif each.what == "inpaint":
                height, width = batch.pixels.shape[1:3]
                found[HOLE] = draw_masks(each.holes, height, width, seed=seed, places=places)
            elif each.what == "low_res" and each.degradation == "worn":
                images = to_images(batch.pixels)
                found[SMALL] = worn(images, images.shape[2] // each.factor, seed=seed, places=places)
        return found

    def raw_beside(self, aside: Aside) -> dict[str, Tensor]:
        """What boxes and maps say."""
        found: dict[str, Tensor] = {}
        for each in self.told:
            if each.what == "layout":
                found["layout"] = self._layout(each).encode(aside.boxes, aside.kinds)[0]
            elif each.what == "map":
                assert aside.levels is not None, "there are maps beside the pictures"
                found["map"] = aside.levels
        return found

    def _layout(self, told: ToldConfig) -> LayoutTokens:
        return LayoutTokens(len(self.box_classes), told.grid, told.boxes)

    def parts(self, raw: Mapping[str, Tensor], images: Tensor | None) -> dict[str, Tensor]:
        """Parts of a condition, of raw data and of images (B, C, H, W) in [-1, 1], on their device.

        What is made of pictures and lies ready among the raw data is taken as it is.
        """
        found = {name: value for name, value in raw.items() if name not in (HOLE, SMALL)}
        for each in self.told:
            if each.what in OF_PICTURES and each.what not in raw:
                assert images is not None, "what is made of pictures needs them"
                found[each.what] = self._of_picture(each, images, raw)
            elif each.what == "map":
                found["map"] = one_hot(raw["map"], channels_of(each))
        return found

    def _of_picture(self, told: ToldConfig, images: Tensor, raw: Mapping[str, Tensor]) -> Tensor:
        if told.what == "low_res":
            if SMALL in raw:
                return raw[SMALL]
            return resized(images, images.shape[2] // told.factor, told.degradation)
        if told.what == "grey":
            return self._seen(grey(images).expand_as(images))
        seen = self._seen(masked(images, raw[HOLE], HOLES[told.hole]))
        hole = F.interpolate(raw[HOLE].to(seen.dtype), seen.shape[2:], mode="nearest-exact")
        return torch.cat([seen, 2 * hole - 1], 1)

    def _seen(self, images: Tensor) -> Tensor:
        """Images as what the network draws is: themselves, or their latents."""
        return images if self.first_stage is None else self.first_stage.encode(images)

    def shown(self, raw: Mapping[str, Tensor], images: Tensor | None) -> Tensor | None:
        """What is told first that can be seen, as images of the size of `images`; None for words alone."""
        for each in self.told:
            if each.what not in SEEN:
                continue
            if each.what == "map":
                return _painted(raw["map"], channels_of(each), images)
            assert images is not None, "what is made of pictures needs them"
            if each.what == "inpaint":
                return masked(images, raw[HOLE], HOLES[each.hole])
            if each.what == "grey":
                return grey(images).expand_as(images)
            small = self._of_picture(each, images, raw)
            return F.interpolate(small, images.shape[2:], mode="nearest-exact")
        return None

    @property
    def untold(self) -> dict[str, Any]:
        """Parts -> their values where nothing is told; of those that training left out now and then."""
        nothing: dict[str, Any] = {}
        for each in self.told:
            if not each.dropout:
                continue
            if each.what == "text":
                nothing |= {name: value[0] for name, value in self.words([""]).items()}
            else:
                nothing[each.what] = 0.0
        return nothing

    def left_out(self, seed: int, step: int, size: int, positions: range) -> dict[str, Tensor]:
        """(B,) bool for every thing told: whether a picture of this step is not told it."""
        found = {}
        for each in self.told:
            if each.dropout:
                drawn = torch.rand(size, generator=seeded_generator(seed, f"told {each.what}", step))
                found[each.what] = drawn[positions.start : positions.stop] < each.dropout
        return found


def _painted(levels: Tensor, classes: int, images: Tensor | None) -> Tensor:
    """A map as pictures, each class in its own colour, or in its own grey."""
    channels = 3 if images is None else images.shape[1]
    drawn = torch.rand(classes, channels, generator=seeded_generator(0, "colours of classes"))
    return (2 * drawn - 1).to(levels.device)[levels.long()].permute(0, 3, 1, 2)


def channels_of(told: ToldConfig) -> int:
    """Of the map that it is."""
    encoder = told.encoder
    assert isinstance(encoder, SpatialRescalerSettings | PatchesSettings) and encoder.in_channels
    return encoder.in_channels
