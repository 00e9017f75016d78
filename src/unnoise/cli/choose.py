"""Which network a foreign file is for, asked where its shapes cannot tell and somebody is there to answer."""

import sys
from pathlib import Path

import typer


def settled(file: Path, preset: str) -> str:
    """The preset to read `file` with: as given, or as answered on the terminal; "" where none is needed."""
    from unnoise.weights import diffusers, published
    from unnoise.weights.torchfile import is_torch_file, read_state

    asked = sys.stdin.isatty() and sys.stderr.isatty()
    if preset or not asked or diffusers.is_weights(file) or not is_torch_file(file):
        return preset
    doubt = published.doubt_about(read_state(file), file)
    if doubt is not None:
        typer.echo(f"{file} has the shapes of several networks: {', '.join(doubt.names)}", err=True)
        return str(typer.prompt("Which one is it", default=doubt.names[0], err=True))
    return ""
