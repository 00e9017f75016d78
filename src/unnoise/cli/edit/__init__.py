"""`unnoise edit`: what a model makes of pictures. One file a verb, or a pair of verbs."""

import typer

from unnoise.cli.edit import colorize, inpaint, interpolate, invert, stroke, upscale, vary
from unnoise.cli.edit.shared import edit

__all__ = ["colorize", "inpaint", "interpolate", "invert", "register", "stroke", "upscale", "vary"]


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    app.add_typer(edit)
