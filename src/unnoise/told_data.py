"""What a data set has for a model that is told more than a class: vocabulary, features, boxes, maps."""

from dataclasses import dataclass

from unnoise.config.model import ModelConfig, ToldConfig
from unnoise.config.schema import DataConfig
from unnoise.data import Dataset
from unnoise.data.beside import Beside, open_beside
from unnoise.data.layout import LayoutTokens
from unnoise.frozen_text import FrozenText, frozen_of, open_frozen
from unnoise.networks.conditioner_settings import (
    TextEncoderSettings,
)
from unnoise.text import Tokenizer, build_tokenizer, checked_captions


@dataclass(frozen=True, eq=False)
class ToldData:
    """What a data set has for a model that is told more than a class."""

    tokenizer: Tokenizer | None = None
    frozen: FrozenText | None = None
    beside: Beside | None = None

    @property
    def fingerprint(self) -> str:
        """Hash of what lies beside the pictures; "" for nothing."""
        return "" if self.beside is None else self.beside.fingerprint


def open_told(model: ModelConfig, data: DataConfig, dataset: Dataset) -> ToldData:
    """Vocabulary or features of a data set's captions, boxes and maps, as far as the model is told them."""
    if not model.told:
        return ToldData()
    return ToldData(
        _tokenizer(model, dataset), _frozen(model, dataset, data.cache), open_beside(dataset, data)
    )


def counted(config: ModelConfig, dataset: Dataset, data: ToldData) -> dict[str, int]:
    """What is told -> its channels, or its different tokens, as `config.resolve.resolve` needs them.

    0 where the data lack it. ValueError for pictures without colours that a model is to give some.
    """
    beside = data.beside
    drawn = dataset.channels if config.latent is None else config.latent.channels
    found = {"low_res": dataset.channels, "inpaint": drawn + 1, "grey": drawn}
    if data.tokenizer is not None:
        found["text"] = len(data.tokenizer)
    if data.frozen is not None:
        found["text"] = data.frozen([""])[0].shape[2]
    for each in config.told:
        if each.what == "grey" and dataset.channels != 3:
            raise ValueError(
                f"pictures of {dataset.channels} channels have no colours to leave out; use RGB "
                "(data.channels=3)"
            )
        if each.what == "layout" and beside is not None and beside.layout is not None:
            tokens = LayoutTokens(len(beside.box_classes), each.grid, each.boxes)
            found["layout"] = len(tokens)
            if isinstance(each.encoder, TextEncoderSettings) and each.encoder.length < tokens.length:
                raise ValueError(
                    f"{each.boxes} boxes are {tokens.length} tokens, and the encoder reads length="
                    f"{each.encoder.length}; raise it, or use fewer boxes"
                )
        if each.what == "map" and beside is not None and beside.maps:
            found["map"] = beside.config.map_classes or 0
    return {each.what: found.get(each.what, 0) for each in config.told if each.what != "class"}


def _tokenizer(config: ModelConfig, dataset: Dataset) -> Tokenizer | None:
    """The vocabulary of a data set's captions, for a model that reads their words; None for another."""
    for each in config.told:
        if each.what == "text" and isinstance(each.encoder, TextEncoderSettings):
            return build_tokenizer(_captions(each, dataset), each.words)
    return None


def _frozen(config: ModelConfig, dataset: Dataset, cache: str | None) -> FrozenText | None:
    """A frozen encoder with the features of a data set's captions, for a model of these; None for another."""
    told = frozen_of(config)
    if told is None:
        return None
    frozen = open_frozen(told, cache=cache)
    frozen.learn(_captions(told, dataset))
    return frozen


def _captions(told: ToldConfig, dataset: Dataset) -> list[str]:
    return checked_captions(dataset.captions, dataset.report.source, missing=told.missing)
