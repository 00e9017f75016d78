"""How anything is trained, as frozen dataclasses: what command line, YAML, Python and run folder speak.

What a diffusion model is, is in `config.model`; what is asked of one in `config.requests`.
"""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from unnoise.config.kinds import ByKind
from unnoise.config.model import LatentConfig, ModelConfig, ScheduleConfig
from unnoise.networks.first_stage_settings import DiscriminatorSettings, FirstStageSettings, KlSettings
from unnoise.networks.gan_settings import GeneratorSettings, ProjectionSettings
from unnoise.networks.settings import ClassifierSettings, EncoderUNetSettings

Precision = Literal["auto", "float32", "bfloat16", "float16"]


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where pictures come from and how they become squares of one size."""

    source: str = ""
    """A folder, .zip, .npz, idx file or folder of four (`FOLDER:test` for the test split), `hf:NAME[:split]`,
    or a built-in: fashion-mnist, fashion-mnist:test, fashion-mnist-10k."""
    size: int | None = None
    """Side in pixels; None takes the pictures' own when all agree."""
    channels: int | None = None
    """1, 3, or 2 and 4 to keep transparency; None takes grey for data that is grey throughout, else RGB."""
    crop: Literal["center", "random"] = "center"
    """ADM's box-and-bicubic resize and centre crop, or its random crop (0.8 to 1.0 of the shorter side)."""
    flip: bool = False
    """Mirror half of the pictures, chosen by (seed, position in the sequence)."""
    background: str = "#ffffff"
    """What transparent pixels are laid over."""
    labels: Literal["auto", "folder", "metadata", "none"] = "auto"
    label_field: str = ""
    """Field of the metadata that is the class, such as style; "" takes label or class."""
    boxes: str = ""
    """A json in COCO's form with the boxes of the pictures, for models that are told layouts."""
    maps: str = ""
    """A folder of PNGs with the names of the pictures, whose levels are classes, for models that are told
    semantic maps."""
    map_classes: int | None = None
    """How many classes they have."""
    strict: bool = False
    """Refuse a data set with a broken picture instead of naming and skipping it."""
    cache: str | None = None
    """Folder of the decoded cache; None takes the user's cache folder."""
    max_pixels: int = 134_217_728
    """Pictures of more pixels are refused before they are decoded, as broken."""
    hub_limit: int = 200_000
    """Pictures taken from a Hugging Face data set at most, the first ones."""


@dataclass(frozen=True, kw_only=True)
class ObjectiveConfig:
    """What is minimised."""

    name: Literal["simple", "vlb", "hybrid"] = "hybrid"
    weight: Literal["uniform", "min_snr"] = "uniform"
    min_snr_gamma: float = 5.0
    vlb_weight: float = 0.001
    """Factor of the variational sum over T steps in `hybrid` (Improved DDPM: 0.001)."""
    error: Literal["l2", "l1"] = "l2"
    """In `simple`: the mean of squares or of absolute values of what the prediction misses by."""
    simple_weight: float = 1.0
    """In `simple`: factor of that mean (latent diffusion's l_simple_weight)."""
    elbo_weight: float = 0.0
    """In `simple`: factor of the same mean weighted as in the variational bound, for networks that predict
    eps or x0 (latent diffusion's original_elbo_weight)."""
    learn_logvar: bool = False
    """In `simple`: learn a log variance of the errors for each t, by which they are weighed (latent
    diffusion's learn_logvar); checkpoints hold it, model files do not."""
    logvar_init: float = 0.0
    """Where it begins."""


@dataclass(frozen=True, kw_only=True)
class TimestepConfig:
    """Which t to train on."""

    name: Literal["uniform", "loss_second_moment"] = "uniform"
    history: int = 10
    uniform_prob: float = 0.001


@dataclass(frozen=True, kw_only=True)
class RateCycle:
    """A stretch of the learning rate: up from `start` to `peak`, then down to `floor`, all shares of `lr`."""

    steps: int
    """From its start to where it has come down."""
    warmup_steps: int = 0
    start: float = 0.0
    peak: float = 1.0
    floor: float = 0.0


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """AdamW and its learning rate."""

    lr: float = 1e-4
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    warmup_steps: int = 0
    decay: Literal["none", "linear", "cosine"] = "none"
    """Of the learning rate, to zero at the last step; with `cycles` the shape of each one's way down."""
    cycles: tuple[RateCycle, ...] = ()
    """One after the other instead of one way down over all steps (latent diffusion's schedulers), with
    `warmup_steps` of their own; the last one's floor holds to the end."""
    clip_norm: float | None = 1.0


@dataclass(frozen=True, kw_only=True)
class EmaConfig:
    """Averages of the weights; the first rate is the one that is sampled from."""

    rates: tuple[float, ...] = (0.9999,)
    warmup: bool = True
    """Use min(rate, (1 + n) / (10 + n)) at step n, so that early averages forget the start."""


@dataclass(frozen=True, kw_only=True)
class ClassifierConfig:
    """A plain classifier: its network, how pictures are varied, what it is validated on."""

    network: ClassifierSettings = field(default_factory=ClassifierSettings)
    label_smoothing: float = 0.0
    """Share of the target spread over all classes (Szegedy et al. 2016, arXiv 1512.00567)."""
    shift: int = 2
    """Pixels that a picture is moved by at most in each direction, its edges repeated."""
    sizes: tuple[int, ...] = ()
    """Sides of the batches, one drawn for each step; empty takes the pictures' own. Pictures are cut where
    it is smaller than theirs, enlarged where it is larger. A side named twice is drawn more often."""
    validation: str = ""
    """A data source of its own, such as fashion-mnist:test; "" holds out a part of the training pictures."""
    held_out: float = 0.05
    """Share of the training pictures that are validated on instead, where no other source is named."""


@dataclass(frozen=True, kw_only=True)
class NoisyClassifierConfig:
    """A classifier of noisy pictures, which guides a model of the same size and schedule (ADM, section 4)."""

    network: EncoderUNetSettings = field(default_factory=EncoderUNetSettings)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    """How noisy a picture is at t: that of the model which it guides."""
    latent: LatentConfig | None = None
    """The latents that it sees instead of pictures, those of the model which it guides; None for pixels.
    Training takes it from its `first_stage`."""
    latent_scale: tuple[float, ...] = ()
    """Their factor, one for all channels or one each."""
    noised: bool = True
    """Learn from pictures noised to every t; False: from clean ones, all at the first t."""
    validation: str = ""
    """A data source of its own, such as fashion-mnist:test; "" holds out a part of the training pictures."""
    held_out: float = 0.05
    """Share of the training pictures that are validated on instead, where no other source is named."""


@dataclass(frozen=True, kw_only=True)
class AdversaryConfig:
    """The discriminator that a first stage learns to deceive."""

    network: DiscriminatorSettings = field(default_factory=DiscriminatorSettings)
    loss: Literal["hinge", "vanilla"] = "hinge"
    weight: float = 0.5
    """Of the adversarial loss, beyond the balance of gradients at the decoder's last layer; 0: none."""
    start: int | None = None
    """Optimiser steps before it begins; None: when reconstruction no longer gets better by itself."""
    lr: float | None = None
    """Learning rate; None takes that of the first stage."""


@dataclass(frozen=True, kw_only=True)
class AutoencoderConfig:
    """A first stage: its network, what it is trained by, what it is validated on."""

    network: Annotated[FirstStageSettings, ByKind()] = field(default_factory=KlSettings)
    image_size: int | None = None
    """Side in pixels that it is trained at; None takes the data's."""
    pixel_loss: Literal["l1", "l2"] = "l1"
    perceptual: str = "auto"
    """What compares pictures besides their pixels: stlpips (a package, LPIPS on VGG16), unnoise-small
    (shipped features), the path of LPIPS weights on VGG16, or none; auto takes stlpips where installed."""
    perceptual_weight: float = 1.0
    kl_weight: float = 1e-6
    """Of the latents' KL to N(0, 1), summed over a picture; for kind kl."""
    latent_noise: float = 0.0
    """Most noise on the latents that the decoder learns from, in deviations of each channel over a picture;
    every picture has its own share of it, from none up. So it restores pictures from latents that are a
    little wrong, as drawn ones are (Zheng et al. 2025, arXiv 2510.11690); for kind kl."""
    freeze_encoder: bool = False
    """Learn the decoder alone, on the latents of the first stage that it starts from, which stay as they
    are: models of these may then take the new decoder (`convert --first-stage`)."""
    codebook_weight: float = 1.0
    """Of the losses between latents and codes; for kind vq."""
    learn_logvar: bool = False
    """Learn the reconstruction's log variance, a scalar; else it stays at `logvar_init`."""
    logvar_init: float = 0.0
    revive_after: int = 0
    """Steps that a code may lie unused before it is moved to a latent of the batch; 0: for ever."""
    adversary: AdversaryConfig = field(default_factory=AdversaryConfig)
    validation: str = ""
    """A data source of its own; "" holds out a part of the training pictures."""
    held_out: float = 0.05
    """Share of the training pictures that are validated on instead, where no other source is named."""


@dataclass(frozen=True, kw_only=True)
class GanConfig:
    """A GAN: its two networks and how they play (Brock et al. 2019, arXiv 1809.11096); the loss is hinge."""

    generator: GeneratorSettings = field(default_factory=GeneratorSettings)
    discriminator: ProjectionSettings = field(default_factory=ProjectionSettings)
    discriminator_steps: int = 2
    """Steps of the discriminator after each of the generator's."""
    discriminator_lr: float | None = None
    """Learning rate of the discriminator; None takes `optimizer.lr`, the generator's."""
    augment: tuple[Literal["color", "translation", "cutout"], ...] = ()
    """How the discriminator sees pictures changed, real and drawn alike (DiffAugment, Zhao et al. 2020, arXiv
    2006.10738): for few pictures, which it would learn by heart."""
    r1: float = 0.0
    """Factor of |dD/dx|^2 / 2 on real pictures (Mescheder et al. 2018, arXiv 1801.04406); 0: none."""
    held_out: float = 0.05
    """Share of the training pictures kept from the discriminator, to see whether it learns the others by
    heart; 0: none."""


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """How the first average is measured against the training pictures while it learns."""

    every: int = 0
    """Steps between evaluations, besides the one after the last step; 0 for none."""
    n: int = 500
    """Pictures drawn each time, from the same noise."""
    reference: int = 10_000
    """Training pictures they are measured against: chosen by the seed, all where there are fewer."""
    features: str = "auto"
    """Feature network, as of EvaluateRequest."""
    weights: str = ""
    """Path of the feature network's weights."""
    steps: str = "25"
    """As of GenerateRequest."""
    guidance: float = 1.0
    metric: Literal["KID", "FD", "precision", "recall"] = "KID"
    """What the best is chosen by."""
    keep_best: bool = False
    """Keep the best average as best.safetensors, and the checkpoint it belongs to."""


@dataclass(frozen=True, kw_only=True)
class LatentsConfig:
    """How a latent model's pictures become what it learns."""

    required: bool = False
    """Refuse to train without a first stage: for recipes that make no sense for pixels."""
    cache: bool = True
    """Encode every picture once and keep the latents beside the decoded pictures; False encodes at every
    step, which random crops need."""
    scale: Literal["auto", "model", "channel", "keep"] = "auto"
    """Factor of the latents. model: one number that gives them all the deviation 1; channel: one for each
    channel; keep: the first stage's own (1 for the published ones with a codebook); auto: `keep` where
    `first_stage` names a latent model, whose companion then sees what it sees, else `model`."""
    measured: int = 4096
    """Pictures that the scale is measured over, at most."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One training run, complete: with the data it repeats bit for bit."""

    preset: str = ""
    kind: Literal["diffusion", "classifier", "noisy_classifier", "autoencoder", "gan"] = "diffusion"
    """What is trained: a model that draws (`model`, `objective`, `timesteps`, ...), a `classifier`, a
    `noisy_classifier` that guides, an `autoencoder`, the first stage of a latent model, or a `gan`."""
    first_stage: str = ""
    """File or run directory of a first stage, whose latents are then learned instead of pixels; or of a
    latent model, whose first stage is taken with its scale."""
    start_from: str = ""
    """File, run directory or shipped model of the same recipe whose weights the network begins with
    (fine-tuning); "" begins with fresh ones. Of a latent model the first stage is taken too."""
    latents: LatentsConfig = field(default_factory=LatentsConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    timesteps: TimestepConfig = field(default_factory=TimestepConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    ema: EmaConfig = field(default_factory=EmaConfig)
    classifier: ClassifierConfig | None = None
    """For kind classifier alone."""
    noisy_classifier: NoisyClassifierConfig | None = None
    """For kind noisy_classifier alone."""
    autoencoder: AutoencoderConfig | None = None
    """For kind autoencoder alone."""
    gan: GanConfig | None = None
    """For kind gan alone."""
    steps: int = 100_000
    minutes: float | None = None
    """Take as many steps as fit into this time, from when the data are ready: decoded, and encoded for a
    latent model, which is done once; measured before the first step, which sets `steps`."""
    batch_size: int = 128
    """Pictures an optimiser step, over all processes."""
    micro_batch: int | None = None
    """Pictures a forward pass of one process; None takes what memory allows."""
    label_dropout: float = 0.1
    """Share of labels replaced by the null class, which classifier-free guidance needs."""
    precision: Precision = "auto"
    device: str = "auto"
    compile: Literal["auto", "on", "off"] = "auto"
    seed: int = 0
    log_every: int = 50
    save_every: int = 1000
    keep_last: int = 3
    milestones: tuple[int, ...] = ()
    sample_every: int = 1000
    """Steps between sample grids, besides those after 1, 2, 4, 8, ... steps; 0 draws none. For a classifier:
    between validations."""
    sample_steps: int = 25
    sample_count: int | None = None
    """Pictures in a grid; None takes two of each class where they are few, else 16."""
    evaluate: EvaluationConfig = field(default_factory=EvaluationConfig)
