"""A place to run studies in: a tiny model, real pictures, and a quick feature network."""

import sys

import numpy as np
import pytest

from tests.metrics.double import double  # noqa: F401
from tests.models import tiny_model
from unnoise.cli import main
from unnoise.model import save_model

FAST = ["--features", "double", "--device", "cpu"]


@pytest.fixture
def place(tmp_path, monkeypatch, double):  # noqa: F811
    rng = np.random.default_rng(0)
    for name, n, channels in (("real", 80, 1), ("biggan", 30, 1), ("rgb", 30, 3)):
        pixels = rng.integers(0, 256, (n, 8, 8, channels), dtype=np.uint8)
        np.savez(tmp_path / f"{name}.npz", arr_0=pixels)
    save_model(tmp_path / "run" / "model.safetensors", tiny_model())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def unnoise(monkeypatch, capsys, place):
    """Run the program in this process -> (exit status, stdout, stderr)."""

    def run(*args):
        monkeypatch.setattr(sys, "argv", ["unnoise", *map(str, args)])
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
        return code, *capsys.readouterr()

    return run
