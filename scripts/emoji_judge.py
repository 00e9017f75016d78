"""Do emoji drawn from captions show what these say? Two classifiers of real pictures are asked.

    for what in subcategory style; do
        unnoise train classifier-32 --data emoji64/train --set data.label_field=$what --out runs/$what; done
    python scripts/emoji_judge.py emoji-64 emoji64/test --subcategory runs/subcategory --style runs/style

The captions are those of held-out pictures, one a code point, of as many objects as there are before one
comes twice, in styles spread evenly. Beside the samples stand the real pictures of these captions, and the
samples held against every other caption than their own: what a model would score that does not listen.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from unnoise.classifier import ClassifierModel, load_classifier
from unnoise.config.load import from_dict
from unnoise.config.requests import GenerateRequest
from unnoise.config.schema import DataConfig
from unnoise.data import Dataset, open_data, order
from unnoise.data.crop import center_window, cut_pixels
from unnoise.distributed import choose_device
from unnoise.generate import generate
from unnoise.images import Pixels, grid, save_png
from unnoise.metrics.intervals import share_interval
from unnoise.model import load_model

SHOWN, COLUMNS = 48, 12
REQUESTED = ("n", "guidance", "steps", "sampler", "seed", "batch_size")
LOOKS = (("subcategory", 1), ("subcategory", 5), ("style", 1))
"""What is counted: of which classifier, and among how many of its likeliest answers."""


@dataclass(frozen=True, eq=False)
class Held:
    """Held-out pictures with the fields of their metadata, a text a picture each."""

    data: Dataset
    fields: dict[str, list[str]]

    @property
    def captions(self) -> list[str]:
        """One a picture."""
        assert self.data.captions is not None, "looked for when they were read"
        return self.data.captions

    def of(self, field: str, chosen: np.ndarray) -> list[str]:
        """A field of some pictures."""
        return [self.fields[field][k] for k in chosen]


@dataclass(frozen=True, eq=False)
class Judged:
    """What a classifier says of pictures. places: (N, classes), as of ClassifierModel.places."""

    classifier: ClassifierModel
    places: Tensor

    def hits(self, names: Sequence[str], top: int) -> Tensor:
        """Whether each picture's name is among its likeliest: (N,) of 0 and 1."""
        return (self.places.gather(1, self.classifier.labels(names)[:, None])[:, 0] < top).double()

    def by_chance(self, names: Sequence[str], top: int) -> Tensor:
        """The share of the other pictures' names that are among each picture's likeliest: (N,)."""
        among = (self.places[:, self.classifier.labels(names)] < top).double()
        return (among.sum(1) - among.diagonal()) / (len(among) - 1)

    @property
    def said(self) -> list[str]:
        """The likeliest class of each picture."""
        return [self.classifier.classes[k] for k in self.places.argmin(1).tolist()]

    def place(self, at: int, name: str) -> int:
        """Which answer about a picture a name is, from 1."""
        return int(self.places[at, self.classifier.labels([name])]) + 1


def read(config: DataConfig, fields: Sequence[str]) -> Held:
    """Opens the pictures once for every field. ValueError where one lacks, or captions do."""
    opened = {name: open_data(replace(config, label_field=name)) for name in fields}
    found = {}
    for name, data in opened.items():
        assert data.labels is not None, "a field that was asked for is there"
        found[name] = [data.classes[label] for label in data.labels]
    data = opened[fields[0]]
    if data.captions is None or not all(data.captions):
        raise ValueError(f"{config.source} has no captions, or not for all pictures; name data that have")
    return Held(data, found)


def choose(held: Held, usable: np.ndarray, n: int, *, apart: str, seed: int) -> np.ndarray:
    """Pictures of n different code points: (n,) indices, of which the first m are those of n = m.

    The code points come in the seed's order, one of every value of the field `apart` before a second of any.
    Each gives the picture of the style that was taken least so far. usable: (N,) bool.
    """
    pictures = [k for k in order.pictures(seed, len(usable), np.arange(len(usable))) if usable[k]]
    shown: dict[str, list[int]] = {}
    for k in pictures:
        shown.setdefault(held.fields["code_point"][k], []).append(k)
    if not 2 <= n <= len(shown):
        raise ValueError(
            f"n={n} is outside 2..{len(shown)}, the code points that there are; use one of these"
        )
    earlier: Counter[str] = Counter()
    rounds = []
    for alike in shown.values():
        value = held.fields[apart][alike[0]]
        rounds.append(earlier[value])
        earlier[value] += 1
    taken: Counter[str] = Counter()
    chosen = []
    for _, alike in sorted(zip(rounds, shown.values(), strict=True), key=lambda pair: pair[0])[:n]:
        best = min(alike, key=lambda k: taken[held.fields["style"][k]])
        taken[held.fields["style"][best]] += 1
        chosen.append(best)
    return np.array(chosen, np.int64)


@dataclass(frozen=True, eq=False)
class Judges:
    """Classifiers by the field of which they know the values, and the side at which they see pictures."""

    classifiers: dict[str, ClassifierModel]
    sides: dict[str, int]
    """At which each sees pictures."""

    def ask(self, pixels: Pixels) -> dict[str, Judged]:
        """What all say of uint8 (N, H, W, C) pictures, shrunk as data are for training."""
        return {
            name: Judged(each, each.places(_shrunk(pixels, self.sides[name])))
            for name, each in self.classifiers.items()
        }


def _shrunk(pixels: Pixels, side: int) -> Tensor:
    squares = np.asarray(pixels)
    if squares.shape[1] != side:
        window = center_window(squares.shape[2], squares.shape[1], side)
        squares = np.stack([cut_pixels(each, window, side) for each in squares])
    return torch.from_numpy(squares)


def row(name: str, hits: Sequence[Tensor]) -> dict[str, object]:
    """Shares with their intervals of what was counted, printed as a line. hits: of each of LOOKS, (N,)."""
    shares = [float(each.mean()) for each in hits]
    spans = [share_interval(share, len(each)) for share, each in zip(shares, hits, strict=True)]
    cells = [
        f"{100 * share:5.1f} % ({100 * low:4.1f} to {100 * high:5.1f})"
        for share, (low, high) in zip(shares, spans, strict=True)
    ]
    print(f"{name:<30} {'  '.join(f'{cell:<24}' for cell in cells)}".rstrip())
    found = zip(LOOKS, shares, spans, strict=True)
    return {f"{what}@{top}": {"share": share, "interval": span} for (what, top), share, span in found}


def report(
    held: Held, chosen: np.ndarray, judges: Judges, samples: Tensor, usable: np.ndarray
) -> dict[str, object]:
    """Prints the table; returns it, with what was said of every sample."""
    every = np.flatnonzero(usable)
    parts = np.array_split(every, len(every) // 256 + 1)
    blocks = [(judges.ask(held.data.take(part).pixels), part) for part in parts]
    drawn, real = judges.ask(samples), judges.ask(held.data.take(chosen).pixels)
    names = {what: held.of(what, chosen) for what in judges.classifiers}
    heads = [f"{what}, first {top}" if top > 1 else what for what, top in LOOKS]
    print(f"{'':<30} {'  '.join(f'{head:<24}' for head in heads)}".rstrip())
    table = {
        "samples": [drawn[what].hits(names[what], top) for what, top in LOOKS],
        "samples, others' captions": [drawn[what].by_chance(names[what], top) for what, top in LOOKS],
        "real, the same captions": [real[what].hits(names[what], top) for what, top in LOOKS],
        f"real, all {len(every):,}": [
            torch.cat([block[what].hits(held.of(what, part), top) for block, part in blocks])
            for what, top in LOOKS
        ],
    }
    facts: dict[str, object] = {name: row(name, hits) for name, hits in table.items()}
    counts = Counter(names["style"])
    obeyed = Counter(style for style, hit in zip(names["style"], table["samples"][2], strict=True) if hit)
    print(
        "styles obeyed: " + ", ".join(f"{name} {obeyed[name]} of {counts[name]}" for name in sorted(counts))
    )
    facts["pictures"] = [
        {
            "picture": held.data.name_of(int(k)),
            "caption": held.captions[k],
            **{what: value[at] for what, value in names.items()},
            **{f"{what}_said": drawn[what].said[at] for what in names},
            **{f"{what}_place": drawn[what].place(at, value[at]) for what, value in names.items()},
            **{f"{what}_place_of_real": real[what].place(at, value[at]) for what, value in names.items()},
        }
        for at, k in enumerate(chosen)
    ]
    return facts


def sheet(held: Held, chosen: np.ndarray, samples: Tensor, facts: dict[str, object]) -> np.ndarray:
    """Rows of real pictures with their captions, and below each the sample with the answer to it.

    In brackets which answer the right one is.
    """
    said = facts["pictures"]
    assert isinstance(said, list)
    rows, names = [], []
    for start in range(0, min(SHOWN, len(chosen)) // COLUMNS * COLUMNS or len(chosen), COLUMNS):
        part = slice(start, start + COLUMNS)
        rows += [held.data.take(chosen[part]).pixels, samples[part]]
        names += [each["caption"].partition(" of ")[2] or each["caption"] for each in said[part]]
        names += [f"{each['subcategory_said']} ({each['subcategory_place']})" for each in said[part]]
    return grid(torch.cat(rows), min(COLUMNS, len(chosen)), names, cell=128)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("model", type=Path, help="model file or run directory")
    parser.add_argument("data", help="held-out pictures of unnoise build emoji")
    parser.add_argument("--subcategory", type=Path, required=True, help="classifier: file or run directory")
    parser.add_argument("--style", type=Path, required=True, help="classifier: file or run directory")
    for what, side in (("subcategory", 32), ("style", 64)):
        parser.add_argument(
            f"--{what}-side", type=int, default=side, help="of the pictures that this classifier learned from"
        )
    parser.add_argument("-n", type=int, default=200, help="captions, each of a code point of its own")
    parser.add_argument("--apart", choices=("object", "code_point"), default="object")
    parser.add_argument("--guidance", type=float, default=1.0)
    parser.add_argument("--steps", default="25")
    parser.add_argument("--sampler", default="ddim")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch-size", type=int, default=50)
    parser.add_argument("--sheet", type=Path, help="PNG of the first pictures, real ones above drawn ones")
    parser.add_argument("--json", type=Path, help="file for the numbers and what was said of every sample")
    asked = parser.parse_args()
    try:
        facts = _run(asked)
    except ValueError as error:
        print(f"emoji_judge: {error}", file=sys.stderr)
        sys.exit(2)
    if asked.json:
        asked.json.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def _run(asked: argparse.Namespace) -> dict[str, object]:
    classifiers = {what: load_classifier(getattr(asked, what)) for what in ("subcategory", "style")}
    model = load_model(asked.model, choose_device("auto"))
    config = DataConfig(source=asked.data, size=model.config.image_size, channels=model.config.channels)
    held = read(config, ("code_point", "object", "subcategory", "style"))
    usable = np.ones(len(held.data), bool)
    for what, classifier in classifiers.items():
        known = np.array([name in classifier.classes for name in held.fields[what]])
        print(
            f"{int((~known).sum())} of {len(known):,} held-out pictures have a {what} never seen in training"
        )
        usable &= known
    chosen = choose(held, usable, asked.n, apart=asked.apart, seed=asked.seed)
    options = {name: getattr(asked, name) for name in REQUESTED}
    request = from_dict(GenerateRequest, {"prompts": [held.captions[k] for k in chosen], **options})
    samples = torch.cat([batch.pixels for batch in generate(model, request)])
    print(
        f"{asked.model}: {asked.n} captions of {len(set(held.of('object', chosen)))} objects, guidance "
        f"{asked.guidance:g}, {asked.steps} steps; 95 % intervals"
    )
    sides = {what: getattr(asked, f"{what}_side") for what in classifiers}
    facts = report(held, chosen, Judges(classifiers, sides), samples, usable)
    if asked.sheet:
        save_png(asked.sheet, sheet(held, chosen, samples, facts), {})
    return {**facts, "request": {key: str(value) for key, value in vars(asked).items()}}


if __name__ == "__main__":
    main()
