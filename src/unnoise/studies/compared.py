"""What a comparison found: each kind of model with its settings, as JSON and as tables for people."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from unnoise import __version__
from unnoise.metrics.features import family
from unnoise.metrics.result import Evaluation, Metric, number
from unnoise.modelfile import write_atomically
from unnoise.studies.swept import with_span
from unnoise.words import duration

FORMAT = 1
TITLES = {"pixel": "pixel diffusion", "latent": "latent diffusion", "gan": "GAN"}
"""Kind -> its name for people."""


@dataclass(frozen=True, kw_only=True)
class Spot:
    """A model at one setting of its trade between quality and diversity, measured."""

    setting: str
    """Such as "guidance=2"; "" for the model as it is."""
    evaluation: Evaluation
    folder: Path
    """Where its pictures are."""
    repeats: float
    """Share of samples that nearly repeat another sample."""
    lost: int
    """Kinds of pictures of which it draws fewer than a tenth of what it should."""
    score: float
    """The judge's Inception Score."""

    @property
    def copies(self) -> float | None:
        """Share of near-copies of real pictures; about 0.01 for fresh ones."""
        nearest = self.evaluation.nearest
        return None if nearest is None else float(nearest["share_of_near_copies"])


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A kind of model, what it cost and what came of it."""

    kind: str
    parameters: int
    """Of what draws, a first stage included."""
    steps: int
    training_step: int
    """Of the average that was measured: the best one where one was kept."""
    seconds: float
    """Of training, a first stage's included."""
    speed: float
    """Pictures a second, as it is."""
    spots: tuple[Spot, ...]
    """The model as it is, then its sweep."""

    @property
    def plain(self) -> Spot:
        """The model as it is."""
        return self.spots[0]

    def best(self, metric: str) -> Spot:
        """The setting with the best value of a metric."""
        sign = 1 if self.plain.evaluation[metric].better == "lower" else -1
        return min(self.spots, key=lambda spot: sign * spot.evaluation[metric].value)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """All contenders beside each other."""

    data: str
    against: str
    n: int
    minutes: float
    classes: tuple[str, ...]
    judged: float | None
    """How often the judge of classes is right on real pictures new to it; None: it knows clusters."""
    kinds: int
    """Classes or clusters that the judge tells apart."""
    contenders: tuple[Contender, ...]
    warnings: tuple[str, ...]

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The first contender's: names and directions that all share."""
        return self.contenders[0].plain.evaluation.metrics

    @property
    def floors(self) -> dict[str, float]:
        """Metric -> the same between real and real pictures."""
        return {m.name: m.floor for m in self.metrics if m.floor is not None}

    @property
    def network(self) -> str:
        """The feature network of all numbers."""
        return str(self.contenders[0].plain.evaluation.protocol["features"])

    @property
    def distance(self) -> Metric:
        """The Frechet distance."""
        return next(m for m in self.metrics if family(m.name) in ("FD", "FID"))

    def costs(self) -> list[list[str]]:
        """A header and rows: what each model took."""
        rows = [["model", "million parameters", "steps", "trained", "pictures/s"]]
        for c in self.contenders:
            size = f"{c.parameters / 1e6:.2f}"
            rows.append([TITLES[c.kind], size, f"{c.steps:,}", duration(c.seconds), number(c.speed)])
        return rows

    def table(self) -> list[list[str]]:
        """A header and rows: every model as it is, and at the setting of its lowest distance."""
        names = [m.name for m in self.metrics]
        kind = "classes lost" if self.judged is not None else "clusters lost"
        short = [name.removesuffix(f"[{self.network}]") for name in names]
        rows = [
            [f"[{self.network}]", *short, "IS[judge]", "near-copies", "repeats", f"{kind} of {self.kinds}"]
        ]
        for c in self.contenders:
            best = c.best(self.distance.name)
            for spot in dict.fromkeys((0, c.spots.index(best))):
                rows.append(self._row(c, c.spots[spot], names))
        if self.floors:
            rows.append(["real vs real", *(number(self.floors.get(name)) for name in names), "", "", "", ""])
        return rows

    def everything(self) -> list[list[str]]:
        """The same of every setting."""
        names = [m.name for m in self.metrics]
        head = self.table()[0]
        return [head, *(self._row(c, spot, names) for c in self.contenders for spot in c.spots)]

    def _row(self, contender: Contender, spot: Spot, names: list[str]) -> list[str]:
        found = {m.name: m for m in spot.evaluation.metrics}
        title = TITLES[contender.kind] + (f", {spot.setting}" if spot.setting else "")
        rest = [number(spot.score), _percent(spot.copies), _percent(spot.repeats), str(spot.lost)]
        return [title, *(with_span(found.get(name)) for name in names), *rest]

    def save(self, out: Path) -> None:
        """Write comparison.json."""
        contenders = [
            {
                **asdict(c),
                "spots": [
                    {
                        "setting": spot.setting,
                        "metrics": [asdict(m) for m in spot.evaluation.metrics],
                        "inception_score_of_judge": spot.score,
                        "near_copies": spot.copies,
                        "repeats": spot.repeats,
                        "lost": spot.lost,
                        "protocol": spot.evaluation.protocol,
                        "folder": str(spot.folder),
                    }
                    for spot in c.spots
                ],
            }
            for c in self.contenders
        ]
        content = {
            "unnoise_comparison": FORMAT,
            "unnoise": __version__,
            **asdict(self),
            "floors": self.floors,
            "contenders": contenders,
        }
        text = json.dumps(content, indent=1, default=str) + "\n"
        write_atomically(out / "comparison.json", text.encode())


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f} %"
