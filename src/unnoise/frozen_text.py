"""Words through a frozen text encoder, for training from features kept on disk and for drawing."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from unnoise.config.model import ModelConfig, ToldConfig
from unnoise.networks.conditioner_settings import FeaturesSettings
from unnoise.text_features import TextFeatures, digest_of, encode_captions


@dataclass(eq=False)
class FrozenText:
    """Texts to tokens of features; those of a data set's captions are read, others worked out once each."""

    folder: Path
    length: int
    hash: str
    """Of the encoder's files."""
    cache: str | None = None
    known: TextFeatures | None = None
    """Of the texts in `rows`, in their order."""
    rows: dict[str, int] = field(default_factory=dict)

    def __call__(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """(B, L, D) float32 and (B, L) bool, True where a token counts."""
        if self.known is None or any(text not in self.rows for text in texts):
            self.learn([*self.rows, *texts])
        assert self.known is not None
        chosen = torch.tensor([self.rows[text] for text in texts])
        return self.known.context[chosen].float(), self.known.mask[chosen]

    def learn(self, texts: Sequence[str]) -> None:
        """Work out the features of all these texts, or read them from the cache."""
        distinct = list(dict.fromkeys(["", *texts]))
        self.known = encode_captions(self.folder, distinct, length=self.length, home=self.cache)
        self.rows = {text: row for row, text in enumerate(distinct)}


def frozen_of(config: ModelConfig) -> ToldConfig | None:
    """What of a model's settings is told through a frozen text encoder; None for a model without one."""
    found = [
        each for each in config.told if each.what == "text" and isinstance(each.encoder, FeaturesSettings)
    ]
    return found[0] if found else None


def open_frozen(
    told: ToldConfig, *, folder: str = "", hash: str = "", cache: str | None = None
) -> FrozenText:
    """The encoder that the settings name, or one of the same `hash` in another folder.

    ValueError where none is named, it is no encoder, or another one than the model was trained with.
    """
    path = Path(folder or told.frozen)
    if not (folder or told.frozen):
        raise ValueError(
            "text is told by features and no encoder is named; set frozen=FOLDER beside it in model.told"
        )
    found = digest_of(path)
    if hash and found != hash:
        raise ValueError(
            f"{path} is another text encoder than the model was trained with (hash {found} there, {hash} in "
            "the model); name that one with --text-encoder"
        )
    return FrozenText(path, told.length, found, cache)
