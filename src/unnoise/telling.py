"""What a request tells a model (see `told`): words, or what pictures of a data set say, in turn."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from unnoise.config.requests import GenerateRequest
from unnoise.config.schema import DataConfig
from unnoise.data import Dataset, open_data, order
from unnoise.data.beside import Beside, open_beside
from unnoise.images import to_images
from unnoise.token_ids import TokenIds
from unnoise.told import BESIDE, OF_PICTURES, Teller, channels_of

WAYS = {
    "text": "words with --prompt",
    "layout": "boxes with --given PICTURES --boxes FILE",
    "map": "semantic maps with --given PICTURES --maps FOLDER",
}
"""What is told -> how a request gives it, where not by pictures."""


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
    refuse_untold(teller, request)
    if request.given and not told:
        raise ValueError(f"given={request.given!r}: this model is told no such thing; leave it out")
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


def refuse_untold(teller: Teller, request: GenerateRequest) -> None:
    """ValueError for words, boxes and maps where a model is told no such thing."""
    told = [each.what for each in teller.told]
    for name, value, what in (
        ("prompts", list(request.prompts), "text"),
        ("given_boxes", request.given_boxes, "layout"),
        ("given_maps", request.given_maps, "map"),
    ):
        if value and what not in told:
            raise ValueError(f"{name}={value!r}: this model is told no such thing; leave it out")


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
    maps = [channels_of(each) for each in teller.told if each.what == "map"]
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
