"""The command line: one file a verb, each parsed into a request; heavy imports stay inside the commands."""

from unnoise.cli.app import main

__all__ = ["main"]
