"""`unnoise build`: data sets made from packages that can be had everywhere."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from unnoise.data.builders.writing import Progress

build = typer.Typer(
    name="build",
    help="Make data sets from packages of pictures.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Out = Annotated[Path, typer.Argument(metavar="OUT", help="A new folder, or one whose build was stopped.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    app.add_typer(build)


@build.command()
def emoji(
    out: Out,
    size: Annotated[int, typer.Option(help="Side in pixels, 16 to 256.")] = 64,
    packages: Annotated[
        Path | None, typer.Option(help="Folder with the npm packages; default: npm fetches them.")
    ] = None,
    openmoji: Annotated[
        bool, typer.Option("--openmoji", help="Draw OpenMoji's own pictures too (CC BY-SA).")
    ] = False,
) -> None:
    """About 22,000 emoji in eight styles, with captions, categories and licences, split by object."""
    from unnoise.cli.sample import stoppable
    from unnoise.data.builders.emoji import build_emoji

    with stoppable(), _bar("emoji") as on_progress:
        built = build_emoji(out, size=size, source=packages, openmoji=openmoji, on_progress=on_progress)
    for line in built.lines():
        typer.echo(line)


@build.command()
def photographs(
    out: Out,
    size: Annotated[int, typer.Option(help="Side of the patches in pixels, 32 to 512.")] = 128,
    patches: Annotated[int, typer.Option(help="Patches of one photograph at most.")] = 400,
    packages: Annotated[
        Path | None,
        typer.Option(help="Folder with the unpacked Debian packages, or /; default: apt-get fetches them."),
    ] = None,
) -> None:
    """Patches of photographs from Debian packages, with their licences, split by photograph."""
    from unnoise.cli.sample import stoppable
    from unnoise.data.builders.photographs import build_photographs

    with stoppable(), _bar("patches") as on_progress:
        built = build_photographs(out, size=size, patches=patches, source=packages, on_progress=on_progress)
    for line in built.lines():
        typer.echo(line)


@contextmanager
def _bar(what: str) -> Iterator["Progress"]:
    """A progress line on stderr, when that is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(what, total=None)

        def show(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        yield show
