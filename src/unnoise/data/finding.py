"""What a DataConfig's `source` names: a built-in, a hub data set, a folder, or a file told by its content."""

import difflib
import os
import zipfile
from dataclasses import replace
from pathlib import Path

from unnoise.config.schema import DataConfig
from unnoise.data import idx, sampled
from unnoise.data.archive import open_zip, opened_zip
from unnoise.data.build import Progress
from unnoise.data.builtin import BUILTINS
from unnoise.data.folder import open_folder
from unnoise.data.hub import HubRequest, open_hub, parse
from unnoise.data.npz import open_npz
from unnoise.data.source import Source


def find_source(config: DataConfig, on_progress: Progress | None = None) -> Source:
    """The source that `config.source` names, nothing decoded. ValueError, with the way out, when there is
    none.
    """
    if not config.source:
        raise ValueError(f"no data named; name {_choices()}")
    if config.source.startswith("hf:"):
        name, split = parse(config.source)
        if config.label_field:
            raise ValueError(f"data.label_field={config.label_field} needs a folder or zip; leave it out")
        request = HubRequest(
            name=name, split=split, limit=config.hub_limit, labels=config.labels, cache=config.cache
        )
        return open_hub(request, on_progress)
    name, _, split = config.source.partition(":")
    if name in BUILTINS:  # whatever lies in the working folder: a setting must mean the same everywhere
        return _own_labels(BUILTINS[name](split or "train", config), config)
    path, part = _reached(config.source)
    if path.is_dir():
        images = idx.find(path, part or "train")
        if images is not None:
            return _own_labels(idx.open_idx(images), config)
        pictures = sampled.numbered(path)
        if pictures and part is None:
            own = sampled.open_sampled(path, pictures, labelled=config.labels != "none")
            return _own_labels(own, config)
        if part is not None:
            raise ValueError(f"{path} holds no idx files of the split {part!r}; name it without :{part}")
        return open_folder(path, config.labels, config.label_field)
    return _open_file(path, config)


def check_source(source: str) -> None:
    """Refuse a source whose folder or file is not there, and nothing else."""
    if not source.startswith("hf:") and source.partition(":")[0] not in BUILTINS:
        _reached(source)


def _reached(source: str) -> tuple[Path, str | None]:
    """The folder or file that a source names, which is there, and a split behind it."""
    path, part = _split_of(Path(source).expanduser())
    try:
        path.stat()
    except FileNotFoundError as error:
        raise ValueError(_unknown(source)) from error
    except OSError as error:
        raise ValueError(
            f"{path} cannot be reached ({error.strerror}); check its name and permissions"
        ) from error
    return path, part


def folder_of(source: str) -> Path | None:
    """The folder that `source` names; None for anything else."""
    path = Path(source).expanduser()
    named = source and not source.startswith("hf:") and source.partition(":")[0] not in BUILTINS
    return path if named and path.is_dir() else None


def _open_file(path: Path, config: DataConfig) -> Source:
    """A zip, npz or idx file, told by its first bytes."""
    if not path.is_file():
        raise ValueError(f"{path} is neither a file nor a folder; name {_choices()}")
    try:
        with open(path, "rb"):
            pass
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}); change its permissions") from error
    if zipfile.is_zipfile(path):
        with opened_zip(path) as file:
            arrays = path.suffix == ".npz" or "arr_0.npy" in file.namelist()
        return (
            _own_labels(open_npz(path, labelled=config.labels != "none"), config)
            if arrays
            else open_zip(path, config.labels, config.label_field)
        )
    if idx.is_idx(path):
        return _own_labels(idx.open_idx(path), config)
    kind = "damaged, or not a zip" if path.suffix in (".zip", ".npz") else "not a zip, npz or idx file"
    raise ValueError(f"{path} is {kind}; name {_choices()}")


def _split_of(path: Path) -> tuple[Path, str | None]:
    """A folder of idx files may be followed by the split: FOLDER:test."""
    stem, _, split = str(path).rpartition(":")
    if split in idx.SPLITS and stem and not path.exists():
        return Path(stem), split
    return path, None


def _own_labels(source: Source, config: DataConfig) -> Source:
    """Leaves labels out if asked to; refuses settings that only a folder or zip can meet."""
    if config.label_field:
        raise ValueError(
            f"data.label_field={config.label_field} needs a folder or zip with metadata; {source.name} has "
            "labels of its own: leave it out"
        )
    if config.labels == "none":
        return replace(source, labels=None, classes=())
    if config.labels in ("folder", "metadata"):
        raise ValueError(
            f"data.labels={config.labels} needs a folder or zip of pictures; {source.name} has its own: "
            "use auto or none"
        )
    return source


def _choices() -> str:
    return f"a folder, .zip, .npz, idx file, hf:NAME, or one of {', '.join(sorted(BUILTINS))}"


def _unknown(source: str) -> str:
    near = difflib.get_close_matches(source.partition(":")[0], list(BUILTINS), n=1, cutoff=0.5)
    if near and "/" not in source and os.sep not in source:
        return f"{source} is neither a file nor a built-in; did you mean {near[0]}? Or name {_choices()}"
    return f"{source} does not exist; name {_choices()}"
