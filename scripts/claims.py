"""What the page of claims asks of a sweep beyond its own table: all of pictures that the sweep has kept.

    unnoise sweep fashion-28 --against fashion-mnist --grid guidance=1,1.5,2,3 --set steps=25 --out guided
    python scripts/claims.py agreement guided runs/classifier
    python scripts/claims.py ratio few "sampler=ddim, steps=25" "sampler=ddpm, steps=250"
    python scripts/claims.py alike steps

agreement: the share of pictures that a plain classifier, which guided nothing, takes for what was asked for,
and the Inception Score of its answers, beside precision and recall. ratio: of two points' Frechet distances,
with an interval. alike: how far pictures of one noise are apart between the points, against pictures of one
class and other noises.
"""

import argparse
import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unnoise.classifier import load_classifier, tally
from unnoise.config.schema import DataConfig
from unnoise.data import Dataset, open_data
from unnoise.metrics.inception_score import inception_score
from unnoise.metrics.intervals import Z, score_error, share_interval
from unnoise.studies.swept import aligned
from unnoise.train.perceptual import Perceptual, choose, open_perceptual


@dataclass(frozen=True)
class Kept:
    """A point of a sweep as its sweep.json tells it."""

    name: str
    metrics: dict[str, dict[str, Any]]
    samples: Path

    def metric(self, start: str) -> dict[str, Any]:
        """The metric whose name begins so: FD finds FD[unnoise-small]."""
        for name, found in self.metrics.items():
            if name.split("[")[0] == start:
                return found
        raise ValueError(f"the sweep measured no {start}, only {', '.join(self.metrics)}")

    def pictures(self) -> Dataset:
        """What was drawn, in order."""
        return open_data(DataConfig(source=str(self.samples)))


def read_sweep(out: Path) -> list[Kept]:
    """The points of a sweep's folder. ValueError where there is no sweep."""
    file = out / "sweep.json"
    if not file.is_file():
        raise ValueError(f"{file} does not exist; name the --out of a sweep that has ended")
    content = json.loads(file.read_text(encoding="utf-8"))
    return [
        Kept(
            point["name"],
            {metric["name"]: metric for metric in point["metrics"]},
            out / "points" / Path(point["folder"]).name / "samples",
        )
        for point in content["points"]
    ]


def named(points: list[Kept], name: str) -> Kept:
    """The point of a name."""
    for point in points:
        if point.name == name:
            return point
    raise ValueError(f"no point is called {name!r}; there are {'; '.join(p.name for p in points)}")


def agreed(points: list[Kept], classifier: Path) -> list[list[str]]:
    """A header, and of every point the share that agrees with what was asked for, the Inception Score of the
    classifier's own answers, precision and recall.
    """
    judge = load_classifier(classifier)
    first = points[0].metric("recall")["value"]
    rows = [["", "agreement", "lowest class", "IS[classifier]", "precision", "recall", "of the first's"]]
    for point in points:
        pictures = point.pictures()
        if pictures.labels is None:
            raise ValueError(f"{point.samples} holds pictures of no class, which have none to agree with")
        counts = dict.fromkeys(pictures.classes, (0, 0))
        answers = []
        for batch in pictures.blocks():
            names = [pictures.classes[k] for k in batch.label.tolist()]
            logits = judge.taps(batch.pixels).logits
            answers.append(logits.softmax(1))
            for name, (right, total) in tally(judge, logits.argmax(1), names).items():
                counts[name] = counts[name][0] + right, counts[name][1] + total
        probs = torch.cat(answers)
        share = sum(right for right, _ in counts.values()) / len(probs)
        begin, end = share_interval(share, len(probs))
        low, worst = min((right / total, name) for name, (right, total) in counts.items() if total)
        recall = point.metric("recall")["value"]
        rows.append(
            [
                point.name,
                f"{100 * share:.1f} % ({100 * begin:.1f} to {100 * end:.1f})",
                f"{100 * low:.0f} % {worst}",
                f"{inception_score(fake=probs):.2f} ± {Z * score_error(probs):.2f}",
                f"{point.metric('precision')['value']:.3f}",
                f"{recall:.3f}",
                f"{100 * recall / first:.0f} %" if first else "",
            ]
        )
    return rows


def ratio(one: Kept, other: Kept) -> tuple[float, float, float]:
    """One point's Frechet distance by the other's, and the ends of its 95 % interval.

    The logarithms of both are taken as normal, with the deviations that their own intervals tell.
    """
    (a, sa), (b, sb) = (_logarithm(point.metric("FD")) for point in (one, other))
    span = Z * math.hypot(sa, sb)
    return math.exp(a - b), math.exp(a - b - span), math.exp(a - b + span)


def _logarithm(metric: dict[str, Any]) -> tuple[float, float]:
    if metric["interval"] is None:
        raise ValueError(f"{metric['name']} has no interval; sweep with --bootstrap 100")
    low, high = metric["interval"]
    return math.log(metric["value"]), (high - low) / (2 * Z * metric["value"])


def alike(points: list[Kept], distance: Perceptual) -> list[list[str]]:
    """A header, and for every pair of points how far pictures of one noise are apart, by the distance between
    pictures of one class that grew from other noises in the last point.
    """
    pixels = [_images(point.pictures()) for point in points]
    last = points[-1].pictures()
    apart = last.classes and len(last.classes) or 1  # classes are drawn in turn
    base = _mean(distance, pixels[-1], pixels[-1].roll(apart, 0))
    rows = [["distance", distance.name, "of that between seeds"]]
    rows.append([f"between seeds, {points[-1].name}", _told(base), "100 %"])
    for i, one in enumerate(points):
        for k in range(i + 1, len(points)):
            found = _mean(distance, pixels[i], pixels[k])
            rows.append(
                [f"{one.name} against {points[k].name}", _told(found), f"{100 * found[0] / base[0]:.0f} %"]
            )
    return rows


def _images(pictures: Dataset) -> Tensor:
    """(N, C, H, W) in [-1, 1]."""
    whole = torch.cat([torch.as_tensor(batch.pixels) for batch in pictures.blocks()])
    return whole.permute(0, 3, 1, 2).float() / 127.5 - 1


@torch.no_grad()
def _mean(distance: Perceptual, a: Tensor, b: Tensor) -> tuple[float, float]:
    """The mean distance of pairs and half its 95 % interval."""
    each = torch.cat([distance(x, y).flatten() for x, y in zip(a.split(64), b.split(64), strict=True)])
    return float(each.mean()), Z * float(each.std()) / math.sqrt(len(each))


def _told(found: tuple[float, float]) -> str:
    return f"{found[0]:.3f} ± {found[1]:.3f}"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    asked = parser.add_subparsers(dest="what", required=True)
    agreeing = asked.add_parser("agreement", help="with what was asked for, by a plain classifier")
    agreeing.add_argument("sweep", type=Path)
    agreeing.add_argument("classifier", type=Path, help="of `unnoise train classifier-28`")
    between = asked.add_parser("ratio", help="of two points' distances")
    between.add_argument("sweep", type=Path)
    between.add_argument("one")
    between.add_argument("other")
    between.add_argument("--beside", type=Path, help="the sweep of the other point, if not the same")
    same = asked.add_parser("alike", help="pictures of one noise")
    same.add_argument("sweep", type=Path)
    same.add_argument("--perceptual", default="auto", help="as autoencoder.perceptual")
    arguments = parser.parse_args()
    try:
        points = read_sweep(arguments.sweep)
        if arguments.what == "ratio":
            beside = read_sweep(arguments.beside) if arguments.beside else points
            value, low, high = ratio(named(points, arguments.one), named(beside, arguments.other))
            print(f"{value:.3f}, 95 % interval {low:.3f} to {high:.3f}")
            return
        if arguments.what == "agreement":
            rows = agreed(points, arguments.classifier)
        else:
            distance = open_perceptual(choose(arguments.perceptual), torch.device("cpu"))
            if distance is None:
                raise ValueError("--perceptual none compares nothing; use auto, stlpips or unnoise-small")
            rows = alike(points, distance)
    except ValueError as error:
        print(f"claims: {error}", file=sys.stderr)
        sys.exit(2)
    print("\n".join(aligned(rows)))


if __name__ == "__main__":
    main()
