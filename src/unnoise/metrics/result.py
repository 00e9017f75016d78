"""What an evaluation found, with the protocol it found it by: plain data, JSON, and the comparison of two."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from unnoise.config.load import from_dict
from unnoise.modelfile import write_atomically

FORMAT = 1
Better = Literal["lower", "higher"]


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One number and how far it can be trusted."""

    name: str
    """With its feature network: FID, KID[effnet-lite0], precision[unnoise-small]."""
    value: float
    better: Better = "lower"
    interval: tuple[float, float] | None = None
    """95 %, over redrawn samples, the reference held fixed."""
    floor: float | None = None
    """The same between real and real pictures: what a perfect model would reach."""
    infinite: float | None = None
    """At infinitely many samples."""
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Every metric of one evaluation, its protocol and its warnings."""

    samples: str
    against: str
    metrics: tuple[Metric, ...]
    protocol: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    nearest: dict[str, Any] | None = None
    """Share of near-copies, its threshold, and the closest pairs (sample, real picture, distance)."""

    def __getitem__(self, name: str) -> Metric:
        """The metric of a name."""
        for metric in self.metrics:
            if metric.name == name:
                return metric
        raise KeyError(f"{name}; there are {', '.join(m.name for m in self.metrics)}")

    def to_json(self) -> str:
        """As JSON; infinite numbers become null, which JSON has no other word for."""
        return json.dumps(_finite({"unnoise_evaluation": FORMAT, **asdict(self)}), indent=2) + "\n"

    def save(self, path: Path) -> None:
        """Write the JSON, aside first."""
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, self.to_json().encode())

    def lines(self) -> list[str]:
        """A table for people."""
        rows = [("metric", "value", "95 % interval", "real vs real", "at infinite N")]
        for m in self.metrics:
            span = f"{number(m.interval[0])} to {number(m.interval[1])}" if m.interval else ""
            rows.append((m.name, number(m.value), span, number(m.floor), number(m.infinite)))
        widths = [max(len(row[i]) for row in rows) for i in range(5)]
        table = [
            "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows
        ]
        return table + [f"warning: {text}" for text in self.warnings]


def number(value: float | None) -> str:
    """Four digits, for people; nothing for None."""
    if value is None:
        return ""
    if value == 0 or not math.isfinite(value):
        return str(value).removesuffix(".0")
    return f"{value:.4g}" if abs(value) < 10_000 else f"{value:,.0f}"


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_evaluation(path: Path) -> Evaluation:
    """An evaluation from its JSON. ValueError when the file is something else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}); name an evaluation's JSON") from error
    except (ValueError, RecursionError):
        content = None
    version = content.pop("unnoise_evaluation", None) if isinstance(content, dict) else None
    if isinstance(version, int) and version > FORMAT:
        raise ValueError(f"{path} was written by a newer unnoise; update this one")
    if version != FORMAT:
        raise ValueError(f"{path} is no evaluation; name a JSON that `unnoise evaluate` wrote")
    try:
        metrics, endless = _without_nulls(content.get("metrics"))
        found = from_dict(Evaluation, {**content, "metrics": metrics})
    except ValueError as error:
        raise ValueError(f"{path} is no whole evaluation ({error}); measure again") from None
    values = zip(found.metrics, endless, strict=True)
    return replace(found, metrics=tuple(replace(m, value=math.inf) if null else m for m, null in values))


def _without_nulls(metrics: Any) -> tuple[Any, list[bool]]:
    """Metrics without the nulls that `to_json` writes for infinite numbers, and whose values these are."""
    if not isinstance(metrics, list) or not all(isinstance(m, dict) for m in metrics):
        return metrics, []
    endless = ["value" in m and m["value"] is None for m in metrics]
    plain = [{**m, "value": 0.0} if null else dict(m) for m, null in zip(metrics, endless, strict=True)]
    for m in plain:
        if isinstance(m.get("interval"), list) and None in m["interval"]:
            m["interval"] = None
    return plain, endless


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One metric in two evaluations."""

    name: str
    first: float
    second: float
    error: float | None
    """Half width of the 95 % interval of the difference; None where an interval is missing."""
    better: Literal["first", "second", "neither", "unknown"]
    """Which is better by more than the interval of the difference."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two evaluations side by side."""

    differences: tuple[Difference, ...]
    protocol: tuple[str, ...]
    """Settings that differ and make the numbers incomparable or less so."""

    def lines(self) -> list[str]:
        """For people."""
        out = [f"not the same protocol: {text}" for text in self.protocol]
        for d in self.differences:
            verdict = {
                "first": "the first is better",
                "second": "the second is better",
                "neither": "no difference beyond the interval",
                "unknown": "no interval to judge by",
            }[d.better]
            margin = "" if d.error is None else f" +- {number(d.error)}"
            change = d.second - d.first if d.second != d.first else 0.0  # of infinite ones too
            out.append(
                f"{d.name}: {number(d.first)} -> {number(d.second)} ({change:+.3g}{margin}): {verdict}"
            )
        return out


COMPARED = (
    "features",
    "weights_hash",
    "preprocess",
    "against_content",
    "samples_n",
    "reference_n",
    "precision",
    "distances",
    "evaluator",
)


def compare(first: Evaluation, second: Evaluation) -> Comparison:
    """Which metrics of two evaluations differ by more than the interval of their difference.

    The errors of independent samples add in squares; both against the same reference.
    """
    shared = [m.name for m in first.metrics if any(m.name == other.name for other in second.metrics)]
    if not shared:
        raise ValueError(
            "the two evaluations have no metric in common "
            f"({', '.join(m.name for m in first.metrics)} and {', '.join(m.name for m in second.metrics)}); "
            "measure both with the same features"
        )
    differences = []
    for name in shared:
        a, b = first[name], second[name]
        error, better = None, "unknown"
        if a.interval and b.interval:
            error = math.hypot(*((m.interval[1] - m.interval[0]) / 2 for m in (a, b) if m.interval))
            better = "neither"
            if abs(b.value - a.value) > error:
                better = "second" if (b.value < a.value) == (a.better == "lower") else "first"
        differences.append(
            Difference(name=name, first=a.value, second=b.value, error=error, better=better)  # type: ignore[arg-type]
        )
    protocol = tuple(
        f"{key} {first.protocol.get(key)} and {second.protocol.get(key)}"
        for key in COMPARED
        if first.protocol.get(key) != second.protocol.get(key)
    )
    return Comparison(differences=tuple(differences), protocol=protocol)
