"""What a model is told besides x and t: from a data set's pictures, or from words, to parts of a condition.

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
from unnoise.config.requests import GenerateRequest
from unnoise.config.schema import DataConfig
from unnoise.data import Batch, Dataset, open_data, order
from unnoise.data.beside import Aside, Beside, open_beside
from unnoise.data.degrade import grey, resized, worn
from unnoise.data.layout import LayoutTokens
from unnoise.data.maps import one_hot
from unnoise.data.masks import draw_masks, masked
from unnoise.diffusion.noise import seeded_generator
from unnoise.first_stage import FirstStage
from unnoise.frozen_text import FrozenText, frozen_of, open_frozen
from unnoise.images import to_images
from unnoise.networks.conditioned import MASK
from unnoise.networks.conditioner_settings import (
    PatchesSettings,
    SpatialRescalerSettings,
    TextEncoderSettings,
)
from unnoise.text import Tokenizer, build_tokenizer, checked_captions
from unnoise.token_ids import TokenIds

OF_PICTURES = ("low_res", "inpaint", "grey")
"""What is made of the picture itself."""
HOLE = "hole"
"""(B, 1, H, W) bool among the raw data: what of a picture is to be filled in."""
SMALL = "small"
"""(B, C, h, w) in [-1, 1] among the raw data: small pictures, worn on the CPU."""
WAYS = {
    "text": "words with --prompt",
    "layout": "boxes with --given PICTURES --boxes FILE",
    "map": "semantic maps with --given PICTURES --maps FOLDER",
}
"""What is told -> how a request gives it, where not by pictures."""
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
                found["map"] = one_hot(raw["map"], _channels(each))
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
                return _painted(raw["map"], _channels(each), images)
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


@dataclass(frozen=True, eq=False)
class Telling:
    """What the pictures of a request are told: words, or what pictures of a data set say, in turn."""

    teller: Teller
    prompts: tuple[str, ...]
    given: Dataset | None
    beside: Beside | None
    seed: int
    shuffled: bool = False
    """Take the pictures in the seed's order, not in that of their files."""

    @property
    def files(self) -> dict[str, str]:
        """What is in the pictures counts, not where they lie (see `Plan.files`)."""
        if self.given is None:
            return {}
        beside = "" if self.beside is None else f" {self.beside.fingerprint}"
        return {"given": self.given.fingerprint + beside}

    def words(self, ids: Sequence[int]) -> list[str]:
        """What the pictures `ids` are told in words; "" for none."""
        if self.prompts:
            return [self.prompts[k % len(self.prompts)] for k in ids]
        told_words = any(each.what == "text" for each in self.teller.told)
        batch = self.given.take(self._chosen(ids)) if told_words and self.given is not None else None
        return [""] * len(ids) if batch is None or batch.caption is None else batch.caption

    def parts(self, ids: Sequence[int], device: torch.device) -> dict[str, Tensor]:
        """Parts of the condition of the pictures `ids`, on a device."""
        raw, images = self._raw(ids, device)
        return self.teller.parts(raw, images)

    def raw_beside(self, ids: Sequence[int]) -> dict[str, Tensor]:
        """Of the raw data of the pictures `ids` what their boxes and maps say."""
        return {} if self.beside is None else self.teller.raw_beside(self.beside.of(self._chosen(ids)))

    def shown(self, ids: Sequence[int], device: torch.device) -> Tensor | None:
        """What of it can be seen: (B, C, H, W) in [-1, 1], None for words and classes alone."""
        return self.teller.shown(*self._raw(ids, device))

    def _raw(self, ids: Sequence[int], device: torch.device) -> tuple[dict[str, Tensor], Tensor | None]:
        raw: dict[str, Tensor] = {}
        images = None
        if self.given is not None:
            chosen = self._chosen(ids)
            batch = self.given.take(chosen)
            aside = None if self.beside is None else self.beside.of(chosen)
            images = to_images(batch.pixels).to(device)
            raw = self.teller.raw(batch, aside, seed=self.seed, places=np.asarray(ids, np.int64))
        if self.prompts:
            raw |= self.teller.words(self.words(ids))
        return {name: value.to(device) for name, value in raw.items()}, images

    def _chosen(self, ids: Sequence[int]) -> np.ndarray:
        assert self.given is not None
        places = np.asarray(ids, np.int64) % len(self.given)
        return order.pictures(self.seed, len(self.given), places) if self.shuffled else places


def open_telling(teller: Teller, request: GenerateRequest) -> Telling | None:
    """What a request tells a model that is told more than a class; None for another model.

    ValueError for words and pictures that it has no use for, and for the lack of what it needs.
    """
    told = [each.what for each in teller.told]
    for name, value, needed in (
        ("prompts", list(request.prompts), "text" in told),
        ("given", request.given, bool(told)),
    ):
        if value and not needed:
            raise ValueError(f"{name}={value!r}: this model is told no such thing; leave it out")
    if not told:
        return None
    given, beside = open_given(teller, request)
    by_number = isinstance(teller.tokenizer, TokenIds)
    if by_number:
        teller.words(request.prompts)  # refuses what are no numbers
    worded = bool(request.prompts or (given is not None and given.captions and not by_number))
    there = dict.fromkeys(OF_PICTURES, given is not None) | {"text": worded} | there_beside(beside)
    refuse_lack(teller, there)
    return Telling(teller, request.prompts, given, beside, request.seed)


def there_beside(beside: Beside | None) -> dict[str, bool]:
    """What lies beside pictures -> whether it does."""
    if beside is None:
        return dict.fromkeys(BESIDE, False)
    return {"layout": beside.layout is not None, "map": bool(beside.maps)}


def refuse_lack(teller: Teller, there: Mapping[str, bool]) -> None:
    """ValueError where not all is there that a model is told."""
    missing = [each.what for each in teller.told if not there[each.what]]
    if missing:
        ways = [WAYS.get(each, "pictures with --given") for each in missing]
        raise ValueError(f"this model is told more than noise; give it {', '.join(dict.fromkeys(ways))}")


def open_given(teller: Teller, request: GenerateRequest) -> tuple[Dataset | None, Beside | None]:
    """The pictures that a request names to be told of, and what lies beside them; None for none."""
    if any(each.what == "layout" for each in teller.told) and not teller.box_classes:
        raise ValueError(
            "this model reads boxes as tokens that its file does not explain, so none can be given here; in "
            "Python, give its network a Condition with the part layout"
        )
    if not request.given:
        return None, None
    config = teller.config
    maps = [_channels(each) for each in teller.told if each.what == "map"]
    settings = DataConfig(
        source=request.given, size=config.image_size, channels=config.channels, labels="none",
        boxes=request.given_boxes, maps=request.given_maps, map_classes=maps[0] if maps else None,
    )  # fmt: skip
    data = open_data(settings)
    if data.report.broken:
        name, why = data.report.broken[0]
        raise ValueError(f"given={request.given}: {name} is broken ({why}); repair it, or take it away")
    beside = open_beside(data, settings)
    if beside is not None and beside.layout is not None and beside.box_classes != teller.box_classes:
        raise ValueError(
            f"given_boxes={request.given_boxes} has the classes {', '.join(beside.box_classes[:5])}; the "
            f"model knows {', '.join(teller.box_classes[:5])}; use a file of the same ones in the same order"
        )
    return data, beside


def _painted(levels: Tensor, classes: int, images: Tensor | None) -> Tensor:
    """A map as pictures, each class in its own colour, or in its own grey."""
    channels = 3 if images is None else images.shape[1]
    drawn = torch.rand(classes, channels, generator=seeded_generator(0, "colours of classes"))
    return (2 * drawn - 1).to(levels.device)[levels.long()].permute(0, 3, 1, 2)


def _channels(told: ToldConfig) -> int:
    encoder = told.encoder
    assert isinstance(encoder, SpatialRescalerSettings | PatchesSettings) and encoder.in_channels
    return encoder.in_channels


@dataclass(frozen=True, eq=False)
class ToldData:
    """What a data set has for a model that is told more than a class."""

    tokenizer: Tokenizer | None = None
    frozen: FrozenText | None = None
    beside: Beside | None = None

    @property
    def fingerprint(self) -> str:
        """Hash of what lies beside the pictures; "" for nothing."""
        return "" if self.beside is None else self.beside.fingerprint


def open_told(model: ModelConfig, data: DataConfig, dataset: Dataset) -> ToldData:
    """Vocabulary or features of a data set's captions, boxes and maps, as far as the model is told them."""
    if not model.told:
        return ToldData()
    return ToldData(
        _tokenizer(model, dataset), _frozen(model, dataset, data.cache), open_beside(dataset, data)
    )


def counted(config: ModelConfig, dataset: Dataset, data: ToldData) -> dict[str, int]:
    """What is told -> its channels, or its different tokens, as `config.resolve.resolve` needs them.

    0 where the data lack it. ValueError for pictures without colours that a model is to give some.
    """
    beside = data.beside
    drawn = dataset.channels if config.latent is None else config.latent.channels
    found = {"low_res": dataset.channels, "inpaint": drawn + 1, "grey": drawn}
    if data.tokenizer is not None:
        found["text"] = len(data.tokenizer)
    if data.frozen is not None:
        found["text"] = data.frozen([""])[0].shape[2]
    for each in config.told:
        if each.what == "grey" and dataset.channels != 3:
            raise ValueError(
                f"pictures of {dataset.channels} channels have no colours to leave out; use RGB "
                "(data.channels=3)"
            )
        if each.what == "layout" and beside is not None and beside.layout is not None:
            tokens = LayoutTokens(len(beside.box_classes), each.grid, each.boxes)
            found["layout"] = len(tokens)
            if isinstance(each.encoder, TextEncoderSettings) and each.encoder.length < tokens.length:
                raise ValueError(
                    f"{each.boxes} boxes are {tokens.length} tokens, and the encoder reads length="
                    f"{each.encoder.length}; raise it, or use fewer boxes"
                )
        if each.what == "map" and beside is not None and beside.maps:
            found["map"] = beside.config.map_classes or 0
    return {each.what: found.get(each.what, 0) for each in config.told if each.what != "class"}


def _tokenizer(config: ModelConfig, dataset: Dataset) -> Tokenizer | None:
    """The vocabulary of a data set's captions, for a model that reads their words; None for another."""
    for each in config.told:
        if each.what == "text" and isinstance(each.encoder, TextEncoderSettings):
            return build_tokenizer(_captions(each, dataset), each.words)
    return None


def _frozen(config: ModelConfig, dataset: Dataset, cache: str | None) -> FrozenText | None:
    """A frozen encoder with the features of a data set's captions, for a model of these; None for another."""
    told = frozen_of(config)
    if told is None:
        return None
    frozen = open_frozen(told, cache=cache)
    frozen.learn(_captions(told, dataset))
    return frozen


def _captions(told: ToldConfig, dataset: Dataset) -> list[str]:
    return checked_captions(dataset.captions, dataset.report.source, missing=told.missing)
