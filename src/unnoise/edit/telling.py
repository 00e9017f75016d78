"""What a network is told while a picture is edited: its class, words, and what the picture itself says."""

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
from unnoise.told import HOLE, SMALL, Teller, Telling

SERVES = {"inpaint": ("inpaint", "outpaint"), "grey": ("colorize",), "low_res": ("upscale",)}
"""What a model is told of pictures -> the kinds of edit that tell it."""


@dataclass(frozen=True)
class Told:
    """What the network is told of one picture besides what can be seen."""

    label: int | None = None
    words: str = ""


def open_telling(model: Model, request: EditRequest) -> Telling | None:
    """What an edit tells a model that is told more than a class; None for another model.

    ValueError where the edit has nothing to tell of what the model needs.
    """
    drawn = request.generate
    teller = model.teller_with(drawn.text_encoder)
    told = [each.what for each in teller.told]
    if drawn.given or drawn.given_boxes or drawn.given_maps:
        raise ValueError("given pictures tell `sample` what to draw; an edit tells of its own pictures")
    if not told:
        return None
    for what in told:
        kinds = SERVES.get(what, ())
        if what != "text" and request.kind not in kinds:
            use = f"it is for edit {' and '.join(kinds)}" if kinds else "no edit has such a thing to tell"
            raise ValueError(f"this model is told {what} to draw, and {request.kind} has none: {use}")
    if drawn.prompts and "text" not in told:
        raise ValueError(f"prompts={list(drawn.prompts)!r}: this model is told no words; leave them out")
    if "text" in told and not drawn.prompts and not _left_out(teller, "text"):
        raise ValueError("this model always was told words; give it some with prompt")
    return Telling(teller, drawn.prompts, None, None, drawn.seed)


def tells_of_pictures(model: Model, kind: str) -> bool:
    """Whether the model was trained to be told what this kind of edit knows of a picture."""
    if model.config.low_res is not None:
        return kind == "upscale"
    return any(kind in SERVES.get(each.what, ()) for each in model.config.told)


def _left_out(teller: Teller, what: str) -> bool:
    return any(each.what == what and each.dropout > 0 for each in teller.told)


def words_of(request: EditRequest, telling: Telling | None, count: int) -> list[str]:
    """The words told of `count` pictures, "" for none."""
    prompts = request.generate.prompts
    if len(prompts) > 1 and len(prompts) != count:
        raise ValueError(
            f"{len(prompts)} prompts for {count} {'picture' if count == 1 else 'pictures'}; "
            "give one for all of them, or one each"
        )
    if telling is None or not prompts:
        return [""] * count
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
    raw = teller.words([each.words for each in told]) if "text" in what else {}
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
