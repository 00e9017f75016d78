"""Whether a conditional model draws what it is asked for: the share of samples that a classifier of real
pictures gives the class that was asked for.

    unnoise train classifier-28 --data fashion-mnist --out runs/classifier
    python scripts/label_agreement.py runs/fashion-28-1 runs/classifier -n 1000 --guidance 2 --steps 25

The classifier was never shown a drawn picture. Its own accuracy on test pictures is printed beside: it is
what real pictures would score.
"""

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path

from unnoise.classifier import ClassifierModel, accuracy, agreement, load_classifier
from unnoise.config.load import from_dict
from unnoise.config.requests import GenerateRequest
from unnoise.config.schema import DataConfig
from unnoise.data import open_data
from unnoise.generate import generate
from unnoise.metrics.intervals import share_interval
from unnoise.model import Model, load_model


@dataclass(frozen=True)
class Agreement:
    """Samples that were taken for what they should be, of how many, by class."""

    classes: dict[str, tuple[int, int]]

    @property
    def share(self) -> float:
        """Over all samples."""
        return sum(right for right, _ in self.classes.values()) / self.count

    @property
    def count(self) -> int:
        """Samples."""
        return sum(total for _, total in self.classes.values())

    @property
    def interval(self) -> tuple[float, float]:
        """Of the share, 95 %."""
        return share_interval(self.share, self.count)


def measure(model: Model, classifier: ClassifierModel, request: GenerateRequest) -> Agreement:
    """Draws the pictures of a request and asks the classifier about each."""
    if not model.classes:
        raise ValueError("the model knows no classes, so its samples have none to agree with")
    found = {name: (0, 0) for name in model.classes}
    for batch in generate(model, request, on_step=_tick(request)):
        for name, (right, total) in agreement(classifier, batch.pixels, batch.names).items():
            found[name] = found[name][0] + right, found[name][1] + total
    return Agreement({name: counts for name, counts in found.items() if counts[1]})


def _tick(request: GenerateRequest):  # noqa: ANN202 (a listener)
    def tick(progress: object) -> None:
        if sys.stderr.isatty():
            step, first = getattr(progress, "step", 0), getattr(progress, "ids", (0,))[0]
            print(f"\rpicture {first} of {request.n}, step {step} ", end="", file=sys.stderr)

    return tick


def main() -> None:
    """Reads the command line, prints the shares."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("model", type=Path, help="model file or run directory")
    parser.add_argument("classifier", type=Path, help="file or run directory of unnoise train classifier-28")
    parser.add_argument("-n", type=int, default=1000, help="samples, all classes in turn")
    parser.add_argument("--guidance", type=float, default=1.0)
    parser.add_argument("--steps", default="50")
    parser.add_argument("--sampler", default="ddim")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch-size", type=int, default=100)
    parser.add_argument("--test", default="fashion-mnist:test", help="real pictures; '' for none")
    parser.add_argument("--json", type=Path, help="file for the numbers")
    asked = parser.parse_args()
    try:
        request = from_dict(
            GenerateRequest,
            {
                name: getattr(asked, name)
                for name in ("n", "guidance", "steps", "sampler", "seed", "batch_size")
            },
        )
        classifier = load_classifier(asked.classifier)
        found = measure(load_model(asked.model), classifier, request)
        real = accuracy(classifier, open_data(DataConfig(source=asked.test))) if asked.test else None
    except ValueError as error:
        print(f"label_agreement: {error}", file=sys.stderr)
        sys.exit(2)
    low, high = (100 * bound for bound in found.interval)
    print(f"{100 * found.share:.1f} % ({low:.1f} to {high:.1f}) of {found.count:,} samples agree")
    for name, (right, total) in found.classes.items():
        print(f"  {name:<16} {100 * right / total:5.1f} %  ({right} of {total})")
    if real is not None:
        print(f"the classifier names {100 * real:.1f} % of {asked.test} right")
    if asked.json:
        facts = {
            "share": found.share,
            "interval": found.interval,
            "samples": found.count,
            "classes": {name: right / total for name, (right, total) in found.classes.items()},
            "classifier_accuracy": real,
            "request": {
                **vars(asked),
                "model": str(asked.model),
                "classifier": str(asked.classifier),
                "json": None,
            },
        }
        asked.json.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
