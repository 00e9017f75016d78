"""Reads the recorded numbers of the originals; the manifests alone decide what is called (golden/README.md).

`UNNOISE_GOLDEN` names another directory of cases in the same form; without it, `tests/golden` is read.
"""

import functools
import hashlib
import json
import os
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

OWN = Path(__file__).parent / "golden"
DEFERRED: dict[str, list[str]] = {}
"""Reason -> ids of the cases that a predicate put off; printed at the end of the run by conftest.py."""
COUNTED: dict[str, int] = {}
"""Group -> cases that run."""


def directory() -> Path:
    return Path(os.environ.get("UNNOISE_GOLDEN") or OWN)


@functools.cache
def manifest(group: str) -> dict[str, Any]:
    return json.loads((directory() / f"{group}.json").read_text())


@functools.cache
def arrays(group: str) -> Any:
    return np.load(directory() / f"{group}.npz", allow_pickle=False)


def recipe_tensor(key: str, shape: list[int], seed: int, embedding_keys: tuple[str, ...]) -> np.ndarray:
    """The recipe "keyed-normal-v1" of golden/README.md."""
    z = np.random.Generator(np.random.PCG64([seed, zlib.crc32(key.encode())])).standard_normal(
        tuple(shape), dtype=np.float32
    )
    if len(shape) == 1:
        return np.float32(1) + np.float32(0.1) * z if key.endswith(".weight") else np.float32(0.1) * z
    if key in embedding_keys:
        return np.float32(0.5) * z
    return z * np.float32(1 / np.sqrt(int(np.prod(shape[1:]))))


def recipe_state_dict(
    shapes: dict[str, list[int]], seed: int, embedding_keys: list[str] | tuple[str, ...] = ()
) -> dict[str, torch.Tensor]:
    keys = tuple(embedding_keys)
    return {k: torch.from_numpy(recipe_tensor(k, s, seed, keys)) for k, s in shapes.items()}


def state_dict_sha256(state: dict[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for key in sorted(state):
        digest.update(key.encode())
        digest.update(state[key].numpy().astype("<f4").tobytes())
    return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class Case:
    """One recorded call: `spec` is its manifest entry, arrays are read on demand."""

    group: str
    spec: dict[str, Any]

    @property
    def id(self) -> str:
        return self.spec["id"]

    def array(self, entry: Any) -> np.ndarray:
        """The array of a manifest entry such as `spec["inputs"]["x"]`, or of a full array name."""
        name = entry if isinstance(entry, str) else entry["array"]
        return arrays(self.group)[name]

    def input(self, name: str) -> torch.Tensor:
        return torch.from_numpy(np.asarray(self.array(self.spec["inputs"][name])))

    def has_input(self, name: str) -> bool:
        return name in self.spec["inputs"]

    def output(self, name: str) -> torch.Tensor:
        return torch.from_numpy(np.asarray(self.array(self.spec["outputs"][name])))

    @property
    def outputs(self) -> dict[str, torch.Tensor]:
        return {name: self.output(name) for name in self.spec["outputs"]}

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The case's weights, from its file or by the recipe, checked against the recorded hash."""
        if "state_dict_file" in self.spec:
            state = load_file(directory() / self.spec["state_dict_file"])
        else:
            state = recipe_state_dict(
                self.spec["state_dict_shapes"], self.spec["seed"], self.spec.get("embedding_keys", ())
            )
        if "state_dict_sha256" in self.spec:
            assert state_dict_sha256(state) == self.spec["state_dict_sha256"], self.id
        return state


def golden(
    group: str,
    *,
    only: Callable[[dict[str, Any]], bool] = lambda spec: True,
    defer: dict[str, Callable[[dict[str, Any]], bool]] | None = None,
) -> Callable[[Any], Any]:
    """Parametrise a test over every case of a group.

    `only` splits a group among several tests (their predicates must cover it);
    `defer` maps a reason, naming the later step, to a predicate on manifest fields.
    """
    path = directory() / f"{group}.json"
    if not path.exists() and directory() != OWN:
        return pytest.mark.skip(reason=f"{group} is not in {directory()}")
    chosen = []
    for spec in manifest(group)["cases"]:
        if not only(spec):
            continue
        reason = next((r for r, predicate in (defer or {}).items() if predicate(spec)), None)
        if reason:
            ids = DEFERRED.setdefault(reason, [])
            if f"{group}/{spec['id']}" not in ids:
                ids.append(f"{group}/{spec['id']}")
            continue
        chosen.append(Case(group, spec))
        COUNTED[group] = COUNTED.get(group, 0) + 1

    def decorate(test: Any) -> Any:
        return pytest.mark.golden(pytest.mark.parametrize("case", chosen, ids=[c.id for c in chosen])(test))

    return decorate


def assert_close(actual: Any, expected: Any, tolerance: float = 1e-5, what: str = "") -> None:
    """max |a - b| <= tolerance * max(1, max |b|), the rule of the manifests."""
    a, b = torch.as_tensor(actual).double(), torch.as_tensor(expected).double()
    assert a.shape == b.shape, f"{what}: shape {tuple(a.shape)}, recorded {tuple(b.shape)}"
    assert torch.isfinite(a).all() or not torch.isfinite(b).all(), f"{what}: not finite"
    error = (a - b).abs().max().item() if a.numel() else 0.0
    bound = tolerance * max(1.0, b.abs().max().item() if b.numel() else 0.0)
    assert error <= bound, f"{what}: off by {error:.3g}, allowed {bound:.3g}"
