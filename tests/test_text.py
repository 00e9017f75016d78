"""Captions to tokens: lossless where the letters are known, the same in any order, stored as data."""

import random
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unnoise.diffusion.noise import seeded_generator
from unnoise.text import (
    END,
    PAD,
    SPECIAL,
    START,
    UNKNOWN,
    Tokenizer,
    build_tokenizer,
    checked_captions,
    without_tags,
    words_of,
)

CAPTIONS = ["A red shoe", "a red, red hat", "the blue shoe!", "snow-covered hat"]


def test_common_words_are_one_token_and_others_are_spelt():
    letters = len({letter for text in CAPTIONS for word in words_of(text) for letter in word})
    tokenizer = build_tokenizer(CAPTIONS, len(SPECIAL) + 2 * letters + 1)
    assert tokenizer.pieces[-1] == "red", "the commonest word of more than a letter"
    assert len(tokenizer.pieces_of("red")) == 1 and len(tokenizer.pieces_of("shoe")) == 4
    assert tokenizer.decode(tokenizer.pieces_of("Red shoe")) == "red shoe"
    assert tokenizer.pieces_of("zoo")[0] == UNKNOWN, "no caption has a z"


def test_tokens_and_mask():
    tokenizer = build_tokenizer(CAPTIONS)
    tokens, mask = tokenizer.encode(["red hat", "", "red " * 50], 8)
    assert tokens.shape == mask.shape == (3, 8) and tokens.dtype == torch.int64 and mask.dtype == torch.bool
    red, hat = tokenizer.pieces_of("red hat")
    assert tokens[0].tolist() == [START, red, hat, END, PAD, PAD, PAD, PAD]
    assert tokens[1].tolist() == [START, END] + [PAD] * 6 and mask[1].sum() == 2
    assert tokens[2].tolist() == [START] + [red] * 6 + [END]
    assert (mask == (tokens != PAD)).all()


@given(st.lists(st.text(max_size=40), min_size=1, max_size=8), st.integers(0, 1000))
def test_every_caption_that_it_was_built_from_comes_back(captions, seed):
    if not any(words_of(text) for text in captions):
        with pytest.raises(ValueError, match="no caption has a word"):
            build_tokenizer(captions)
        return
    tokenizer = build_tokenizer(captions, 100_000)
    shuffled = random.Random(seed).sample(captions, len(captions))
    assert build_tokenizer(shuffled, 100_000) == tokenizer
    assert Tokenizer.from_json(tokenizer.to_json()) == tokenizer
    for text in captions:
        assert tokenizer.decode(tokenizer.pieces_of(text)).split() == words_of(text)
        assert UNKNOWN not in tokenizer.pieces_of(text)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("{", "cannot be read"),
        ("[]", "cannot be read"),
        ('{"kind": "words", "pieces": [1]}', "not a list of pieces"),
        ('{"kind": "other", "pieces": []}', "not a list of pieces"),
        ('{"kind": "words", "pieces": ["a"]}', "lacks its first tokens"),
        ('{"kind": "words", "pieces": ["<pad>", "<start>", "<end>", "<unknown>", "a", "a"]}', "one twice"),
    ],
)
def test_stored_vocabularies_are_data_to_be_checked(text, match):
    with pytest.raises(ValueError, match=match):
        Tokenizer.from_json(text)


def test_what_is_refused():
    with pytest.raises(ValueError, match="vocabulary=10 does not hold the letters of the captions; use "):
        build_tokenizer(CAPTIONS, 10)
    with pytest.raises(ValueError, match="length=2 leaves no room"):
        build_tokenizer(CAPTIONS).encode(["red"], 2)


def test_missing_captions():
    assert checked_captions(CAPTIONS, "mine") == CAPTIONS
    with pytest.raises(ValueError, match="1 of 2 pictures of mine have no caption; write them"):
        checked_captions(["a", ""], "mine")
    assert checked_captions(["a", ""], "mine", missing="empty") == ["a", ""]
    for nothing in (None, ["", ""]):
        with pytest.raises(ValueError, match="mine has no captions; put text into metadata.jsonl"):
            checked_captions(nothing, "mine", missing="empty")


def test_tags_are_left_out_evenly_and_the_first_part_stays():
    """Every number of tags equally often, in their order; a caption without tags is as it was."""
    caption = "a noto emoji of flag: Italy, IT, flag, land"
    found = [without_tags(caption, seeded_generator(0, "tags", k)) for k in range(4000)]
    assert {text.split(",")[0] for text in found} == {"a noto emoji of flag: Italy"}
    counts = Counter(text.count(",") for text in found)
    assert sorted(counts) == [0, 1, 2, 3] and all(abs(n - 1000) < 5 * 27.4 for n in counts.values())
    tags = caption.split(",")
    for text in set(found):
        assert [part for part in tags if part in text.split(",")] == text.split(",")
    assert Counter(part for text in found for part in text.split(","))[" IT"] == pytest.approx(2000, abs=160)
    assert without_tags("a hat", seeded_generator(0, "tags", 1)) == "a hat"
