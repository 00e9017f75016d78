"""Reads torch's files (.pt, .pth, .ckpt, .bin) safely: tensors come out, and nothing inside is ever run."""

import pickle
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

SUFFIXES = (".pt", ".pth", ".ckpt", ".bin")


def is_torch_file(path: Path) -> bool:
    """Whether a file is torch's (a zip archive or a pickle), or calls itself so."""
    if path.suffix in SUFFIXES:
        return True
    with open(path, "rb") as file:
        return file.read(4).startswith((b"PK\x03\x04", b"\x80\x02"))


def read_state(path: Path) -> dict[str, Tensor]:
    """The weights of a file by key, memory-mapped where its format allows; nothing inside is run.

    Of a training checkpoint of DDIM's code, a list, the averaged weights if it has them; of Lightning's what
    is under "state_dict". ValueError for a file that is damaged, that holds code, or that holds other things
    than weights.
    """
    content = read_content(path)
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        return _of_lightning(content, path)
    state = _of_checkpoint(content) if isinstance(content, list) else content
    if not isinstance(state, dict) or not state:
        raise ValueError(f"{path} holds no weights; name a published file, or one that unnoise wrote")
    for key, value in state.items():
        if not isinstance(key, str) or not isinstance(value, Tensor) or not value.is_floating_point():
            raise ValueError(
                f"{path} holds more than weights ({str(key)[:60]!r}); name a file of plain weights, such as "
                "ema_0.9999_500000.pt or 256x256_diffusion.pt"
            )
    return state


class Inert:
    """Stands for a class of Lightning that checkpoints name and nothing here needs: it does nothing."""


LIGHTNING = ("pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",)
"""Named as a key beside the weights of CompVis's files."""


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The tensors under "state_dict" of a Lightning checkpoint, memory-mapped; nothing inside is run.

    ValueError for a file that is damaged, that holds code, or that has no such tensors.
    """
    return _of_lightning(read_content(path), path)


def _of_lightning(content: Any, path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint, whole numbers among them."""
    state = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not state:
        raise ValueError(f"{path} holds no weights; name a published file, or one that unnoise wrote")
    for key, value in state.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise ValueError(
                f"{path} holds more than weights ({str(key)[:60]!r}); name a checkpoint with a state_dict"
            )
    return state


def _of_checkpoint(content: list[Any]) -> Any:
    """The weights of [network, optimiser, epoch, step], or of [network, optimiser, epoch, step, average]."""
    state = content[0 if len(content) == 4 else -1] if len(content) in (4, 5) else None
    if not isinstance(state, dict):
        return None
    return {str(key).removeprefix("module."): value for key, value in state.items()}  # of nn.DataParallel


def read_content(path: Path) -> Any:
    """What torch reads under the rule that nothing is run. ValueError, in our words, for what it refuses."""
    archive = zipfile.is_zipfile(path)
    if not archive and _starts_like_zip(path):
        raise ValueError(f"{path} is cut short or damaged; download or copy it again")
    if archive and not _holds_weights(path):
        raise ValueError(f"{path} is a zip without torch's weights; unpack it, or name another file")
    # Names that may stand in the file, each for a class that does nothing.
    inert = torch.serialization.safe_globals([(Inert, name) for name in LIGHTNING])
    try:
        with warnings.catch_warnings(), inert:
            warnings.simplefilter("ignore")  # of pickle protocols, which the reader below judges itself
            return torch.load(path, map_location="cpu", weights_only=True, mmap=archive or None)
    except OSError:
        raise
    except pickle.UnpicklingError as error:
        raise ValueError(f"{path} {_why_unread(str(error))}") from None
    except Exception:  # damage shows in many ways: every one is the same to the user
        raise ValueError(f"{path} is cut short or damaged; download or copy it again") from None


def _holds_weights(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as file:
            return any(name.endswith("/data.pkl") for name in file.namelist())
    except zipfile.BadZipFile:  # torch says what is wrong
        return True


def _starts_like_zip(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(2) == b"PK"


def _why_unread(message: str) -> str:
    """torch's refusal in one line."""
    found = re.search(r"GLOBAL ([\w.]+)", message) or re.search(r"global ([\w.]+)", message)
    if found:
        name = found[1].rstrip(".")
        return f"holds code besides weights ({name}); it was refused and nothing in it was run"
    return (
        "is damaged or holds more than weights, so it was refused and nothing in it was run; "
        "download or copy it again"
    )
