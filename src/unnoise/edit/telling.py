"""What a network is told while a picture is edited: its class, words, and what the picture itself says."""

import posixpath
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unnoise.config.requests import EditRequest
from unnoise.diffusion.condition import Condition
from unnoise.diffusion.noise import Noise
from unnoise.edit.canvas import Canvas
from unnoise.generate import encoded, enlarging
from unnoise.images import to_images
from unnoise.model import Model
from unnoise.planning import Plan
from unnoise.telling import Telling, open_given, refuse_lack, refuse_untold, there_beside
from unnoise.token_ids import TokenIds
from unnoise.told import BESIDE, HOLE, OF_PICTURES, SMALL, Teller

SERVES = {"inpaint": ("inpaint", "outpaint"), "grey": ("colorize",), "low_res": ("upscale",)}
"""What a model is told of pictures -> the kinds of edit that tell it."""


@dataclass(frozen=True)
class Told:
    """What the network is told of one picture besides what can be seen."""

    label: int | None = None
    words: str = ""
    place: int = 0
    """Of the given pictures the one whose boxes and map it is told."""


def open_telling(model: Model, request: EditRequest) -> Telling | None:
    """What an edit tells a model that is told more than a class; None for another model.

    ValueError where the edit has nothing to tell of what the model needs.
    """
    drawn = request.generate
    teller = model.teller_with(drawn.text_encoder)
    told = [each.what for each in teller.told]
    beside = any(what in BESIDE for what in told)
    if drawn.given and not beside:
        raise ValueError(
            f"given={drawn.given!r}: it is for models that are told boxes or maps, and this one is told "
            "neither; leave it out"
        )
    refuse_untold(teller, drawn)
    if not told:
        return None
    for what in told:
        kinds = SERVES.get(what, ())
        if what in OF_PICTURES and request.kind not in kinds:
            raise ValueError(
                f"this model is told {what} to draw, and {request.kind} has none: it is for edit "
                f"{' and '.join(kinds)}"
            )
    if beside and request.fit not in ("refuse", "crop"):
        raise ValueError(
            f"fit={request.fit}: this model is told boxes or maps, which are cut as in training; use crop"
        )
    telling = Telling(teller, drawn.prompts, *open_given(teller, drawn), drawn.seed)
    refuse_lack(teller, dict.fromkeys((*OF_PICTURES, "text"), True) | there_beside(telling.beside))
    if "text" in told and not (drawn.prompts or _captioned(telling) or _left_out(teller, "text")):
        raise ValueError("this model always was told words; give it some with prompt")
    return telling


def _captioned(telling: Telling) -> bool:
    """Whether the given pictures have words."""
    given = telling.given
    return given is not None and bool(given.captions) and not isinstance(telling.teller.tokenizer, TokenIds)


def tells_of_pictures(model: Model, kind: str) -> bool:
    """Whether the model was trained to be told what this kind of edit knows of a picture."""
    if model.config.low_res is not None:
        return kind == "upscale"
    return any(kind in SERVES.get(each.what, ()) for each in model.config.told)


def _left_out(teller: Teller, what: str) -> bool:
    return any(each.what == what and each.dropout > 0 for each in teller.told)


def places_of(request: EditRequest, telling: Telling | None, names: Sequence[str]) -> list[int]:
    """Which of the given pictures is of each picture: the only one, or that of its name."""
    if telling is None or telling.given is None or len(telling.given) == 1:
        return [0] * len(names)
    files = [telling.given.name_of(k) for k in range(len(telling.given))]
    found = {posixpath.splitext(name)[0]: k for k, name in enumerate(files)}
    found |= {name: k for k, name in enumerate(files)}
    missing = [name for name in names if name not in found]
    if missing:
        raise ValueError(
            f"given={request.generate.given}: none of {len(files)} pictures is called {missing[0]}; give one "
            "for all pictures, or one of the name of each"
        )
    return [found[name] for name in names]


def words_of(request: EditRequest, telling: Telling | None, places: Sequence[int]) -> list[str]:
    """The words told of pictures, "" for none: those of the request, else of the given pictures."""
    prompts, count = request.generate.prompts, len(places)
    if len(prompts) > 1 and len(prompts) != count:
        raise ValueError(
            f"{len(prompts)} prompts for {count} {'picture' if count == 1 else 'pictures'}; "
            "give one for all of them, or one each"
        )
    if telling is None or not (prompts or _captioned(telling)):
        return [""] * count
    if not prompts:
        return telling.words(places)
    return list(prompts) if len(prompts) > 1 else [prompts[0]] * count


def condition(
    ready: Plan, told: Sequence[Told], canvases: Sequence[Canvas] = (), noise: Noise | None = None
) -> Condition:
    """What the network is told about a batch, encoded; canvases, and noise, where it is told of pictures."""
    labels = [each.label for each in told if each.label is not None]
    assert not labels or len(labels) == len(told), "a model knows classes or does not"
    cond = Condition(label=torch.tensor(labels, device=ready.device) if labels else None)
    if ready.low_res is not None:
        assert noise is not None, "its level may ask for it"
        return enlarging(ready, cond, _small(canvases), noise)
    if ready.telling is None:
        return encoded(ready, cond)
    teller = ready.telling.teller
    what = {each.what for each in teller.told}
    raw = ready.telling.raw_beside([each.place for each in told])
    if "text" in what:
        raw |= teller.words([each.words for each in told])
    images: Tensor | None = None
    if teller.needs_pictures():
        images = torch.cat([each.images for each in canvases]).to(ready.device)
    if "inpaint" in what:
        raw[HOLE] = torch.cat([each.unknown for each in canvases]) > 0
    if "low_res" in what:
        raw[SMALL] = _small(canvases)
    on_device = {name: value.to(ready.device) for name, value in raw.items()}
    return encoded(ready, Condition(label=cond.label, parts=teller.parts(on_device, images)))


def _small(canvases: Sequence[Canvas]) -> Tensor:
    """The small pictures that are enlarged, (B, C, h, w)."""
    return torch.cat([to_images(each.small[None]) for each in canvases if each.small is not None])
