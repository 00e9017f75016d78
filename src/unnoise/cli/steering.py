"""The options of guidance, the same for every command that draws."""

from typing import Annotated, Any

import typer

from unnoise.config.requests import GenerateRequest

_DEFAULT = GenerateRequest()
KINDS = ("none", "classifier-free", "classifier", "autoguidance")

Guidance = Annotated[
    str,
    typer.Option(
        metavar="SCALE|KIND",
        help="Scale of classifier-free guidance, 1 is off; or the kind that --scale is of: "
        "none, classifier-free, classifier, autoguidance. Default: the scale that the model advises, else 1.",
    ),
]
Scale = Annotated[
    float | None, typer.Option(help="Of the kind that --guidance names; of the classifier by default.")
]
Classifier = Annotated[
    str, typer.Option(help="File or run directory of a noisy classifier that guides towards the labels.")
]
GuideAt = Annotated[
    str,
    typer.Option(help="Where ddpm asks the classifier: x_t (ADM's code) or mean (its paper)."),
]
Weaker = Annotated[
    str, typer.Option(help="A weaker model of the same kind, to be guided away from (autoguidance).")
]
WeakerScale = Annotated[float, typer.Option(help="Scale of guidance away from --weaker; 1 is off.")]
GuidanceInterval = Annotated[
    tuple[float, float] | None,
    typer.Option(metavar="LOW HIGH", help="Noise levels sigma/alpha at which guidance of any kind is on."),
]
GuidanceCourse = Annotated[
    str, typer.Option(help="constant; or linear, cosine: scales that rise as noise falls.")
]
Conditional = Annotated[
    bool,
    typer.Option(
        "--conditional/--unconditional",
        help="Tell the model the class; or let the classifier alone know it.",
    ),
]


def refuse_idle(request: GenerateRequest) -> None:
    """ValueError for options of guidance where nothing guides. The request is a plan's: it is settled."""
    if request.guidance != 1 or request.classifier or request.weaker:
        return
    for name in ("guidance_interval", "guidance_course"):
        value = getattr(request, name)
        if value != getattr(_DEFAULT, name):
            raise ValueError(
                f"{name}={value} is of guidance, and nothing guides; give guidance a scale, or leave it out"
            )


def guidance_values(
    *,
    guidance: str,
    scale: float | None,
    classifier: str,
    guide_at: str,
    weaker: str,
    weaker_scale: float,
    guidance_interval: tuple[float, float] | None,
    guidance_course: str,
    conditional: bool,
) -> dict[str, Any]:
    """The fields of a GenerateRequest that these options mean; ValueError when they contradict each other."""
    values: dict[str, Any] = {
        "classifier": classifier, "guide_at": guide_at, "weaker": weaker, "weaker_scale": weaker_scale,
        "guidance_interval": guidance_interval, "guidance_course": guidance_course,
        "conditional": conditional,
    }  # fmt: skip
    if not guidance:
        return values | {"scale": scale}
    try:
        return values | {"guidance": float(guidance), "scale": scale}
    except ValueError:
        kind = guidance
    if kind not in KINDS:
        raise ValueError(f"guidance={kind!r} is no scale and no kind; use a number or {', '.join(KINDS)}")
    if kind == "none":
        if scale is not None or classifier or weaker:
            raise ValueError(
                "guidance=none, and yet a scale, a classifier or a weaker model is named; drop one"
            )
        return values | {"guidance": 1.0}
    if kind == "classifier":
        if not classifier:
            raise ValueError("guidance=classifier needs one; name a noisy classifier with --classifier")
        return values | {"guidance": 1.0, "scale": scale}
    if scale is None:
        raise ValueError(f"guidance={kind} needs a scale; give one with --scale")
    if kind == "classifier-free":
        return values | {"guidance": scale}
    if not weaker:
        raise ValueError("guidance=autoguidance needs a weaker model; name one with --weaker")
    return values | {"guidance": 1.0, "weaker_scale": scale}
