"""What is asked of a model, as frozen dataclasses: to draw, to edit, to count bits, to measure."""

from dataclasses import dataclass, field
from typing import Literal

from unnoise.config.schema import DataConfig, Precision

EditKind = Literal[
    "vary", "interpolate", "invert", "inpaint", "outpaint", "colorize", "upscale", "stroke"
]  # fmt: skip
EditMethod = Literal["auto", "told", "replace", "repaint", "dps", "pigdm", "particles"]


@dataclass(frozen=True, kw_only=True)
class GenerateRequest:
    """What to draw. Picture k depends on (seed, k) alone."""

    n: int = 16
    labels: tuple[str, ...] = ()
    """Class names or indices, cycled; empty draws all classes in turn."""
    prompts: tuple[str, ...] = ()
    """What a model of captions is told, in turn."""
    text_encoder: str = ""
    """Folder of the frozen text encoder that the model was trained with, where it lies elsewhere now."""
    given: str = ""
    """For a model that is told pictures, their parts or captions: a folder, zip or data set as for training;
    picture k is told what the k-th of them says, in turn."""
    given_boxes: str = ""
    """The boxes of those pictures, as DataConfig.boxes."""
    given_maps: str = ""
    """The semantic maps of those pictures, as DataConfig.maps."""
    sampler: str = "ddim"
    steps: str = "50"
    """A count (trailing for dpmpp-2m, dpmpp-3m and unipc, else even), "even25", "ddim25", sections
    "90,60,60,20,20", "quad50", "trailing50", "logsnr20", "karras20" or "ldm50"."""
    eta: float = 0.0
    """Noise of the samplers ddim, dpmpp-2m and dpmpp-3m: 0 none, 1 as much as ancestral sampling."""
    temperature: float = 1.0
    """Factor of the noise of the samplers ddim and ddpm."""
    solver_order: int = 2
    """Of the sampler unipc: 2, or 3 without guidance."""
    guidance: float | None = None
    """Scale of classifier-free guidance; 1 is off. None is what the model file advises for drawing, unless a
    classifier or a weaker model guides or no class is told; 1 where it advises nothing, and in edits."""
    classifier: str = ""
    """File or run directory of a noisy classifier that guides towards the labels; "" for none."""
    scale: float | None = None
    """Of the classifier's gradient; 0 is off, None means 1 where there is a classifier."""
    guide_at: Literal["x_t", "mean"] = "x_t"
    """Where the sampler ddpm works out the classifier's gradient: at x_t as ADM's code, or at the predicted
    mean as its paper."""
    weaker: str = ""
    """File or run directory of a weaker model of the same kind to be guided away from (autoguidance)."""
    weaker_scale: float = 2.0
    """Scale of that guidance; 1 is off."""
    guidance_interval: tuple[float, float] | None = None
    """Noise levels sigma/alpha at which guidance of every kind is on, low < level <= high. None means all,
    but for a classifier that shifts the score only those up to 300."""
    guidance_course: Literal["constant", "linear", "cosine"] = "constant"
    """Whether the scales hold at every noise level, or rise to their full size as noise falls."""
    conditional: bool = True
    """False: the model draws without a class, and only the classifier knows the labels."""
    truncation: float | None = None
    """Of a GAN: no number of z is larger than this: less diversity, more quality; None: as in training."""
    clip: Literal["auto", "none", "static", "dynamic"] = "auto"
    clip_percentile: float = 0.995
    seed: int = 0
    first: int = 0
    """Index of the first picture."""
    low_res: str = ""
    """For an upsampler: a folder, zip, npz or data set of small pictures; picture k enlarges the k-th of
    them, and they are taken in turn when there are fewer."""
    shrink: bool = False
    """The pictures of `low_res` are large: shrink them first, as training did."""
    low_res_noise: float = 0.0
    """Sigma of the noise laid over the small pictures, up to that of the upsampler's training."""
    height: int | None = None
    """Of the pictures, in pixels, where it is another than that of training (convolutional sampling)."""
    width: int | None = None
    """As `height`."""
    patch: int | None = None
    """Denoise and decode such large pictures in overlapping squares of this side, in pixels, in memory that
    does not grow; None as a whole."""
    batch_size: int = 64
    exact: bool = False
    """Equal to the bit in any request: every picture in its fixed place of a batch of fixed size, ignoring
    `batch_size`."""
    precision: Precision = "auto"
    device: str = "auto"


@dataclass(frozen=True, kw_only=True)
class EditRequest:
    """What is made of pictures. A result depends on its picture, the seed and its own index alone."""

    kind: EditKind = "vary"
    fit: Literal["refuse", "crop", "pad", "tile"] = "refuse"
    """A picture of another size than the model's: refuse it; resize and cut its middle as ADM does; shrink it
    where it is larger, and repeat its edges around it; or keep its size and work in overlapping squares of
    the model's."""
    grey: bool = False
    """Let a model of grey pictures have those in colour, without their colours."""
    background: str = "#ffffff"
    """What transparent pixels are laid over, for a model without transparency."""
    max_pixels: int = 134_217_728
    """Pictures of more pixels are refused before they are decoded."""
    strength: float = 0.5
    """How far pictures are taken towards noise, as a share of the training steps: 0 leaves them, 1 leaves
    nothing of them. For vary, stroke, and interpolate in x_t."""
    mix: Literal["x_T", "x_t"] = "x_T"
    """Where interpolate joins the ends: in the noise that they are drawn from, on the sphere (DDIM), or
    half-way to noise, on a straight line (DDPM)."""
    seeds: tuple[str, ...] = ()
    """Ends of interpolate that are drawn: "7" is what seed 7 draws first, "7:3" its picture 3."""
    frames: int = 9
    """Pictures of interpolate from one end to the next, both counted."""
    corrections: int = 2
    """Network calls that correct each step from a picture to its noise, for invert and interpolate in x_T."""
    mask: str = ""
    """Where inpaint and stroke draw: a picture of the size of the one to edit, white there; a folder with one
    of the name of each; or "alpha", where the picture itself is not opaque."""
    box: tuple[int, int, int, int] | None = None
    """The same as a rectangle: left, top, width and height in pixels."""
    strokes: str = ""
    """The same as strokes of a brush: a json file, [{"width": W, "points": [[X, Y], ...]}, ...] in pixels."""
    feather: int = 0
    """Pixels around the hole over which a latent model's drawing passes into the picture; 0 is exact."""
    left: int = 0
    """Pixels that outpaint adds on this side; so do `right`, `top` and `bottom`."""
    right: int = 0
    top: int = 0
    bottom: int = 0
    factor: int | None = None
    """How many times larger upscale makes pictures; None takes what an upsampler was trained for."""
    method: EditMethod = "auto"
    """How what is known of a picture is kept while the rest is drawn. auto: as the model was trained to be
    told it, else replace, or dps where a model of latents colours or enlarges; told: as trained, and nothing
    else; replace: put in, noised, before every step; repaint: the same with resampling; dps, pigdm: the
    prediction is pulled towards it through the network's gradient; particles: many are drawn and weighed by
    it."""
    jump: int = 10
    """Steps that repaint goes back at a time."""
    repeats: int | None = None
    """How often repaint walks each stretch, and stroke all of its way; None takes 10 and 1."""
    pull: float | None = None
    """Strength of dps and pigdm; None takes 2 and 1, 0 is off."""
    particles: int = 16
    """Pictures that the method particles draws for each that it gives out."""
    palette: str = ""
    """A picture whose colours colorize leads towards: their mean and how they spread, of any size."""
    palette_pull: float = 2.0
    """How strongly; 0 is off."""
    generate: GenerateRequest = field(default_factory=GenerateRequest)
    """How it is drawn. `labels` and `prompts` are the pictures': one for all, or one each; none draws without
    a class. `n` and `first` count the results of a picture; invert and interpolate take no notice of them."""


@dataclass(frozen=True, kw_only=True)
class UpsamplerOptions:
    """How one upsampler of a cascade draws; all else is the cascade's (see GenerateRequest).

    No guidance: ADM guides at the lowest resolution alone.
    """

    sampler: str = "ddim"
    steps: str = "50"
    eta: float = 0.0
    solver_order: int = 2
    clip: Literal["auto", "none", "static", "dynamic"] = "auto"
    clip_percentile: float = 0.995
    low_res_noise: float = 0.0


@dataclass(frozen=True, kw_only=True)
class LikelihoodRequest:
    """How many bits a model spends on pictures. Picture k's noise depends on (seed, k) alone."""

    n: int = 100
    """Pictures, chosen by the seed."""
    steps: str = "all"
    """Which of the schedule's steps: "all" gives the published bound, fewer that of a shorter process."""
    labels: bool = True
    """Tell a class-conditional model the pictures' classes; False measures it without a class."""
    clip: bool = True
    """Clip the predicted picture to [-1, 1], as the published evaluation does."""
    seed: int = 0
    batch_size: int = 64
    device: str = "auto"


@dataclass(frozen=True, kw_only=True)
class EvaluateRequest:
    """How samples are measured against a reference."""

    samples: str = ""
    """A folder, zip, npz, data set, or a model file or run directory (drawn on the fly, not stored)."""
    against: str = ""
    """A folder, zip, npz, built-in data set, or a reference file (ADM's npz with mu and sigma)."""
    features: str = "auto"
    """inception, effnet-lite0, unnoise-small, hf:NAME, or a classifier file; auto takes Inception where its
    weights are on this machine, else what is."""
    weights: str = ""
    """Path of the feature network's weights."""
    n: int | None = None
    """Samples; None takes all there are, and 50,000 of a model."""
    size: int | None = None
    """Side that pictures are cropped to; None takes their own."""
    channels: int | None = None
    """1 or 3; None takes grey for pictures that are grey throughout."""
    data: DataConfig = field(default_factory=DataConfig)
    """How pictures are read, of both sides; its `source`, `size`, `channels` and `cache` give way to those
    here."""
    preset: str = ""
    """For a published .pt file among the samples: what network it is for, where that cannot be told."""
    evaluator: str = "adm"
    """Whose definitions of IS, precision and recall: adm or torch-fidelity. Everything else is the same."""
    paired: bool = False
    """Sample k is a reconstruction of reference picture k: rFID, PSNR, SSIM and LPIPS."""
    consistency: int | None = None
    """Of pairs that were enlarged by this factor: PSNR after shrinking both again by it."""
    lpips: str = ""
    """Path of LPIPS weights on VGG16; "" takes the shift-tolerant ones when they are installed."""
    neighbours: int | None = None
    """Pictures of each side for precision, recall, density and coverage; None takes all."""
    half: bool = False
    """ADM's float16 distances in precision and recall."""
    block: int = 1024
    """Rows of a block of distances: bounds the memory of precision and recall."""
    bootstrap: int = 100
    """Replicates behind the intervals; 0 gives none."""
    floor: bool = True
    """Measure real against real pictures too."""
    extrapolate: bool = True
    """The Frechet distance at infinitely many samples."""
    generate: GenerateRequest = field(default_factory=GenerateRequest)
    """How a model is drawn from; its `n` gives way to `n`."""
    cache: str | None = None
    """Folder for features, which lets an interrupted evaluation continue; None takes the user's cache."""
    batch_size: int = 32
    seed: int = 0
    device: str = "auto"
