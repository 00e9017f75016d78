"""Prompts that are numbers of tokens already, for models whose vocabulary is not in their file.

Latent diffusion's published models of text read the tokens of BERT (uncased, 30,522), the padding too.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

PAD, START, END = 0, 101, 102
"""BERT's."""


@dataclass(frozen=True)
class TokenIds:
    """Prompts such as "1037 4937" to token numbers. vocabulary: how many different ones there are."""

    vocabulary: int

    def __len__(self) -> int:
        return self.vocabulary

    def encode(self, texts: Sequence[str], length: int = 77) -> tuple[Tensor, Tensor]:
        """Tokens (B, length) int64 and a mask (B, length) bool that counts all.

        Each text is START, its numbers, END, then PAD; what does not fit is cut off before END. ValueError
        for words.
        """
        tokens = torch.full((len(texts), length), PAD, dtype=torch.int64)
        for row, text in zip(tokens, texts, strict=True):
            found = [START, *self._numbers(text)[: length - 2], END]
            row[: len(found)] = torch.tensor(found)
        return tokens, torch.ones_like(tokens, dtype=torch.bool)

    def _numbers(self, text: str) -> list[int]:
        numbers = [int(word) if word.isascii() and word.isdigit() else -1 for word in text.split()]
        if all(0 <= number < self.vocabulary for number in numbers):
            return numbers
        raise ValueError(
            f"prompt {text[:40]!r}: this model reads BERT's tokens, whose vocabulary is not in its file; "
            f"give their numbers (below {self.vocabulary}; of bert-base-uncased, without [CLS] and [SEP]), "
            "such as '1037 4937'"
        )
