"""Debian packages: found unpacked in a folder, or fetched by apt-get and unpacked, nothing of them run."""

import re
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

_SECONDS = 900
"""That a download may take."""


@dataclass(frozen=True)
class Terms:
    """Under what a file of a package may be used, in the words of its copyright file."""

    license: str
    holder: str


def find(folder: Path, package: str) -> Path | None:
    """The unpacked package: FOLDER/PACKAGE, or FOLDER when it is a root such as /; None without one."""
    for root in (folder / package, folder):
        if (root / "usr" / "share" / "doc" / package).is_dir():
            return root
    return None


def fetch(folder: Path, packages: Iterable[str]) -> dict[str, Path]:
    """The packages unpacked below `folder`, each brought there by apt-get if it is not yet.

    ValueError when apt-get or dpkg is missing or fails.
    """
    found = {}
    for package in packages:
        root = find(folder, package)
        if root is None:
            _unpack(folder, package)
            root = find(folder, package)
        if root is None:
            raise ValueError(f"{package} unpacked to {folder} is not the package; delete it and run again")
        found[package] = root
    return found


def terms(copyright_file: str, name: str) -> Terms | None:
    """What a machine-readable copyright file says of a file by its last paragraph that matches; None when
    nothing does. name: with its folders, as the source has it.
    """
    chosen = None
    for paragraph in re.split(r"\n\s*\n", copyright_file):
        fields = _fields(paragraph)
        patterns = fields.get("files", "").split()
        if any(fnmatchcase(name, each) for each in patterns):
            license = fields.get("license", "").splitlines()[:1]
            holders = [" ".join(line.split()) for line in fields.get("copyright", "").splitlines()]
            if license and license[0].strip():
                chosen = Terms(license[0].strip(), "; ".join(line for line in holders if line))
    return chosen


def _fields(paragraph: str) -> dict[str, str]:
    """The fields of a paragraph, continued lines joined to them; names in lower case."""
    fields: dict[str, str] = {}
    name = ""
    for line in paragraph.splitlines():
        if line[:1] in (" ", "\t"):
            fields[name] = f"{fields.get(name, '')}\n{line.strip()}"
        elif ":" in line:
            name, _, value = line.partition(":")
            name = name.strip().lower()
            fields[name] = value.strip()
    return fields


def _unpack(folder: Path, package: str) -> None:
    """Fetches one package and unpacks it aside, then renames the folder."""
    programs = {name: shutil.which(name) for name in ("apt-get", "dpkg")}
    missing = [name for name, path in programs.items() if path is None]
    if missing:
        raise ValueError(
            f"{' and '.join(missing)} are not on this machine; unpack Debian's {package} to FOLDER/{package} "
            "elsewhere and name FOLDER with --packages"
        )
    folder.mkdir(parents=True, exist_ok=True)
    aside = folder / f".{package}.tmp"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    try:
        _run(f"fetch {package}", ["apt-get", "download", "-q", package], aside)
        archive = next(iter(sorted(aside.glob("*.deb"))), None)
        if archive is None:
            raise ValueError(f"apt-get fetched no {package}; run apt-get update, or use --packages")
        _run(f"unpack {archive.name}", ["dpkg", "-x", archive.name, "tree"], aside)
        (aside / "tree").rename(folder / package)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _run(what: str, command: list[str], folder: Path) -> None:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise ValueError(f"{command[0]} took more than {_SECONDS} s to {what}; run again") from error
    if done.returncode:
        said = next((line for line in done.stderr.splitlines() if line.startswith("E:")), done.stderr[:200])
        raise ValueError(f"{command[0]} could not {what} ({said.strip()}); go online, or use --packages")
