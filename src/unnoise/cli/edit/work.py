"""A command of `unnoise edit` at work: its model loaded, its request checked, its progress said."""

import contextlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from unnoise.cli.edit.shared import Results, Shared
from unnoise.config.requests import EditRequest

if TYPE_CHECKING:
    from unnoise.cli.sample import Meter
    from unnoise.edit.folder import Folder


@dataclass(frozen=True)
class Work:
    """A command at work: its folder, its progress line, and what could not be used."""

    folder: "Folder"
    meter: "Meter"
    broken: list[str]

    def say_done(self, thing: str, done: str) -> None:
        """How many things were done, and where they are."""
        from unnoise.edit.folder import SHEET

        things = thing if self.meter.done == 1 else f"{thing}s"
        typer.echo(f"{self.meter.done} {things} {done} in {self.meter.spent()}: {self.folder.out}")
        if (self.folder.out / SHEET).exists():
            typer.echo(f"before and after: {self.folder.out / SHEET}")


@contextlib.contextmanager
def working(
    model: Path, out: Path, shared: Shared, own: dict[str, Any], drawn: dict[str, Any] | None = None
) -> Iterator[Work]:
    """The model loaded and the request checked; exit status 1 when a picture could not be used.

    own, drawn: the verb's own fields of the EditRequest and of the GenerateRequest inside it.
    """
    from unnoise.cli.sample import Meter, Stopped, stoppable

    with stoppable():
        import hashlib

        from unnoise import __version__
        from unnoise.cli.choose import settled
        from unnoise.config.load import from_dict, override
        from unnoise.distributed import choose_device
        from unnoise.edit.folder import Folder
        from unnoise.edit.plan import plan_edit
        from unnoise.model import load_model
        from unnoise.modelfile import find_model

        values = override(shared.request(own, drawn or {}), shared.set or [], EditRequest)
        request = from_dict(EditRequest, values)
        if request.kind != own["kind"]:
            raise ValueError(
                f"--set kind={request.kind}: this command is edit {own['kind']}; leave it out, or use "
                f"`unnoise edit {request.kind}`"
            )
        file = find_model(model)
        preset = settled(file, shared.preset)
        ready = plan_edit(load_model(file, choose_device(shared.device), preset=preset), request)
        with open(file, "rb") as content:
            weights = hashlib.file_digest(content, "sha256").hexdigest()
        about = {"Software": f"unnoise {__version__}", "model-sha256": weights}
        broken: list[str] = []

        def on_broken(problem: str) -> None:
            broken.append(problem)
            _say(problem)

        with Meter(1, show=True) as meter:
            folder = Folder(
                out=out, edit=ready, weights=f"{weights} {preset}".strip(), about=about,
                on_begin=meter.begin, on_step=meter.step, on_result=meter.count, on_broken=on_broken,
            )  # fmt: skip
            try:
                yield Work(folder, meter, broken)
            except Stopped:
                _say(f"stopped; {meter.done} results were written now, the same command continues")
                raise
            except FloatingPointError as error:
                _say(str(error))
                raise typer.Exit(1) from None
        if broken:
            _say(f"{len(broken)} {'picture' if len(broken) == 1 else 'pictures'} could not be used")
            raise typer.Exit(1)


def redraw(
    model: Path,
    pictures: Sequence[Path],
    out: Path,
    shared: Shared,
    own: dict[str, Any],
    results: Results,
) -> dict[str, float]:
    """Write the results of each picture; returns what `redraw_files` does."""
    with working(model, out, shared, own, results.fields()) as work:
        from unnoise.edit.jobs import redraw_files

        found = redraw_files(work.folder, pictures)
        work.say_done("variant" if own["kind"] == "vary" else "result", "drawn")
    return found


def _say(text: str) -> None:
    print(f"unnoise: {text}", file=sys.stderr)
