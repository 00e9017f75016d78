"""What a search for steps found: its path, the comparison on fresh noise, and whether uniform was beaten."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from unnoise import __version__, html
from unnoise.chart import Chart, Curve
from unnoise.config.load import to_dict
from unnoise.config.studies import SearchRequest
from unnoise.metrics.report import save_page
from unnoise.metrics.result import number
from unnoise.modelfile import write_atomically

FORMAT = 1


@dataclass(frozen=True)
class Trial:
    """A candidate and its distances, by how many pictures it was measured on."""

    counts: tuple[int, ...]
    distances: dict[int, float]


@dataclass(frozen=True)
class Compared:
    """One way to spend the steps, on fresh noise."""

    steps: str
    value: float
    error: float
    """Half width of the 95 % interval."""
    change: float
    """From uniform steps; negative is better."""
    change_error: float
    """Half width of the 95 % interval of the change, the pictures of both paired by their noise."""

    @property
    def better(self) -> bool:
        """Whether it beats uniform steps by more than the interval."""
        return self.change < -self.change_error


@dataclass(frozen=True, kw_only=True)
class Search:
    """A whole search."""

    request: SearchRequest
    steps: int
    """That the calls are enough for."""
    metric: str
    path: tuple[tuple[int, ...], ...]
    """Counts from equal ones to those found."""
    trials: tuple[Trial, ...]
    compared: tuple[Compared, ...]
    """Uniform steps first, those found second (unless they are the same), then the others named."""
    warnings: tuple[str, ...]

    @property
    def found(self) -> str:
        """The steps that the search ended with."""
        return ",".join(map(str, self.path[-1]))

    def verdict(self) -> str:
        """One honest sentence."""
        uniform = self.compared[0]
        best = next((c for c in self.compared if c.steps == self.found), uniform)
        facts = (
            f"{self.metric} {number(best.value)} against {number(uniform.value)}, a change of "
            f"{best.change:+.3g} ± {best.change_error:.2g}"
        )
        if best.better:
            return f"--steps {self.found} beats --steps {uniform.steps} on fresh noise: {facts}"
        if best.change > best.change_error:
            return (
                f"uniform steps are not beaten: {self.found} is worse on fresh noise ({facts}); keep --steps "
                f"{uniform.steps}"
            )
        return (
            f"uniform steps are not beaten beyond the interval: {self.found} has {facts} on fresh noise; "
            f"keep --steps {uniform.steps}, or search with a larger -n"
        )

    def table(self) -> list[list[str]]:
        """The comparison on fresh noise, for people."""
        rows = [["--steps", self.metric, "change from uniform"]]
        for k, c in enumerate(self.compared):
            change = f"{c.change:+.3g} ± {c.change_error:.2g}" if k else ""
            rows.append([c.steps, f"{number(c.value)} ± {c.error:.2g}", change])
        return rows

    def save(self, out: Path) -> None:
        """Write search.json."""
        content = {
            "unnoise_search": FORMAT,
            "unnoise": __version__,
            "found": self.found,
            "verdict": self.verdict(),
            "metric": self.metric,
            "steps": self.steps,
            "request": to_dict(self.request),
            "path": [list(counts) for counts in self.path],
            "compared": [asdict(c) | {"better": c.better} for c in self.compared],
            "trials": [asdict(trial) for trial in self.trials],
            "warnings": list(self.warnings),
        }
        write_atomically(out / "search.json", (json.dumps(content, indent=1) + "\n").encode())

    def save_page(self, out: Path, command: str) -> Path:
        """Write search.html; returns it."""
        request = self.request
        lead = (
            f"{request.calls} calls of the network a picture, {self.steps} steps of "
            f"{request.generate.sampler} among {request.sections} sections; {len(self.trials)} candidates on "
            f"up to {request.n:,} pictures each, the last comparison on {request.final:,} others; unnoise "
            f"{__version__}."
        )
        head, *rows = self.table()
        save_page(
            out / "search.html",
            html.page(
                "Steps",
                lead,
                *(html.paragraph(text, warning=True) for text in self.warnings),
                html.section("Found", html.paragraph(self.verdict()), html.table(head, rows)),
                html.section(
                    "Search", html.side_by_side([html.figure(self._counts()), html.figure(self._tried())])
                ),
                html.section("Again", html.code(command)),
            ),
        )
        return out / "search.html"

    def _counts(self) -> Chart:
        """Where the steps are, at the start and at the end."""
        named = {"equal": self.path[0], "found": self.path[-1]}
        return Chart(
            curves=[
                Curve(name=name, x=range(len(counts)), y=[float(c) for c in counts], marked=True)
                for name, counts in named.items()
            ],
            x_label="section, from clean to noisy",
            y_label="steps",
            caption="Steps of each section of the training steps",
            x_names=[str(k + 1) for k in range(self.request.sections)],
            width=480,
            height=300,
        )

    def _tried(self) -> Chart:
        """Every candidate that was measured on all pictures, in the order they were tried."""
        values = [t.distances[self.request.n] for t in self.trials if self.request.n in t.distances]
        return Chart(
            curves=[Curve(name="candidates", x=range(1, len(values) + 1), y=values, marked=True)],
            x_label="candidate measured on all pictures",
            y_label=self.metric,
            caption="The search: these distances chose the winner and are no measure of it",
            width=480,
            height=300,
        )
