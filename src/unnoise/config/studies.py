"""What the studies are asked for: sweeps over the options of drawing, ablations, searches for steps, and
kinds of models set beside each other.
"""

from dataclasses import dataclass, field
from typing import Any

from unnoise.config.requests import EvaluateRequest, GenerateRequest

POINT_SAMPLES = 2000
"""Pictures that a point of a study is measured on when nobody says how many."""


@dataclass(frozen=True, kw_only=True)
class SweepRequest:
    """A grid over the options of drawing, every point from the same noise and against one reference."""

    models: tuple[str, ...] = ()
    """Model files, run directories or checkpoints of a run; several are an axis of the grid."""
    grid: tuple[str, ...] = ()
    """One "option=value,value,..." an axis; values that hold commas are separated by semicolons."""
    also: tuple[str, ...] = ()
    """Other people's samples for the same figures: npz, zip or folder, or an evaluation's .json."""
    generate: GenerateRequest = field(default_factory=GenerateRequest)
    """Options of every point that the grid does not name; its `n` gives way to that of `evaluate`."""
    evaluate: EvaluateRequest = field(
        default_factory=lambda: EvaluateRequest(n=POINT_SAMPLES, extrapolate=False)
    )
    """How every point is measured; its samples are the point's."""
    preset: str = ""
    """What network a .pt file is for, where it cannot be told."""


@dataclass(frozen=True, kw_only=True)
class AblationGrid:
    """Variants of one recipe: what a grid file says."""

    base: str = ""
    """A preset or the path of a YAML configuration."""
    set: dict[str, Any] = field(default_factory=dict)
    """Settings of every variant, the baseline too: "optimizer.lr" -> value."""
    variants: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Name -> the settings that it changes in the baseline."""
    generate: GenerateRequest = field(default_factory=GenerateRequest)
    """How every variant is drawn from."""


@dataclass(frozen=True, kw_only=True)
class AblationRequest:
    """Variants trained at equal compute and measured half way and at the end."""

    grid: AblationGrid = field(default_factory=AblationGrid)
    data: str = ""
    minutes: float | None = None
    """Of training, each variant; or `steps`."""
    steps: int | None = None
    evaluate: EvaluateRequest = field(
        default_factory=lambda: EvaluateRequest(n=POINT_SAMPLES, extrapolate=False)
    )
    """How variants are measured; against the training pictures where it names nothing else."""


@dataclass(frozen=True, kw_only=True)
class SearchRequest:
    """Which steps to spend a budget of calls of the network on."""

    model: str = ""
    calls: int = 25
    """Calls of the network a picture may take."""
    sections: int = 5
    """Equal parts of the training steps among which calls are moved."""
    n: int = 512
    """Pictures that a candidate is measured on at most."""
    final: int = POINT_SAMPLES
    """Fresh pictures that the winner and uniform steps are compared on."""
    beside: tuple[str, ...] = ()
    """Other steps for the last comparison, such as quad25."""
    generate: GenerateRequest = field(default_factory=GenerateRequest)
    """Sampler and guidance; its steps are what is looked for."""
    evaluate: EvaluateRequest = field(default_factory=EvaluateRequest)
    """Features and reference."""
    preset: str = ""


@dataclass(frozen=True, kw_only=True)
class CompareRequest:
    """A pixel diffusion model, a latent one and a GAN, trained for the same time on the same pictures."""

    data: str = ""
    minutes: float = 30.0
    """Of training, for each; the latent model's first stage takes `stage_share` of its own."""
    stage_share: float = 0.3
    models: tuple[str, ...] = ("pixel", "latent", "gan")
    pixel: str = "fashion-28"
    """Recipes: presets, or paths of YAML configurations; their sizes give way to the data's."""
    stage: str = "kl-f4-tiny"
    latent: str = "latent-64"
    gan: str = ""
    """"" takes gan-28 for pictures of up to 32 pixels, else gan-64."""
    size: int | None = None
    """Side in pixels; None takes the pictures' own."""
    channels: int | None = None
    flip: bool = False
    """Mirror half of the pictures, for all models alike."""
    guidance: tuple[float, ...] = (1.5, 2.0, 3.0, 4.0)
    """Scales of the sweep of the diffusion models, besides 1."""
    truncation: tuple[float, ...] = (0.3, 0.5, 0.7, 1.0, 1.5)
    """Of the sweep of the GAN, besides none."""
    seed: int = 0
    """Of training and of what is drawn."""
    generate: GenerateRequest = field(default_factory=lambda: GenerateRequest(steps="25"))
    """How the diffusion models are drawn from."""
    evaluate: EvaluateRequest = field(
        default_factory=lambda: EvaluateRequest(n=POINT_SAMPLES, extrapolate=False)
    )
    """How every model is measured; against the training pictures where it names nothing else."""
