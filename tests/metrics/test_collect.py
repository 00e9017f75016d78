"""Features are streamed, shared among processes, and survive a kill."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.metrics.double import Double
from tests.metrics.elsewhere import SHARD
from unnoise.config.requests import EvaluateRequest
from unnoise.metrics import own_neighbours
from unnoise.metrics.collect import Shards, collect
from unnoise.metrics.evaluate import evaluate
from unnoise.metrics.extractors import EXTRACTORS
from unnoise.metrics.sources import Pictures

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}"}
ELSEWHERE = [sys.executable, "-m", "tests.metrics.elsewhere"]


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.setattr("unnoise.metrics.collect.SHARD", SHARD)
    rng = np.random.default_rng(0)
    for name, n in (("real", 70), ("fake", 60)):
        np.savez(tmp_path / f"{name}.npz", arr_0=rng.integers(0, 256, (n, 8, 8, 3), dtype=np.uint8))
    return tmp_path


def measured(data, network, monkeypatch, cache):
    monkeypatch.setitem(EXTRACTORS, "double", lambda weights=None, device="cpu": network)
    names = {"samples": str(data / "fake.npz"), "against": str(data / "real.npz")}
    request = EvaluateRequest(**names, features="double", cache=str(data / cache), device="cpu", bootstrap=5)
    return evaluate(request)


def values(metrics):
    return {m.name: (m.value, m.floor, m.infinite) for m in metrics}


def test_a_killed_evaluation_continues(data, monkeypatch):
    command = [*ELSEWHERE, "stop", "fake.npz", "--against", "real.npz", "--cache", "cache"]
    process = subprocess.Popen(command, cwd=data, env=ENVIRONMENT)
    try:
        wanted = time.monotonic() + 60
        while len(list((data / "cache").rglob("features/*/*.safetensors"))) < 2:
            assert process.poll() is None and time.monotonic() < wanted
            time.sleep(0.05)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    rest, whole = Double(), Double()
    continued = measured(data, rest, monkeypatch, "cache")
    assert (rest.calls, whole.calls) == (130 - 2 * SHARD, 0)
    assert values(continued.metrics) == values(measured(data, whole, monkeypatch, "another").metrics)
    assert whole.calls == 130


def test_two_processes_share_the_pictures(data, monkeypatch):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    arguments = ["-m", "tests.metrics.elsewhere", "together", str(data), "fake.npz", "real.npz"]
    done = subprocess.run(
        [*command, *arguments], cwd=data, env=ENVIRONMENT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = [json.loads((data / f"{rank}.json").read_text()) for rank in range(2)]
    # 5 shards of real pictures, 4 of samples; the last of each is not full.
    assert [f["calls"] for f in found] == [4 * SHARD, 2 * SHARD + 6 + SHARD + 12]
    assert [f["codes"] for f in found] == [[0, 2], [0, 2]]
    assert done.stderr.count("NaN or infinite") == 1 and "process 1 was refused" in done.stderr
    assert done.stdout.count("FD[double]") == 2  # FD and sFD, said once
    together = json.loads((data / "out" / "evaluation.json").read_text())["metrics"]
    alone = values(measured(data, Double(), monkeypatch, "another").metrics)
    for metric in together:
        numbers = (metric["value"], metric["floor"], metric["infinite"])
        for number, wanted in zip(numbers, alone[metric["name"]], strict=True):
            assert number == (wanted if wanted is None else pytest.approx(wanted, rel=1e-6)), metric["name"]


def test_pictures_are_not_kept(tmp_path):
    """800 pictures of 256x256 are 157 MB."""
    command = [*ELSEWHERE, "memory", "800"]
    grown = subprocess.check_output(command, cwd=tmp_path, env=ENVIRONMENT, text=True)
    assert int(grown) < 80


def test_a_damaged_shard_is_made_again_and_a_lost_one_is_said(data, monkeypatch):
    first = measured(data, Double(), monkeypatch, "cache")
    path = sorted((data / "cache").rglob("features/*/*.safetensors"))[0]
    path.write_bytes(path.read_bytes()[:100])
    again = Double()
    assert values(measured(data, again, monkeypatch, "cache").metrics) == values(first.metrics)
    assert 0 < again.calls <= SHARD
    table = Shards(path.parent, 16).table("the pictures")
    path.unlink()
    with pytest.raises(ValueError, match=r"features of the pictures, cannot be read .* --cache"):
        table.load("pool")


@pytest.mark.parametrize(
    "harm",
    [
        lambda shard: {"flat": shard["flat"]},
        lambda shard: {key: value[:5] if value.ndim else value for key, value in shard.items()},
        lambda shard: {key: value for key, value in shard.items() if key != "flat"},
        lambda shard: {**shard, "pool": shard["pool"] * torch.nan},
        lambda shard: {**shard, "pool": shard["pool"][:, :3]},
        lambda shard: {"flat": shard["flat"], "neighbours": shard["pool"]},
    ],
    ids=["empty", "short", "without a word of flatness", "nan", "of another network", "something else"],
)
def test_a_shard_that_holds_something_else_is_computed_again(data, monkeypatch, harm):
    """The second: which columns there are is the first one's word."""
    first = measured(data, Double(), monkeypatch, "cache")
    path = sorted((data / "cache").rglob("features/*/*.safetensors"))[1]
    save_file({key: value.contiguous() for key, value in harm(load_file(path)).items()}, path)
    again = Double()
    assert values(measured(data, again, monkeypatch, "cache").metrics) == values(first.metrics)
    assert again.calls == SHARD


def test_shards_of_two_networks_are_said(data, monkeypatch):
    measured(data, Double(), monkeypatch, "cache")
    path = sorted((data / "cache").rglob("features/*/*.safetensors"))[0]
    save_file({**load_file(path), "pool": torch.ones(SHARD, 3)}, path)
    with pytest.raises(ValueError, match="features of another network too; delete it"):
        measured(data, Double(), monkeypatch, "cache")


def test_more_pictures_continue_fewer(data, monkeypatch):
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)
    network = Double()
    for n in (32, 40):
        pictures = Pictures("some", n, (8, 8, 3), "some", lambda ids: torch.from_numpy(pixels[list(ids)]))
        found = collect(pictures, network, cache=str(data / "cache"))
        assert found.table.load("pool").shape == (n, 12)
    assert network.calls == 40


@pytest.mark.parametrize("harm", [None, b"", b"garbage"], ids=["whole", "empty", "damaged"])
def test_distances_among_real_pictures_are_worked_out_once(data, monkeypatch, harm):
    searched, search = [], own_neighbours.neighbour_distances

    def full(*_):
        raise OSError("read-only")

    def counting(x, k, **options):
        searched.append(len(x))
        return search(x, k, **options)

    monkeypatch.setattr(own_neighbours, "neighbour_distances", counting)
    first = measured(data, Double(), monkeypatch, "cache")
    assert searched == [70], "one search serves precision, density and near-copies"
    (kept,) = (data / "cache").rglob("neighbours-70-5.safetensors")
    if harm is not None:
        kept.write_bytes(harm)
    again = measured(data, Double(), monkeypatch, "cache")
    assert searched == [70] * (1 if harm is None else 2)
    monkeypatch.setattr(own_neighbours, "keep", full)
    aside = measured(data, Double(), monkeypatch, "elsewhere")  # from the features, not from the file
    for other in (again, aside):
        for one, two in zip(first.metrics, other.metrics, strict=True):
            assert two.name == one.name
            assert (two.value, two.floor) == (pytest.approx(one.value), pytest.approx(one.floor))
        assert other.nearest == first.nearest
