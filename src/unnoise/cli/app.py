"""The `unnoise` program: its verbs, its exit status and how errors are said."""

import functools
import io
import itertools
import os
import re
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from unnoise import __version__
from unnoise.runtime import keep_freed_memory

DONE, FAILED, REFUSED, INTERRUPTED, TERMINATED = 0, 1, 2, 130, 143
UsageError: Any = typer.BadParameter.__base__
"""Of the parser inside typer, which has no public name for it."""

MAY_BE_EMPTY = ("--preset", "--prompt")
"""Options whose empty value says something: a model of a cascade that needs no preset, no words."""
_EMPTIED = re.compile(r"--[\w-]+=")

app = typer.Typer(
    name="unnoise",
    help="Train, sample, edit with and measure image diffusion models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"unnoise {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@functools.cache
def _register() -> None:
    """Once a process: typer keeps what it is given as often as it is given it."""
    from unnoise.cli import (
        ablate,
        build,
        cascade,
        compare,
        convert,
        demo,
        edit,
        evaluate,
        likelihood,
        presets,
        reference,
        sample,
        search_steps,
        sweep,
        train,
    )

    drawing = (demo, train, sample, cascade, edit)
    measuring = (evaluate, sweep, ablate, compare, search_steps, reference, likelihood)
    for module in (*drawing, *measuring, build, convert, presets):
        module.register(app)


def main() -> None:
    """Run the program; refused input is one line and exit status 2, failing while running one line and 1."""
    # The C++ side of torch warns on stderr about things that users cannot act on.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    keep_freed_memory()
    if isinstance(sys.stdout, io.TextIOWrapper):  # names of files need not be text
        sys.stdout.reconfigure(errors="surrogateescape")
    _register()
    try:
        _refuse_empty(sys.argv[1:])
        sys.exit(app(prog_name="unnoise", standalone_mode=False))
    except UsageError as error:
        message = error.format_message()
        if "\n" in message:  # the help, when nothing was asked for
            error.show()
        else:
            _say(f"{message} ({error.ctx.command_path if error.ctx else 'unnoise'} -h lists what there is)")
        sys.exit(REFUSED)
    except ValueError as error:
        if not _ours(error):
            raise  # a ValueError from inside a library is a bug of ours: show where
        _say(error)
        sys.exit(REFUSED)
    except OSError as error:
        _say(f"{error.filename}: {error.strerror}" if error.filename else error)
        sys.exit(FAILED)
    except (MemoryError, RuntimeError) as error:
        if not _out_of_memory(error):
            raise
        _say(
            "not enough memory; use smaller or fewer pictures at a time (--batch-size), or a device with more"
        )
        sys.exit(FAILED)
    except KeyboardInterrupt:
        _say("interrupted")
        sys.exit(INTERRUPTED)


def _refuse_empty(arguments: Sequence[str]) -> None:
    """ValueError for an empty value, such as a shell's unset variable, which would pass for none given."""
    for before, argument in itertools.pairwise(["", *arguments]):
        option = before if not argument else argument[:-1] if _EMPTIED.fullmatch(argument) else None
        if option is not None and option not in MAY_BE_EMPTY:
            what = f"the value of {option}" if option.startswith("-") else "an argument"
            raise ValueError(f"{what} is empty; give one, or leave it out")


def _ours(error: BaseException) -> bool:
    """Whether our own code raised it, knowing what the user can do."""
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    return bool(trace) and str(trace.tb_frame.f_globals.get("__name__", "")).split(".")[0] == "unnoise"


def _out_of_memory(error: Exception) -> bool:
    """Python's own error, a GPU's, or that of torch's allocator on the CPU, which has no class of its own."""
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    said = ("can't allocate memory", "Storage size calculation overflowed")
    return named or any(words in str(error) for words in said)


def _say(problem: object) -> None:
    text = " ".join(str(problem).split())
    print(f"unnoise: {text.encode(errors='backslashreplace').decode()}", file=sys.stderr)
