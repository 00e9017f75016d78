"""What the commands for studies share: their progress, and the command to repeat them by."""

import os
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer


@contextmanager
def meter() -> Iterator[tuple[Callable[[str, int, int], None], Callable[[str], None]]]:
    """(told of progress, which is drawn where stderr is a terminal; says a line above it)."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=None, visible=False)
        last = ""

        def stage(what: str, done: int, total: int) -> None:
            nonlocal last
            if what != last:
                progress.reset(task, description=what, visible=True)
                last = what
            progress.update(task, completed=done, total=total)

        try:
            yield stage, lambda text: console.print(text, markup=False)
        except FloatingPointError as error:
            progress.stop()
            console.print(f"unnoise: {error}", markup=False)
            raise typer.Exit(1) from None


def refuse_processes() -> None:
    """Studies train, draw and measure in turn; torchrun would start all of it several times."""
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise ValueError("a study runs in one process; start it without torchrun")


def command_line() -> str:
    """The command that was given, to be repeated."""
    return shlex.join(["unnoise", *sys.argv[1:]])
