"""Where a command will write: refused before anything is computed, where nothing can be written."""

import tempfile
from pathlib import Path


def check_folder(out: Path, what: str = "result") -> None:
    """ValueError unless `out` is, or can become, a folder to write into; nothing is created."""
    there = out
    try:
        there = next(path for path in (out, *out.absolute().parents) if path.exists())
        if there.is_dir():
            with tempfile.TemporaryFile(dir=there):
                return
    except OSError as error:
        raise ValueError(
            f"{there} cannot be written to ({error.strerror}); name another place for the {what}"
        ) from None
    raise ValueError(f"{there} is a file; name a folder for the {what}")


def check_file(out: Path, what: str = "result") -> None:
    """ValueError unless a file `out` can be written; nothing is created."""
    if out.is_dir():
        raise ValueError(f"{out} is a folder; name a file for the {what}")
    check_folder(out.parent, what)
