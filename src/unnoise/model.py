"""A model: everything that is needed to draw with it, in memory and as one file."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from unnoise.config.load import FORMAT as CONFIG_FORMAT
from unnoise.config.load import differences, from_dict, to_dict
from unnoise.config.model import LatentConfig, ModelConfig
from unnoise.config.resolve import check_model
from unnoise.config.schema import NoisyClassifierConfig
from unnoise.diffusion.denoiser import Denoiser
from unnoise.diffusion.schedule import NoiseSchedule, make_betas
from unnoise.modelfile import METADATA_KEY, ModelInfo, find_model, put_weights, read_header, read_weights
from unnoise.networks.build import build_network
from unnoise.networks.conditioned import Conditioned
from unnoise.networks.conditioner_settings import ConditionedSettings, TextEncoderSettings
from unnoise.tensorfile import write_tensors

if TYPE_CHECKING:
    from unnoise.first_stage import FirstStage
    from unnoise.told import Teller

FIRST_STAGE = "first_stage."
"""Before the names of the weights of the first stage inside a model file."""


@dataclass(frozen=True, eq=False)
class Model:
    """A denoiser with its schedule, its settings and its class names."""

    denoiser: Denoiser
    schedule: NoiseSchedule
    config: ModelConfig
    info: ModelInfo = field(default_factory=ModelInfo)
    first_stage: "FirstStage | None" = None
    """What makes pictures of the latents that it draws; None for a model of pixels."""

    @property
    def network(self) -> nn.Module:
        """The network inside the denoiser."""
        return self.denoiser.network

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of their indices; empty for an unconditional model."""
        return self.info.classes

    @property
    def class_names(self) -> tuple[str, ...]:
        """What can be asked for: the names, or the numbers of classes that have none."""
        rows = self.config.class_rows or 0
        return self.classes or tuple(map(str, range(rows - (self.null_label is not None))))

    @property
    def null_label(self) -> int | None:
        """Index of the null class, None for a model without one."""
        return self.info.null_label

    @property
    def teller(self) -> "Teller":
        """What makes parts of its conditions of words and pictures."""
        from unnoise.text import Tokenizer
        from unnoise.token_ids import TokenIds
        from unnoise.told import Teller

        words = self.info.vocabulary
        tokenizer: Tokenizer | TokenIds | None = Tokenizer(words) if words else None
        for told in self.config.told:
            if tokenizer is None and isinstance(told.encoder, TextEncoderSettings) and told.what == "text":
                tokenizer = TokenIds(told.encoder.vocabulary or 0)
        return Teller(self.config, tokenizer, self.info.box_classes, self.first_stage)

    def teller_with(self, text_encoder: str) -> "Teller":
        """`teller`, with the frozen text encoder that the settings name, or the same in another folder."""
        from unnoise.frozen_text import frozen_of, open_frozen

        told = frozen_of(self.config)
        if told is None:
            if text_encoder:
                raise ValueError(f"text_encoder={text_encoder}: this model has none; leave it out")
            return self.teller
        frozen = open_frozen(told, folder=text_encoder, hash=self.info.text_encoder)
        return replace(self.teller, frozen=frozen)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.network.parameters()).device

    @property
    def meta(self) -> dict[str, Any]:
        """What the file says about the model, as plain data."""
        return {"model": to_dict(self.config), **to_dict(self.info)}

    def to(self, device: str | torch.device) -> "Model":
        """The same model on another device (its modules are moved, not copied)."""
        self.denoiser.to(device)
        if self.first_stage is not None:
            self.first_stage.to(device)
        return self

    def decode(self, x: Tensor, *, tile: int | None = None) -> Tensor:
        """Images (B, C, H, W), nominally in [-1, 1], of what the network draws (see `config.shape`).

        tile: decode in overlapping squares of this side, in pixels; None as a whole.
        """
        if self.first_stage is None:
            return x
        if tile is None:
            return self.first_stage.decode(x)
        return self.first_stage.decode_tiled(x, tile=max(1, tile // self.first_stage.factor))

    def encode(self, images: Tensor) -> Tensor:
        """What the network draws, of images in [-1, 1]: themselves, or their latents."""
        return images if self.first_stage is None else self.first_stage.encode(images)

    def sample(self, **options: Any) -> Any:
        """Pictures drawn with the options of `GenerateRequest`; see `unnoise.generate.sample`."""
        from unnoise.generate import sample

        return sample(self, **options)


def make_schedule(config: ModelConfig | NoisyClassifierConfig) -> NoiseSchedule:
    """The training schedule that the settings describe.

    ValueError for one whose last step leaves so little of the picture that none can be drawn from it.
    """
    s = config.schedule
    with torch.device("cpu"):  # also while a network is built on the meta device
        betas = make_betas(s.name, s.steps, start=s.beta_start, end=s.beta_end)
        schedule = NoiseSchedule.from_betas(betas, rescale=s.rescale_timesteps)
        # x0 and eps are had from one another by 1/alpha, in float32: also of v, where x0 is clipped.
        last = schedule.table("inv_alpha").float()[-1]
    if not last.isfinite():
        raise ValueError(
            f"schedule.steps={s.steps}: the last step of the {s.name} schedule leaves nothing of the picture "
            f"(alpha_bar={schedule.alpha_bar[-1]:.3g}), and a model would draw none; use a milder one, such "
            "as 1000 steps with its own betas"
        )
    return schedule


def denoiser_of(network: nn.Module, config: ModelConfig) -> Denoiser:
    """A network read as the settings say."""
    return Denoiser(
        network, predicts=config.predicts, variance=config.variance, v_posterior=config.v_posterior
    )


def build_model(
    config: ModelConfig, info: ModelInfo | None = None, first_stage: "FirstStage | None" = None
) -> Model:
    """A model with fresh weights, drawn by torch's generator, from complete settings (see config.resolve).

    A latent model is given its trained first stage.
    """
    check_model(config)
    for name in ("image_size", "channels"):
        value = getattr(config, name)
        if not value or value < 1:
            raise ValueError(f"model.{name}={value} makes no picture; use 1 or more")
    _check_first_stage(config, first_stage)
    info = info or ModelInfo()
    rows = config.class_rows
    named = len(info.classes) + (info.null_label is not None)
    if info.classes and rows != named:
        raise ValueError(f"model.network.classes={rows} does not fit {named} classes (null class included)")
    if info.null_label is not None and not 0 <= info.null_label < (rows or 0):
        raise ValueError(f"null_label={info.null_label} is none of the {rows or 0} classes of model.network")
    network = build_network(config.network)
    if config.told:
        encoders = tuple((told.what, told.encoder) for told in config.told)
        network = Conditioned(ConditionedSettings(network=config.network, encoders=encoders))
    denoiser = denoiser_of(network, config)
    return Model(denoiser, make_schedule(config), config, info, first_stage)


def _check_first_stage(config: ModelConfig, first_stage: "FirstStage | None") -> None:
    """Refuse the lack of a first stage, and one whose latents are others."""
    latent = config.latent
    if latent is None:
        assert first_stage is None, "a model of pixels has no first stage"
        return
    if first_stage is None:
        raise ValueError("model.latent is set, but no first stage is given; train with first_stage=FILE")
    found = LatentConfig(
        channels=first_stage.channels, factor=first_stage.factor, first_stage=first_stage.hash
    )
    if found != latent:
        raise ValueError(
            "the model draws other latents than this first stage makes "
            f"({'; '.join(differences(latent, found))}); name that which the model was trained with"
        )


def save_model(
    path: Path | str,
    model: Model,
    *,
    weights: Mapping[str, Tensor] | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """Write one safetensors file, atomically. `weights` (such as an average) replaces the network's own.

    Weights are stored as `dtype`, None keeping their type; round them first (see rounding).
    """
    from unnoise import __version__

    state = dict(model.network.state_dict() if weights is None else weights)
    info = replace(model.info, version=model.info.version or __version__)
    header = {"format": CONFIG_FORMAT, "model": to_dict(model.config), "info": to_dict(info)}
    if model.first_stage is not None:
        header["first_stage"] = model.first_stage.header
        inside = model.first_stage.network.state_dict()
        state |= {FIRST_STAGE + key: value for key, value in inside.items()}
    write_tensors(Path(path), state, {METADATA_KEY: json.dumps(header)}, dtype=dtype)


def load_model(path: Path | str, device: str | torch.device = "cpu", *, preset: str = "") -> Model:
    """The model of a file written by `save_model`, or of the newest one in a run directory, ready to draw.

    Or of a folder of diffusers', or of a published .pt or .ckpt file (see docs/published.md); `preset` says
    what network that is for where its shapes do not.
    """
    from unnoise.noisy_classifier import NoisyClassifier
    from unnoise.weights import diffusers, published
    from unnoise.weights.torchfile import is_torch_file

    path = find_model(Path(path))
    if diffusers.is_weights(path):
        published.refuse_preset(path, preset)
        return diffusers.load(path).to(device)
    if is_torch_file(path):
        found = published.load(path, preset=preset)
        if isinstance(found, NoisyClassifier):
            raise ValueError(f"{path} is a classifier of noisy pictures: it cannot draw, only guide a model")
        if not isinstance(found, Model):
            raise ValueError(
                f"{path} is a first stage (autoencoder): alone it cannot draw, only decode latents"
            )
        return found.to(device)
    published.refuse_preset(path, preset)
    header = read_header(path)
    _check_kind(header, path)
    config = from_dict(ModelConfig, header.get("model", {}), where=str(path))
    info = from_dict(ModelInfo, header.get("info", {}), where=str(path))
    weights = read_weights(path)
    first_stage = _inner_first_stage(header, weights, path)
    try:
        with torch.device("meta"):
            model = build_model(config, info, first_stage)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    put_weights(model.network, weights, path)
    return model.to(device)


def with_decoder(model: Model, stage: "FirstStage") -> Model:
    """The same model, decoding with another first stage of the same latents (`autoencoder.freeze_encoder`).

    ValueError when those would be others: when a weight or a setting of the encoder differs.
    """
    from unnoise.networks.autoencoder import encoding_weights

    own = model.first_stage
    if own is None or model.config.latent is None:
        raise ValueError("a model of pixels has no first stage to exchange; leave it out")
    mine, theirs = own.network.state_dict(), stage.network.state_dict()
    same = mine.keys() == theirs.keys() and own.config.network == stage.config.network
    if not same or not all(torch.equal(mine[name], theirs[name]) for name in encoding_weights(own.network)):
        raise ValueError(
            "the first stage has another encoder than the model's, so its latents are others; learn a decoder"
            " with: unnoise train RECIPE --start-from MODEL --set autoencoder.freeze_encoder=true"
        )
    stage = replace(stage, scale=own.scale, statistics=own.statistics)
    config = replace(model.config, latent=replace(model.config.latent, first_stage=stage.hash))
    return Model(model.denoiser, model.schedule, config, model.info, stage)


def _inner_first_stage(
    header: Mapping[str, Any], weights: dict[str, Tensor], path: Path
) -> "FirstStage | None":
    """The first stage inside a model file, whose weights are taken out of `weights`."""
    from unnoise.first_stage import first_stage_of

    if "first_stage" not in header:
        return None
    inside = {key: weights.pop(key) for key in list(weights) if key.startswith(FIRST_STAGE)}
    return first_stage_of(
        header["first_stage"], {k.removeprefix(FIRST_STAGE): v for k, v in inside.items()}, path
    )


def _check_kind(header: Mapping[str, Any], path: Path) -> None:
    """Refuse a file of ours that holds no diffusion model, saying what it is."""
    if header.get("kind", "diffusion") == "diffusion":
        return
    info = header.get("info")
    names = [str(name) for name in info.get("classes", ())] if isinstance(info, dict) else []
    if header["kind"] == "noisy_classifier":
        raise ValueError(f"{path} is a classifier of noisy pictures: it cannot draw, only guide a model")
    if header["kind"] == "gan":
        raise ValueError(
            f"{path} is a GAN, which draws in one step: `sample`, `evaluate` and `sweep` take it, but "
            "nothing that works step by step; name a diffusion model"
        )
    if header["kind"] == "autoencoder":
        raise ValueError(f"{path} is a first stage (autoencoder): alone it cannot draw, only decode latents")
    if header["kind"] != "classifier":
        raise ValueError(
            f"{path} says that it is a {header['kind']!r}, which this unnoise does not know; update "
            "unnoise, or name a diffusion model"
        )
    known = f" of {len(names)} classes ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
    raise ValueError(
        f"{path} is a {header['kind']}{known if names else ''}, not a diffusion model: it cannot draw, but "
        "serves as features where pictures are measured; name a model that was trained to draw"
    )
