"""What an ablation found, in the form of the paper's tables: the baseline's numbers, the others' differences.

Tables 1 to 3 of Dhariwal & Nichol 2021 (arXiv 2105.05233) give differences without intervals; here a
difference is marked when it exceeds the 95 % interval of the two numbers.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from unnoise import __version__
from unnoise.metrics.features import family
from unnoise.metrics.result import Difference, Evaluation, compare, number
from unnoise.modelfile import write_atomically
from unnoise.studies.swept import with_span
from unnoise.words import duration

FORMAT = 1
WHEN = ("half", "end")


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A variant at one point of its training."""

    step: int
    seconds: float
    """Of training until then."""
    evaluation: Evaluation
    folder: Path
    """Where its pictures are."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A variant: what it changes, what it cost, what came of it."""

    name: str
    changes: tuple[str, ...]
    parameters: int
    steps: int
    seconds: float
    points: tuple[Measured, ...]
    """Half way and at the end; none of a variant that failed."""
    failed: str = ""
    """Why, in one line."""


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """All variants, the baseline first."""

    base: str
    data: str
    against: str
    n: int
    minutes: float | None
    """Planned for each; None where steps were equal instead."""
    rows: tuple[Row, ...]
    warnings: tuple[str, ...]

    @property
    def metrics(self) -> list[str]:
        """Names of what was measured; empty when the baseline failed."""
        points = self.rows[0].points
        return [m.name for m in points[-1].evaluation.metrics] if points else []

    def difference(self, row: Row, when: int, metric: str) -> Difference | None:
        """Of a variant to the baseline at the same point of training; None where one of them failed."""
        baseline = self.rows[0]
        if not (baseline.points and row.points):
            return None
        found = compare(baseline.points[when].evaluation, row.points[when].evaluation)
        return next((d for d in found.differences if d.name == metric), None)

    def table(self, metrics: list[str]) -> list[list[str]]:
        """Header and rows: the baseline's numbers, then differences; * where they exceed their interval."""
        columns = [(metric, when) for metric in metrics for when in range(len(WHEN))]
        head = ["variant", "million parameters", "steps", "trained"]
        rows = [[*head, *(f"{family(metric)} {WHEN[when]}" for metric, when in columns)]]
        for row in self.rows:
            facts = [row.name, f"{row.parameters / 1e6:.2f}", f"{row.steps:,}", duration(row.seconds)]
            if not row.points:
                rows.append([*facts, *("failed" for _ in columns)])
            elif row is self.rows[0]:
                rows.append([*facts, *(with_span(row.points[w].evaluation[m]) for m, w in columns)])
            else:
                rows.append([*facts, *(_told(self.difference(row, w, m)) for m, w in columns)])
        return rows

    def save(self, out: Path) -> None:
        """Write ablation.json."""
        rows = [
            {
                **asdict(row),
                "points": [
                    {
                        "when": WHEN[k],
                        "step": p.step,
                        "seconds": p.seconds,
                        "metrics": [asdict(m) for m in p.evaluation.metrics],
                        "differences": {m: self._json(row, k, m) for m in self.metrics},
                        "protocol": p.evaluation.protocol,
                        "folder": str(p.folder),
                    }
                    for k, p in enumerate(row.points)
                ],
            }
            for row in self.rows
        ]
        content = {"unnoise_ablation": FORMAT, "unnoise": __version__, **asdict(self), "rows": rows}
        text = json.dumps(content, indent=1, default=str) + "\n"
        write_atomically(out / "ablation.json", text.encode())

    def _json(self, row: Row, when: int, metric: str) -> dict[str, float | bool | None] | None:
        found = self.difference(row, when, metric)
        if found is None or row is self.rows[0]:
            return None
        return {"change": found.second - found.first, "error": found.error, "exceeds": exceeds(found)}


def exceeds(difference: Difference) -> bool:
    """Whether two numbers differ by more than the interval of their difference."""
    return difference.better in ("first", "second")


def _told(difference: Difference | None) -> str:
    if difference is None:
        return ""
    error = "" if difference.error is None else f" ± {difference.error:.2g}"
    change = difference.second - difference.first
    sign = "-" if change < 0 else "+"
    return f"{sign}{number(abs(change))}{error}{'*' if exceeds(difference) else ''}"
