"""What of an EditRequest belongs together, before a picture is looked at."""

from unnoise.config.requests import EditKind, EditMethod, EditRequest
from unnoise.edit.pictures import UNTILED, colour
from unnoise.edit.telling import tells_of_pictures
from unnoise.model import Model

CONSTRAINED: tuple[EditKind, ...] = ("inpaint", "outpaint", "colorize", "upscale")
"""Kinds that draw all the way from noise, and keep what is known of the picture."""
DECODED: tuple[EditKind, ...] = ("colorize", "upscale")
"""Kinds that know of a latent model's pictures what is no part of its latents."""
_HOLES: tuple[EditKind, ...] = ("inpaint", "stroke")
MEANT_FOR: dict[str, tuple[EditKind, ...]] = {
    "strength": ("vary", "interpolate", "stroke"),
    "mix": ("interpolate",),
    "seeds": ("interpolate",),
    "frames": ("interpolate",),
    "corrections": ("interpolate", "invert"),
    "mask": _HOLES,
    "box": _HOLES,
    "strokes": _HOLES,
    "feather": ("inpaint", "outpaint", "stroke"),
    "left": ("outpaint",),
    "right": ("outpaint",),
    "top": ("outpaint",),
    "bottom": ("outpaint",),
    "factor": ("upscale",),
    "method": CONSTRAINED,
    "jump": CONSTRAINED,
    "repeats": (*CONSTRAINED, "stroke"),
    "pull": CONSTRAINED,
    "particles": CONSTRAINED,
    "palette": ("colorize",),
    "palette_pull": ("colorize",),
}
"""Fields of EditRequest that belong to some kinds of edit only."""
METHODS: dict[str, tuple[EditMethod, ...]] = {
    "jump": ("repaint",),
    "repeats": ("repaint",),
    "pull": ("dps", "pigdm"),
    "particles": ("particles",),
}
"""Fields of EditRequest that belong to some methods only."""
DEFAULTS = EditRequest()


def check_request(model: Model, request: EditRequest) -> None:
    """ValueError for fields that mean nothing to the kind of edit, or whose numbers do not fit."""
    for name, kinds in MEANT_FOR.items():
        if request.kind not in kinds and getattr(request, name) != getattr(DEFAULTS, name):
            raise ValueError(
                f"{name}={getattr(request, name)!r} means nothing to {request.kind}; leave it out "
                f"(it belongs to {' and '.join(kinds)})"
            )
    _check_numbers(request)
    if request.kind == "outpaint" and request.fit not in ("refuse", "tile"):
        raise ValueError(
            f"fit={request.fit}: outpaint keeps its picture; leave it out, or use tile to draw in "
            "squares of the model's size"
        )
    if request.kind in UNTILED and request.fit == "tile":
        raise ValueError(
            f"fit=tile: it keeps the size of pictures, and {request.kind} walks all at the model's; use crop "
            "or pad"
        )
    if request.kind == "interpolate" and request.mix == "x_T" and request.strength != DEFAULTS.strength:
        raise ValueError(
            f"strength={request.strength:g} means nothing to interpolate in x_T, which goes all the way to "
            "noise; leave it out, or use mix x_t"
        )
    if request.kind == "colorize" and model.config.channels != 3:
        raise ValueError(
            f"this model draws pictures of {model.config.channels} channels, and colorize needs 3: red, "
            "green and blue; name a model of such pictures"
        )
    if request.kind == "upscale":
        factor = factor_of(model, request)
        if model.config.low_res and request.fit == "tile":
            sizes = "{0}x{0} of {1}x{1}".format(model.config.low_res * factor, model.config.low_res)
            raise ValueError(
                f"fit=tile: this upsampler makes {sizes} and no other size; use crop or pad, or a model that "
                "draws without small pictures, for any size"
            )
    if request.kind in CONSTRAINED:
        _check_method(model, request)
    if request.feather and model.first_stage is None:
        raise ValueError(
            f"feather={request.feather}: this model draws pixels, which meet the picture at the hole's edge; "
            "leave it out (it is for models of latents)"
        )
    side = model.config.low_res
    if side and request.kind != "upscale":
        raise ValueError(
            f"this model is an upsampler: it enlarges pictures of {side}x{side} and edits none; name a model "
            "that draws without one"
        )
    for name in ("low_res", "shrink"):
        if getattr(request.generate, name):
            raise ValueError(
                f"{name}={getattr(request.generate, name)}: an edit enlarges the pictures that it is "
                "given as they are; leave it out"
            )
    for name in ("height", "width"):
        if getattr(request.generate, name) is not None:
            raise ValueError(
                f"{name}={getattr(request.generate, name)}: an edit is as large as its picture; leave it out "
                "(see fit)"
            )


def _check_numbers(request: EditRequest) -> None:
    if not 0 <= request.strength <= 1:
        raise ValueError(
            f"strength={request.strength:g} is outside 0 to 1; 0 leaves a picture as it is, 1 nothing of it"
        )
    leasts = {"corrections": 0, "frames": 2, "jump": 1, "repeats": 1, "factor": 2, "feather": 0}
    leasts |= {"pull": 0, "particles": 2, "palette_pull": 0, "max_pixels": 1}
    leasts |= dict.fromkeys(("left", "right", "top", "bottom"), 0)
    for name, least in leasts.items():
        value = getattr(request, name)
        if value is not None and value < least:
            raise ValueError(f"{name}={value} is too small; use {least} or more")
    for name, most in {"corrections": 1000, "repeats": 1000, "particles": 100_000}.items():
        value = getattr(request, name)
        if value is not None and value > most:
            raise ValueError(f"{name}={value} would never end; use up to {most:,}")
    colour(request.background)
    if request.kind == "outpaint" and not any((request.left, request.right, request.top, request.bottom)):
        raise ValueError("outpaint adds pixels on some side; name how many with left, right, top or bottom")


def _check_method(model: Model, request: EditRequest) -> None:
    trained, method = tells_of_pictures(model, request.kind), request.method
    if method == "told" and not trained:
        raise ValueError(
            f"method=told: this model was not trained to {request.kind}; use replace, or leave it out"
        )
    if model.config.low_res is not None and method not in ("auto", "told"):
        raise ValueError(
            f"method={method}: this model is an upsampler, it is told the small picture; leave it out"
        )
    method = method_of(model, request)
    _check_means(model, request, method)
    for name, methods in METHODS.items():
        if getattr(request, name) != getattr(DEFAULTS, name) and method not in methods:
            raise ValueError(
                f"{name}={getattr(request, name)} means nothing to method {method}; leave it out, or use "
                f"{' or '.join(methods)}"
            )


def _check_means(model: Model, request: EditRequest, method: str) -> None:
    """ValueError where a method has not what it needs."""
    on_latents = model.first_stage is not None and request.kind in DECODED
    if on_latents and method not in ("told", "dps"):
        raise ValueError(
            f"method={method}: this model draws latents, where {request.kind} knows no part of x; use dps, "
            "which asks the decoded picture"
        )
    if method == "particles" and request.generate.sampler != "ddpm":
        raise ValueError(
            f"method=particles draws by ancestral sampling, not by {request.generate.sampler}; use sampler "
            "ddpm"
        )
    if request.palette_pull != DEFAULTS.palette_pull and not request.palette:
        raise ValueError(f"palette_pull={request.palette_pull:g} leads to no palette; name one with palette")
    if request.palette and method in ("pigdm", "particles"):
        raise ValueError(f"method={method} takes no palette; use replace, repaint or dps")


def check_steps(request: EditRequest, steps: int) -> None:
    """ValueError where the request goes back further than there are steps."""
    if request.method == "repaint" and request.jump >= steps:
        raise ValueError(
            f"jump={request.jump} goes back further than the {steps} steps go down; use 1..{steps - 1}"
        )


def trained_factor(model: Model) -> int | None:
    """How many times the model was trained to enlarge; None for one that was not."""
    if model.config.low_res is not None:
        return (model.config.image_size or 0) // model.config.low_res
    factors = [each.factor for each in model.config.told if each.what == "low_res"]
    return factors[0] if factors else None


def factor_of(model: Model, request: EditRequest) -> int:
    """How many times larger upscale makes pictures. ValueError where the model cannot."""
    factor, side, trained = request.factor, model.config.image_size, trained_factor(model)
    if trained is not None:
        if factor not in (None, trained):
            assert side, "settings are complete"
            sizes = "{0}x{0} of {1}x{1}".format(side, side // trained)
            raise ValueError(
                f"factor={factor}: this model was trained to make {sizes}, {trained} times larger; leave it "
                "out, or name a model that draws without small pictures, for any factor"
            )
        return trained
    assert side, "settings are complete"
    if factor is None:
        raise ValueError("upscale makes pictures some times larger; say how many with factor")
    if side % factor and request.fit != "tile":
        fitting = ", ".join(str(k) for k in range(2, side + 1) if side % k == 0)
        raise ValueError(
            f"factor={factor} does not divide the {side} pixels of the model; use {fitting}, or any with fit "
            "tile"
        )
    return factor


def method_of(model: Model, request: EditRequest) -> EditMethod:
    """The method that auto stands for, or the one named."""
    if request.method != "auto":
        return request.method
    if tells_of_pictures(model, request.kind):
        return "told"
    return "dps" if model.first_stage is not None and request.kind in DECODED else "replace"
