"""Training settings that could not work, refused before anything is opened."""

import math
from pathlib import Path

from unnoise.config.model import ModelConfig, ToldConfig
from unnoise.config.resolve import NEEDS
from unnoise.config.schema import (
    AutoencoderConfig,
    ClassifierConfig,
    EvaluationConfig,
    GanConfig,
    ObjectiveConfig,
    OptimizerConfig,
    TrainConfig,
)
from unnoise.data.finding import check_source
from unnoise.frozen_text import frozen_of, open_frozen
from unnoise.model import make_schedule
from unnoise.networks.build import check_network
from unnoise.networks.conditioner_settings import SpatialRescalerSettings, TextEncoderSettings
from unnoise.networks.first_stage_settings import KlSettings
from unnoise.networks.settings import UNetSettings
from unnoise.train.evaluation import LEAST, check_features
from unnoise.train.perceptual import choose

MOST, MOST_STEPS = 2**24, 10**12
"""Pictures a step, and steps of a run, that could be counted."""


def check(config: TrainConfig, *, processes: int) -> None:
    """Refuse numbers out of range, naming the setting, the rule and the way out."""
    o, e, v = config.optimizer, config.ema, config.evaluate
    rules = [
        ("steps", config.steps, 1 <= config.steps <= MOST_STEPS, f"use 1 to {MOST_STEPS:,}"),
        ("minutes", config.minutes, config.minutes is None or config.minutes > 0, "use more than 0"),
        ("batch_size", config.batch_size, 1 <= config.batch_size <= MOST, f"use 1 to {MOST:,}"),
        ("log_every", config.log_every, config.log_every >= 1, "use 1 or more steps"),
        ("save_every", config.save_every, config.save_every >= 1, "use 1 or more steps"),
        ("keep_last", config.keep_last, config.keep_last >= 1, "keep 1 or more, or nothing can continue"),
        ("milestones", config.milestones, all(m >= 1 for m in config.milestones), "use steps from 1"),
        ("sample_every", config.sample_every, config.sample_every >= 0, "use steps, or 0 for no grids"),
        ("evaluate.every", v.every, v.every >= 0, "use steps, or 0 for none"),
        ("evaluate.n", v.n, v.n >= LEAST, f"use {LEAST} or more"),
        ("evaluate.reference", v.reference, v.reference >= LEAST, f"use {LEAST} or more"),
        ("label_dropout", config.label_dropout, 0 <= config.label_dropout < 1, "use a share in [0, 1)"),
        ("optimizer.lr", o.lr, 0 < o.lr < math.inf, "use more than 0"),
        ("optimizer.weight_decay", o.weight_decay, o.weight_decay >= 0, "use 0 or more"),
        ("optimizer.betas", o.betas, all(0 <= b < 1 for b in o.betas), "use two numbers in [0, 1)"),
        ("optimizer.eps", o.eps, o.eps > 0, "use more than 0"),
        ("optimizer.warmup_steps", o.warmup_steps, o.warmup_steps >= 0, "use 0 or more"),
        ("optimizer.clip_norm", o.clip_norm, o.clip_norm is None or o.clip_norm > 0, "use null for none"),
        ("ema.rates", e.rates, bool(e.rates) and all(0 <= r < 1 for r in e.rates), "use rates in [0, 1)"),
        ("ema.rates", e.rates, len(set(e.rates)) == len(e.rates), "name each rate once"),
    ]
    rules += [
        (name, value, value is None or 1 <= value <= MOST, f"use 1 to {MOST:,}")
        for name, value in (("micro_batch", config.micro_batch), ("sample_count", config.sample_count))
    ]
    for name, value, fine, way_out in rules:
        if not fine:
            shown = list(value) if isinstance(value, tuple) else value
            raise ValueError(f"{name}={shown} is not possible; {way_out}")
    _check_cycles(config.optimizer)
    if config.latents.required and not config.first_stage:
        raise ValueError(
            "this recipe learns latents, and no first stage is named; add --first-stage FILE (such as a run "
            "of kl-f4-tiny), or learn pixels with latents.required=false"
        )
    _check_beside(config)
    if config.start_from and config.kind == "gan":
        raise ValueError(
            f"start_from={config.start_from}: the file of a GAN holds no discriminator to go on with; leave "
            "it out"
        )
    if v.every and config.model.low_res:
        raise ValueError(
            f"evaluate.every={v.every} measures models that draw alone, and this is an upsampler "
            "(model.low_res); set it to 0"
        )
    if config.kind == "diffusion":
        _check_objective(config)
        make_schedule(config.model)
        check_network(config.model.network)
        _check_context(config.model)
        for number, told in enumerate(config.model.told):
            _check_told(f"model.told[{number}]", told)
    if config.classifier is not None:
        _check_classifier(config.classifier)
    if config.noisy_classifier is not None:
        make_schedule(config.noisy_classifier)
        _check_held_out("noisy_classifier", config.noisy_classifier.held_out)
    if config.autoencoder is not None:
        _check_autoencoder(config.autoencoder)
        if config.autoencoder.freeze_encoder and not config.start_from:
            raise ValueError(
                "autoencoder.freeze_encoder: the encoder would stay as it was drawn; name the first stage "
                "whose decoder is to learn with start_from"
            )
        if config.compile == "on":
            raise ValueError(
                "compile=on: the balance of a first stage's losses takes gradients twice, which compiled "
                "networks do not give; leave it out"
            )
    if config.kind == "gan":
        _check_gan(config)
    if config.batch_size < processes:
        raise ValueError(
            f"batch_size={config.batch_size} leaves some of the {processes} processes without a picture; use "
            f"{processes} or more, or start fewer processes"
        )
    if config.sample_every and not 1 <= config.sample_steps <= config.model.schedule.steps:
        raise ValueError(
            f"sample_steps={config.sample_steps} does not fit the {config.model.schedule.steps} steps of the "
            f"schedule; use 1..{config.model.schedule.steps}"
        )


def check_outside(config: TrainConfig) -> None:
    """Refuse settings that name what is not there, before the pictures are read, which may take long."""
    for kind in (config.classifier, config.noisy_classifier, config.autoencoder):
        if kind is not None and kind.validation:
            check_source(kind.validation)
    for name, value in (("boxes", config.data.boxes), ("maps", config.data.maps)):
        path = Path(value).expanduser()
        if value and not (path.is_dir() if name == "maps" else path.is_file()):
            raise ValueError(f"data.{name}={value} is no {'folder' if name == 'maps' else 'file'}; name one")
    told = frozen_of(config.model)
    if told is not None:
        open_frozen(told)
    if config.autoencoder is not None and config.autoencoder.perceptual != "auto":
        choose(config.autoencoder.perceptual)
    if config.evaluate.every:
        check_features(config.evaluate)


def _check_beside(config: TrainConfig) -> None:
    """Refuse boxes and maps that the model is not told, and the lack of those that it is told."""
    data = config.data
    for name, what in (("boxes", "layout"), ("maps", "map")):
        value = getattr(data, name)
        places = [k for k, each in enumerate(config.model.told) if each.what == what]
        if value and not places:
            raise ValueError(
                f"data.{name}={value} means nothing to a model that is not told {NEEDS[what]}; leave it out, "
                f"or tell it: model.told, what={what}"
            )
        if places and not value:
            raise ValueError(
                f"model.told[{places[0]}] tells the model {NEEDS[what]}, and the data have none; name them "
                f"with data.{name}"
            )
    if data.maps and not 1 <= (data.map_classes or 0) <= 256:
        raise ValueError(
            f"data.map_classes={data.map_classes}: say how many classes the maps have, 1 to 256, the levels "
            "of a PNG"
        )
    if data.map_classes is not None and not data.maps:
        raise ValueError(f"data.map_classes={data.map_classes} means nothing without data.maps; leave it out")


def _check_context(config: ModelConfig) -> None:
    """Refuse a network that reads tokens where nothing makes any."""
    width = config.network.context_width if isinstance(config.network, UNetSettings) else None
    if width and all(isinstance(each.encoder, SpatialRescalerSettings) for each in config.told):
        raise ValueError(
            f"model.network.context_width={width} reads tokens, and nothing in model.told makes any; add an "
            "encoder of another kind than spatial, or leave context_width and transformer_depth out"
        )


def _check_told(where: str, told: ToldConfig) -> None:
    """Refuse shares that are none, and tags where there is no vocabulary to read them with."""
    for name, share in (("dropout", told.dropout), ("tag_dropout", told.tag_dropout)):
        if not 0 <= share <= 1:
            raise ValueError(f"{where}.{name}={share:g} is no share; use 0 to 1")
    if told.tag_dropout and not (told.what == "text" and isinstance(told.encoder, TextEncoderSettings)):
        raise ValueError(
            f"{where}.tag_dropout={told.tag_dropout:g} is for captions of a vocabulary (what=text, an "
            "encoder of kind tokens); leave it out"
        )


def _check_cycles(config: OptimizerConfig) -> None:
    """Refuse cycles of the learning rate that go nowhere, and what would act beside them."""
    if not config.cycles:
        return
    if config.decay == "none" or config.warmup_steps:
        raise ValueError(
            f"optimizer.decay={config.decay}, optimizer.warmup_steps={config.warmup_steps} with cycles: each "
            "goes down in the shape of decay and has warm-up steps of its own; use linear or cosine, and 0"
        )
    for number, cycle in enumerate(config.cycles):
        shares = (cycle.start, cycle.peak, cycle.floor)
        if not 0 <= cycle.warmup_steps < cycle.steps or min(shares) < 0:
            raise ValueError(
                f"optimizer.cycles[{number}]: warmup_steps={cycle.warmup_steps} of steps={cycle.steps}, "
                f"shares {', '.join(f'{share:g}' for share in shares)}; use 0 <= warmup_steps < steps and "
                "shares of 0 or more"
            )


def _check_objective(config: TrainConfig) -> None:
    learns = config.model.variance in ("learned", "learned_range")
    if config.first_stage and config.objective.name != "simple":
        raise ValueError(
            f"objective.name={config.objective.name} counts bits of grey levels, and latents have none; use "
            "simple, with model.variance=fixed_small"
        )
    if config.objective.name == "simple" and learns:
        raise ValueError(
            f"objective.name=simple does not train the {config.model.variance} variance; "
            "use hybrid, or model.variance=fixed_large"
        )
    if config.objective.name == "hybrid" and not learns:
        raise ValueError(
            f"objective.name=hybrid has nothing to learn of a {config.model.variance} variance; "
            "use simple, or model.variance=learned_range"
        )

    if config.objective.name != "simple":
        for name in ("error", "simple_weight", "elbo_weight", "learn_logvar"):
            value = getattr(config.objective, name)
            if value != getattr(ObjectiveConfig(), name):
                raise ValueError(
                    f"objective.{name}={value} means nothing to objective.name={config.objective.name}; "
                    "leave it out, or use simple"
                )
    elif config.objective.elbo_weight and config.model.predicts not in ("eps", "x0"):
        raise ValueError(
            f"objective.elbo_weight={config.objective.elbo_weight:g} has no value for "
            f"model.predicts={config.model.predicts}; leave it out, or predict eps or x0"
        )

    if config.objective.logvar_init and not config.objective.learn_logvar:
        raise ValueError(
            f"objective.logvar_init={config.objective.logvar_init:g} begins what is not learned; leave it "
            "out, or set objective.learn_logvar=true"
        )


def _check_classifier(config: ClassifierConfig) -> None:
    config.network.check()
    rules = [
        ("label_smoothing", config.label_smoothing, 0 <= config.label_smoothing < 1, "use a share in [0, 1)"),
        ("shift", config.shift, config.shift >= 0, "use 0 or more pixels"),
        (
            "sizes",
            list(config.sizes),
            all(side >= 8 for side in config.sizes),
            "use sides of 8 pixels or more",
        ),
    ]
    for name, value, fine, way_out in rules:
        if not fine:
            raise ValueError(f"classifier.{name}={value} is not possible; {way_out}")
    _check_held_out("classifier", config.held_out)


def _check_autoencoder(config: AutoencoderConfig) -> None:
    _check_held_out("autoencoder", config.held_out)
    config.adversary.network.check()
    adversary = config.adversary
    for name, value in (
        ("perceptual_weight", config.perceptual_weight),
        ("kl_weight", config.kl_weight),
        ("latent_noise", config.latent_noise),
        ("codebook_weight", config.codebook_weight),
        ("revive_after", config.revive_after),
        ("adversary.weight", adversary.weight),
        ("adversary.start", adversary.start or 0),
    ):
        if not 0 <= value < math.inf:
            raise ValueError(f"autoencoder.{name}={value} is not possible; use 0 or more")
    if config.latent_noise and not isinstance(config.network, KlSettings):
        raise ValueError(
            f"autoencoder.latent_noise={config.latent_noise:g} is for Gaussian latents (network.kind=kl): a "
            "codebook mends small errors itself; leave it out"
        )
    if config.freeze_encoder and config.revive_after:
        raise ValueError(
            f"autoencoder.revive_after={config.revive_after} moves codes, and freeze_encoder keeps them; "
            "leave one of them out"
        )
    if adversary.lr is not None and not 0 < adversary.lr < math.inf:
        raise ValueError(f"autoencoder.adversary.lr={adversary.lr} is not possible; use more than 0")


def _check_gan(config: TrainConfig) -> None:
    gan = config.gan or GanConfig()
    rules = [
        ("discriminator_steps", gan.discriminator_steps, gan.discriminator_steps >= 1, "use 1 or more"),
        (
            "discriminator_lr",
            gan.discriminator_lr,
            gan.discriminator_lr is None or 0 < gan.discriminator_lr < math.inf,
            "use more than 0",
        ),
        ("augment", list(gan.augment), len(set(gan.augment)) == len(gan.augment), "name each once"),
        ("r1", gan.r1, 0 <= gan.r1 < math.inf, "use 0 or more"),
        ("held_out", gan.held_out, 0 <= gan.held_out < 1, "use a share in [0, 1)"),
    ]
    for name, value, fine, way_out in rules:
        if not fine:
            raise ValueError(f"gan.{name}={value} is not possible; {way_out}")
    if config.precision == "float16":
        raise ValueError(
            "precision=float16: a GAN's losses have no scale of their own that would keep small gradients; "
            "use bfloat16 or float32"
        )
    if config.compile == "on":
        raise ValueError("compile=on: a GAN's networks take turns, which is not compiled; leave it out")
    for name in ("steps", "guidance"):
        value = getattr(config.evaluate, name)
        if value != getattr(EvaluationConfig(), name):
            raise ValueError(
                f"evaluate.{name}={value} means nothing to a GAN, which draws in one step; leave it out"
            )


def _check_held_out(owner: str, share: float) -> None:
    if not 0 < share < 1:
        raise ValueError(f"{owner}.held_out={share} is not possible; use a share between 0 and 1")
