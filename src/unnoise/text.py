"""Captions as tokens: a vocabulary of whole words and of pieces that spell the other ones.

No package and no download is needed, and the whole of it is a list of strings, stored inside a model's file.
"""

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

SPECIAL = ("<pad>", "<start>", "<end>", "<unknown>")
PAD, START, END, UNKNOWN = range(len(SPECIAL))
_INSIDE = "##"
"""Begins a piece that goes on with a word."""
_WORDS = re.compile(r"[^\W_]+|[^\w\s]|_")
_LONGEST = 64
"""Letters of a word; the rest of a longer one is not read."""


@dataclass(frozen=True)
class Tokenizer:
    """Texts to token numbers. pieces: the vocabulary in order, SPECIAL first."""

    pieces: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.pieces)

    @cached_property
    def _place(self) -> dict[str, int]:
        return {piece: k for k, piece in enumerate(self.pieces)}

    def encode(self, texts: Sequence[str], length: int = 77) -> tuple[Tensor, Tensor]:
        """Tokens (B, length) int64 and their mask (B, length) bool, True where a token counts.

        Each text is START, its pieces, END, then PAD; what does not fit is cut off before END. The empty text
        is START, END: what a model is told when it is told nothing.
        """
        if length < 3:
            raise ValueError(f"length={length} leaves no room for a word; use 3 or more")
        tokens = torch.full((len(texts), length), PAD, dtype=torch.int64)
        for row, text in zip(tokens, texts, strict=True):
            found = [START, *self.pieces_of(text)[: length - 2], END]
            row[: len(found)] = torch.tensor(found)
        return tokens, tokens != PAD

    def pieces_of(self, text: str) -> list[int]:
        """The tokens of a text without START and END."""
        return [token for word in words_of(text) for token in self._spelt(word)]

    def decode(self, tokens: Iterable[int]) -> str:
        """The words of tokens, for people; the special ones are left out but for <unknown>."""
        text = ""
        for token in tokens:
            if token in (PAD, START, END):
                continue
            piece = self.pieces[token]
            text += piece[len(_INSIDE) :] if piece.startswith(_INSIDE) else f" {piece}"
        return text.strip()

    def _spelt(self, word: str) -> list[int]:
        """A word as its longest pieces from the left; UNKNOWN for a letter that is in no piece."""
        tokens, start = [], 0
        while start < len(word):
            before = _INSIDE if start else ""
            for stop in range(len(word), start, -1):
                token = self._place.get(before + word[start:stop])
                if token is not None:
                    break
            else:
                token, stop = UNKNOWN, start + 1
            tokens.append(token)
            start = stop
        return tokens

    def to_json(self) -> str:
        """The vocabulary as text, as `from_json` reads it."""
        return json.dumps({"kind": "words", "pieces": self.pieces}, ensure_ascii=False)

    @staticmethod
    def from_json(text: str) -> "Tokenizer":
        """A tokenizer that was stored. ValueError when the text is none."""
        try:
            value = json.loads(text)
            pieces = value["pieces"] if value["kind"] == "words" else None
        except (ValueError, TypeError, LookupError, RecursionError) as error:
            raise ValueError(f"the stored vocabulary cannot be read ({error}); use another file") from error
        if not isinstance(pieces, list) or not all(isinstance(piece, str) for piece in pieces):
            raise ValueError("the stored vocabulary is not a list of pieces; use another file")
        if tuple(pieces[: len(SPECIAL)]) != SPECIAL or len(set(pieces)) != len(pieces):
            raise ValueError(
                "the stored vocabulary lacks its first tokens or has one twice; use another file"
            )
        return Tokenizer(tuple(pieces))


def words_of(text: str) -> list[str]:
    """Words, numbers and signs in lower case; letters that look alike are made one (NFKC)."""
    found = _WORDS.findall(unicodedata.normalize("NFKC", text).lower())
    return [word[:_LONGEST] for word in found]


def build_tokenizer(captions: Iterable[str], vocabulary: int = 4096) -> Tokenizer:
    """A tokenizer of at most `vocabulary` pieces: every letter of the captions, then their commonest words.

    The same captions give the same tokenizer, whatever their order. ValueError without captions, or when not
    even the letters fit.
    """
    counts: Counter[str] = Counter()
    for caption in captions:
        counts.update(words_of(caption))
    if not counts:
        raise ValueError("no caption has a word; give captions to build a vocabulary from")
    letters = sorted({letter for word in counts for letter in word})
    spelling = [*letters, *(f"{_INSIDE}{letter}" for letter in letters)]
    room = vocabulary - len(SPECIAL) - len(spelling)
    if room < 0:
        least = len(SPECIAL) + len(spelling)
        raise ValueError(
            f"vocabulary={vocabulary} does not hold the letters of the captions; use {least} or more"
        )
    words = sorted((word for word in counts if len(word) > 1), key=lambda word: (-counts[word], word))
    return Tokenizer((*SPECIAL, *spelling, *words[:room]))


def without_tags(caption: str, generator: torch.Generator) -> str:
    """A caption without some of its tags, the parts after its first comma, in their order.

    How many stay is drawn evenly from none to all, then which.
    """
    first, *tags = caption.split(",")
    kept = int(torch.randint(len(tags) + 1, (), generator=generator))
    places = torch.randperm(len(tags), generator=generator)[:kept].sort().values
    return ",".join([first, *(tags[place] for place in places.tolist())])


def checked_captions(captions: Sequence[str] | None, where: str, *, missing: str = "refuse") -> list[str]:
    """The captions of a data set for a model of text. ValueError when there are none; when some pictures have
    none, too, unless missing="empty" takes those as told nothing.
    """
    if missing not in ("refuse", "empty"):
        raise ValueError(f"missing={missing!r} is unknown; use refuse or empty")
    if captions is None or not any(captions):
        raise ValueError(
            f"{where} has no captions; put text into metadata.jsonl, or a .txt beside each picture"
        )
    lacking = sum(not text for text in captions)
    if lacking and missing == "refuse":
        raise ValueError(
            f"{lacking:,} of {len(captions):,} pictures of {where} have no caption; write them, or take "
            "those as told nothing (missing=empty)"
        )
    return list(captions)
