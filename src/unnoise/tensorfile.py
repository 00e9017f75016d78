"""Writing safetensors files tensor by tensor: no second copy of the weights in memory.

The format (github.com/huggingface/safetensors): the length of the header in 8 bytes, little-endian; the
header, JSON; the bytes of the tensors, one behind the other.
"""

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from unnoise.images import written_aside

NAMES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8",
    torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip


def write_tensors(
    path: Path,
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str],
    *,
    dtype: torch.dtype | None = None,
) -> None:
    """Write a safetensors file, atomically, holding one tensor's copy at most besides `tensors`.

    Floating-point tensors are stored as `dtype`; None keeps their types.
    """
    types = {key: _stored(value, dtype) for key, value in tensors.items()}
    # The widest types first, so that every tensor starts at a multiple of its own.
    keys = sorted(tensors, key=lambda key: (-types[key].itemsize, key))
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    start = 0
    for key in keys:
        value = tensors[key]
        end = start + value.numel() * types[key].itemsize
        header[key] = {
            "dtype": NAMES[types[key]],
            "shape": list(value.shape),
            "data_offsets": [start, end],
        }
        start = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with flushed_aside(path) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for key in keys:
            value = tensors[key].detach().to("cpu", types[key]).contiguous()
            file.write(value.reshape(-1).view(torch.uint8).numpy().data)


def _stored(value: Tensor, dtype: torch.dtype | None) -> torch.dtype:
    return dtype if dtype is not None and value.is_floating_point() else value.dtype


@contextlib.contextmanager
def flushed_aside(path: Path) -> Iterator[BinaryIO]:
    """A file that takes the place of `path` once whole and on the disk: readers never see a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_aside(path) as aside, open(aside, "wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
