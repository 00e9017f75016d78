"""npm packages: found in a folder that has them, or fetched by npm, none of their scripts run."""

import json
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

_SECONDS = 900
"""That npm may take."""
_JSON_BYTES = 2**28
"""Of one file of a package that are read at most."""


def find(folder: Path, names: Iterable[str]) -> dict[str, Path]:
    """The folders of these packages below `folder`, or below its node_modules. ValueError when some are
    missing.
    """
    home = folder / "node_modules" if (folder / "node_modules").is_dir() else folder
    found = {name: home / name for name in names if (home / name / "package.json").is_file()}
    missing = [name for name in names if name not in found]
    if missing:
        raise ValueError(
            f"{folder} lacks {', '.join(missing)}; put them there with: npm install --ignore-scripts "
            f"--prefix {folder} {' '.join(missing)}"
        )
    return found


def fetch(folder: Path, versions: Mapping[str, str]) -> dict[str, Path]:
    """The packages in exactly these versions below `folder`, brought there by npm if they are not yet.

    ValueError when npm is missing or fails.
    """
    try:
        found = find(folder, versions)
        if all(version(path) == versions[name] for name, path in found.items()):
            return found
    except ValueError:
        pass
    exact = [f"{name}@{number}" for name, number in versions.items()]
    npm = shutil.which("npm")
    if npm is None:
        raise ValueError(
            "npm is not on this machine; install it (Debian: apt install npm), or name a folder that holds "
            f"these packages with --packages: {', '.join(exact)}"
        )
    folder.mkdir(parents=True, exist_ok=True)
    command = [npm, "install", "--ignore-scripts", "--no-audit", "--no-fund", "--no-save", *exact]
    try:
        done = subprocess.run(
            [*command, "--prefix", str(folder)], capture_output=True, text=True, timeout=_SECONDS, cwd=folder
        )
    except subprocess.TimeoutExpired as error:
        raise ValueError(f"npm took more than {_SECONDS} s; run again, or use --packages") from error
    if done.returncode:
        said = next((line for line in done.stderr.splitlines() if line.strip()), "it said nothing")
        raise ValueError(
            f"npm could not fetch the packages ({said.strip()[:200]}); go online, or use --packages"
        )
    return find(folder, versions)


def version(package: Path) -> str:
    """The version that a package says it is."""
    return str(read_json(package / "package.json").get("version", "unknown"))


def read_json(path: Path, kind: type = dict) -> Any:
    """A file of a package as an object (or, by `kind`, a list). ValueError when it is not."""
    try:
        if path.stat().st_size > _JSON_BYTES:
            raise ValueError(f"{path} has over {_JSON_BYTES:,} bytes; install its package again")
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read ({error}); install its package again") from error
    if not isinstance(value, kind):
        raise ValueError(f"{path} is not a JSON {kind.__name__}; install its package again")
    return value
