"""The processes of one run, as torchrun starts them: the one file that names torch.distributed.

Without torchrun there is one process, no group, and every function here is the identity.
"""

import contextlib
import json
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

# The first process alone draws sample grids and writes checkpoints; the others wait for it this long.
PATIENCE = timedelta(hours=2)


def choose_device(name: str = "auto") -> torch.device:
    """The device that a setting means: cuda, else mps, else cpu for "auto".

    Under torchrun, process LOCAL_RANK takes the visible GPU of that number. ValueError when there is none.
    """
    if name == "auto":
        mps = torch.backends.mps.is_available()
        name = "cuda" if torch.cuda.is_available() else "mps" if mps else "cpu"
    kind, _, number = name.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (number and not number.isdigit()):
        raise ValueError(f"device={name} is not known; use auto, cpu, cuda, cuda:N or mps")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise ValueError("device=mps is not available on this machine; use cpu or auto")
    if kind != "cuda":
        return torch.device(kind)
    visible = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not visible:
        raise ValueError("device=cuda: torch sees no CUDA device here; use cpu or auto")
    index = int(number) if number else int(os.environ.get("LOCAL_RANK", 0))
    if index >= visible:
        raise ValueError(
            f"device={name}: GPU {index} is wanted and {visible} visible; "
            "start at most one process a GPU, or set CUDA_VISIBLE_DEVICES"
        )
    return torch.device("cuda", index)


@contextlib.contextmanager
def processes(device: str = "auto") -> Iterator[torch.device]:
    """Device of this process, with the group that torchrun's environment describes open meanwhile."""
    chosen = choose_device(device)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    opened = int(os.environ.get("WORLD_SIZE", 1)) > 1 and not dist.is_initialized()
    if opened:
        dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield chosen
    finally:
        if opened:
            dist.destroy_process_group()


def _grouped() -> bool:
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """Number of this process in the group, from 0."""
    return dist.get_rank() if _grouped() else 0


def world() -> int:
    """Number of processes in the group."""
    return dist.get_world_size() if _grouped() else 1


def is_first() -> bool:
    """Whether this is the first of the processes that torchrun started, also while no group is open."""
    return int(os.environ.get("RANK", 0)) == 0


def is_main() -> bool:
    """Whether this is the process that writes files and speaks."""
    return rank() == 0


def barrier() -> None:
    """Wait until every process is here."""
    if _grouped():
        dist.barrier()


def share(count: int) -> range:
    """Our part of the positions 0..count-1: contiguous, in rank order, sizes differing by at most one."""
    n, r = world(), rank()
    return range(count * r // n, count * (r + 1) // n)


def gather(local: Tensor, count: int) -> Tensor:
    """The parts of all processes joined along the last axis, in rank order: the same tensor everywhere.

    local: (..., len(share(count))); returns (..., count) on the same device.
    """
    if not _grouped():
        return local
    n = world()
    sizes = [count * (r + 1) // n - count * r // n for r in range(n)]
    # gloo and nccl want equal parts.
    padded = torch.zeros(*local.shape[:-1], max(sizes), dtype=local.dtype, device=local.device)
    padded[..., : local.shape[-1]] = local
    parts = [torch.empty_like(padded) for _ in range(n)]
    dist.all_gather(parts, padded)
    return torch.cat([part[..., :size] for part, size in zip(parts, sizes, strict=True)], dim=-1)


def everyone(value: Tensor) -> Tensor:
    """The tensors of all processes, equal in shape, stacked in rank order: (world, ...), on the CPU."""
    if not _grouped():
        return value[None]
    place = torch.device("cuda") if dist.get_backend() == "nccl" else torch.device("cpu")
    mine = value.to(place).contiguous()
    parts = [torch.empty_like(mine) for _ in range(world())]
    dist.all_gather(parts, mine)
    return torch.stack(parts).cpu()


def add_up(tensors: Sequence[Tensor]) -> None:
    """Replace each tensor by the sum of all processes' tensors in its place."""
    if _grouped():
        for tensor in tensors:
            dist.all_reduce(tensor, op=dist.ReduceOp.SUM)


@contextlib.contextmanager
def agreeing() -> Iterator[None]:
    """All processes leave together: where one is refused, those that were not are refused as well."""
    refused: ValueError | None = None
    try:
        yield
    except ValueError as error:
        refused = error
    told = everyone(torch.tensor(refused is not None))
    if refused is not None:
        raise refused
    if told.any():
        raise ValueError(f"process {int(told.int().argmax())} was refused; its own line says why")


def largest(value: float, device: torch.device) -> float:
    """The largest of all processes' values."""
    if not _grouped():
        return value
    shared = torch.tensor(
        value, dtype=torch.float32 if device.type == "mps" else torch.float64, device=device
    )
    dist.all_reduce(shared, op=dist.ReduceOp.MAX)
    return shared.item()


def on_main(function: Callable[[], Any], device: torch.device) -> Any:
    """The result of a function that the first process alone calls; its ValueError or OSError reaches all.

    The result is plain data (JSON).
    """
    if not _grouped():
        return function()
    answer, error = {}, None
    if is_main():
        try:
            answer = {"result": function()}
        except (ValueError, OSError) as raised:
            error = raised
            answer = {"refused" if isinstance(raised, ValueError) else "failed": str(raised)}
    answer = _broadcast(answer, device)
    if error is not None:
        raise error
    if "refused" in answer:
        raise ValueError(answer["refused"])
    if "failed" in answer:
        raise OSError(answer["failed"])
    return answer["result"]


def _broadcast(value: Any, device: torch.device) -> Any:
    content = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8).to(device)
    size = torch.tensor(len(content), device=device)
    dist.broadcast(size, 0)
    if not is_main():
        content = torch.empty(int(size), dtype=torch.uint8, device=device)
    dist.broadcast(content, 0)
    return json.loads(bytes(content.cpu().tolist()))


def wrap(network: nn.Module) -> nn.Module:
    """The network with gradients averaged over processes by its backward pass; itself when alone."""
    if not _grouped():
        return network
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*broadcast_buffers.*")  # a renaming in later versions
        return DistributedDataParallel(network, broadcast_buffers=False, gradient_as_bucket_view=True)


def apart(network: nn.Module) -> contextlib.AbstractContextManager[None]:
    """Passes inside leave their gradients local, for all micro-batches but the last."""
    if isinstance(network, DistributedDataParallel):
        return network.no_sync()
    return contextlib.nullcontext()
