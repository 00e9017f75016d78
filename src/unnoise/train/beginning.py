"""Weights that a run begins with instead of fresh ones, those of another model: fine-tuning.

What a network knows by name begins with the row of that name: classes with their class, words with their
word. New names begin fresh.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from unnoise.classifier import load_classifier
from unnoise.config.load import differences, to_dict
from unnoise.config.model import ModelConfig
from unnoise.config.schema import TrainConfig
from unnoise.model import Model, load_model, make_schedule
from unnoise.modelfile import ModelInfo, find_model, read_header
from unnoise.networks.conditioned import Conditioned
from unnoise.networks.conditioner_settings import ClassEmbedderSettings, TextEncoderSettings
from unnoise.noisy_classifier import load_noisy_classifier
from unnoise.train.autoencoder import AutoencoderJob
from unnoise.train.classifier import ClassifierJob
from unnoise.train.diffusion import DiffusionJob
from unnoise.train.job import Job
from unnoise.train.latents import load_stage
from unnoise.train.noisy_classifier import NoisyClassifierJob
from unnoise.weights import diffusers
from unnoise.weights.torchfile import is_torch_file

Names = Sequence[str | None]
"""What the rows of a table stand for; None is no class."""
LABELS = "label_emb.weight"
"""The table of a U-Net's classes."""
HEADS = ("head.", "out.")
"""Where the names of a classifier's last layers begin; the last of them has an output a class."""
FREE = ("classes", "vocabulary", "dropout", "checkpoint")
"""Settings of networks that may differ: the rows of tables, and what is so in training alone."""
CHOICES = ("predicts", "variance", "schedule.", "image_size", "latent.")
"""Settings of a model that weights may be taken over, though they were learned with others."""


@dataclass(frozen=True, eq=False)
class _Known:
    """A network, and what the rows of its tables stand for: name of the tensor -> names."""

    network: nn.Module
    settings: Any
    tables: Mapping[str, Names]
    steps: int


def with_its_first_stage(config: TrainConfig, *, continues: bool) -> TrainConfig:
    """The settings with the first stage, and its scale, of the latent model that a run begins with.

    Nothing changes where a first stage is named, or the model has none. A run that continues needs the file
    no more. ValueError when a new one lacks it.
    """
    if not config.start_from:
        return config
    try:
        file = find_model(Path(config.start_from))
    except ValueError as error:
        if continues:
            return config
        raise ValueError(f"start_from: {error}") from None
    if config.kind != "diffusion" or config.first_stage:
        return config
    if is_torch_file(file):
        inside = load_model(file).first_stage is not None
    else:
        inside = not diffusers.is_weights(file) and "first_stage" in read_header(file)
    if not inside:
        return config
    return replace(config, first_stage=config.start_from, latents=replace(config.latents, scale="keep"))


@dataclass(frozen=True, eq=False)
class Beginning:
    """A trained network of the same settings as a run's."""

    path: str
    given: _Known

    @torch.no_grad()
    def give(self, job: Job[Any]) -> str:
        """Give its weights to the network of a job; returns what people should know of it."""
        own, given = _of_job(job), self.given
        theirs, new = given.network.state_dict(), []
        for name, value in own.network.state_dict().items():
            if name not in own.tables:
                value.copy_(theirs[name])
                continue
            known = {row: place for place, row in enumerate(given.tables.get(name, ()))}
            for place, row in enumerate(own.tables[name]):
                if row in known:
                    value[place] = theirs[name][known[row]]
                elif row not in new:
                    new.append(row)
        return _told(self.path, own, given, new)


def open_beginning(config: TrainConfig, device: torch.device) -> Beginning | None:
    """What the network of complete settings begins with; None for fresh weights.

    ValueError when that is another network, naming its settings.
    """
    path = config.start_from
    if not path:
        return None
    own: Any
    if config.kind == "diffusion":
        own, given = config.model, _of_model(load_model(path, device))
    elif config.kind == "autoencoder":
        stage, _ = load_stage(path, device, setting="start_from")
        assert config.autoencoder is not None, "settings are resolved"
        own = config.autoencoder.network
        given = _Known(stage.network, stage.config.network, {}, stage.info.step)
    elif config.kind == "classifier":
        assert config.classifier is not None, "settings are resolved"
        own, given = config.classifier.network, _of_classifier(load_classifier(path, device))
    else:
        assert config.noisy_classifier is not None, "settings are resolved"
        own, given = config.noisy_classifier.network, _of_classifier(load_noisy_classifier(path, device))
    others = [
        change
        for change in differences(_network(given.settings), _network(own))
        if change.partition(":")[0].rpartition(".")[2] not in FREE
    ]
    if others:
        raise ValueError(
            f"start_from={path} is another network than this recipe's ({'; '.join(others[:4])}); use the "
            "recipe that it was trained with, or leave start_from out"
        )
    return Beginning(path, given)


def _network(settings: Any) -> dict[str, Any]:
    """The settings of a network and of what tells it, as plain data."""
    if not isinstance(settings, ModelConfig):
        return to_dict(settings)
    told = {each.what: to_dict(each.encoder) for each in settings.told}
    return {**to_dict(settings.network), "told": told}


def _of_job(job: Job[Any]) -> _Known:
    if isinstance(job, DiffusionJob):
        return _of_model(job.model)
    if isinstance(job, AutoencoderJob):
        return _Known(job.first_stage.network, job.first_stage.config.network, {}, 0)
    assert isinstance(job, ClassifierJob | NoisyClassifierJob), "settings are checked"
    return _of_classifier(job.model)


def _of_classifier(model: Any) -> _Known:
    weight, bias = [name for name in model.network.state_dict() if name.startswith(HEADS)][-2:]
    names = _class_names(model.info, model.network.settings.classes)
    return _Known(model.network, model.network.settings, {weight: names, bias: names}, model.info.step)


def _of_model(model: Model) -> _Known:
    network, tables = model.network, {}
    for name, value in network.state_dict().items():
        if name.endswith(LABELS):
            tables[name] = _class_names(model.info, len(value))
    if isinstance(network, Conditioned):
        for number, (what, encoder) in enumerate(network.settings.encoders):
            prefix = f"encoders.{number}."
            if isinstance(encoder, ClassEmbedderSettings):
                tables[f"{prefix}embedding.weight"] = _class_names(model.info, encoder.classes or 0)
            elif isinstance(encoder, TextEncoderSettings):
                tables |= _token_tables(network.encoders[number], prefix, _token_names(model, what))
    return _Known(network, model.config, tables, model.info.step)


def _token_tables(encoder: nn.Module, prefix: str, names: Names) -> dict[str, Names]:
    """The tensors of a text encoder that have a row for each token."""
    return {
        prefix + name: names
        for name, value in encoder.state_dict().items()
        if "token_emb" in name or ("to_logits" in name and len(value) == len(names))
    }


def _token_names(model: Model, what: str) -> Names:
    """Words, or numbers where there are none; a layout's tokens mean what its classes say."""
    settings = next(each.encoder for each in model.config.told if each.what == what)
    assert isinstance(settings, TextEncoderSettings)
    if what == "text" and model.info.vocabulary:
        return model.info.vocabulary
    owner = "/".join(model.info.box_classes)
    return [f"{owner} {number}" for number in range(settings.vocabulary or 0)]


def _class_names(info: ModelInfo, rows: int) -> Names:
    """Names in the order of the rows, or numbers where classes have none."""
    named = list(info.classes) or [str(number) for number in range(rows)]
    names: list[str | None] = [*named, *[None] * (rows - len(named))]
    if info.null_label is not None and info.null_label < rows:
        names[info.null_label] = None
    return names


def _told(path: str, own: _Known, given: _Known, new: Sequence[str | None]) -> str:
    text = f"begins with the weights of {path}" + (f" ({given.steps:,} steps)" if given.steps else "")
    if new:
        named = sorted(("no class" if name is None else name for name in new), key=len, reverse=True)
        shown = ", ".join(named[:5])  # the longest: words rather than letters
        text += (
            f"; new to it, and begun fresh: {shown}{f' and {len(new) - 5:,} more' if len(new) > 5 else ''}"
        )
    if isinstance(own.settings, ModelConfig):
        before, old, now = given.settings, make_schedule(given.settings), make_schedule(own.settings)
        if torch.equal(old.betas, now.betas) and torch.equal(old.timesteps, now.timesteps):
            before = replace(before, schedule=own.settings.schedule)  # the same in other words
        other = [d for d in differences(before, own.settings) if d.startswith(CHOICES)]
        if other:
            text += f"; it learned with other settings: {'; '.join(other)}"
    return text
