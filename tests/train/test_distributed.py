"""Two processes under torchrun do what one does; a run may change their number when it continues."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.train.tiny import tiny_config, tiny_run
from tests.train.two_processes import classify, play, rebuild, record
from unnoise import distributed
from unnoise.model import load_model
from unnoise.train import checkpoint
from unnoise.train.report import read_log

ROOT = Path(__file__).parents[2]
# Dropout masks belong to a process and would differ. The large epsilon keeps Adam from blowing rounding up.
SETTINGS: dict[str, Any] = {
    "model": {"network": {"dropout": 0.0}},
    "optimizer": {"eps": 1e-3, "decay": "none"},
    "batch_size": 7,
    "micro_batch": 2,
    "steps": 8,
    "sample_every": 8,
    "evaluate": {"every": 8, "n": 10, "features": "unnoise-small", "steps": "2", "keep_best": True},
}


def torchrun(*arguments: str, processes: int = 2) -> subprocess.CompletedProcess[str]:
    command = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "--no-python"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}"}
    return subprocess.run(
        [sys.executable, *command, sys.executable, *arguments],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """KIND-one/ by one process, KIND-two/ by two; what the first of each drew beside one/ and two/."""
    folder = tmp_path_factory.mktemp("runs")
    kinds = ("noisy", "gan", "kl", "vq")
    paths = [str(folder / f"{kind}-two") for kind in kinds]
    done = torchrun(
        "-m", "tests.train.two_processes", str(folder / "two"), json.dumps(SETTINGS), *paths
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    record(folder / "one", SETTINGS)
    classify(folder / "noisy-one")
    play(folder / "gan-one")
    for kind in ("kl", "vq"):
        rebuild(kind, folder / f"{kind}-one")
    return folder


def test_the_global_batch_is_the_same_to_the_bit(runs: Path) -> None:
    whole = load_file(runs / "one-rank0.safetensors")
    parts = [load_file(runs / f"two-rank{rank}.safetensors") for rank in range(2)]
    assert len(parts[0]["u.0"]) == 3 and len(parts[1]["u.0"]) == 4
    for key, value in whole.items():
        if key == "times":
            # Every process learns of all times in the order of the batch.
            assert all(torch.equal(part[key], value) for part in parts)
        else:
            assert torch.equal(torch.cat([part[key] for part in parts]), value), key
    assert whole["times"].shape == (2 + 8, 7)  # two to measure, and the run's


def test_the_weights_are_the_same_to_rounding(runs: Path) -> None:
    newest = [checkpoint.newest(runs / name / "checkpoints") for name in ("one", "two")]
    one, two = (checkpoint.load(path) for path in newest if path is not None)
    assert one.step == two.step == 8 and one.tensors.keys() == two.tensors.keys()
    for name in ("network", "ema-0.9"):
        for key, value in one.tensors[name].items():
            assert torch.allclose(two.tensors[name][key], value, rtol=1e-3, atol=2e-6), (name, key)
    seen = [snapshot.tensors["job"]["seen"] for snapshot in (one, two)]
    assert torch.equal(*seen)
    logs = [(runs / name / "metrics.jsonl").read_text().splitlines() for name in ("one", "two")]
    for line, other in zip(*logs, strict=True):
        a, b = json.loads(line), json.loads(other)
        assert a.keys() == b.keys()
        if "loss" in a:
            assert a["loss"] == pytest.approx(b["loss"], rel=1e-5)
    # The first process alone evaluates, as the last thing of the last step.
    assert all("evaluation/KID[unnoise-small]" in json.loads(lines[-1]) for lines in logs)
    assert all(load_model(runs / name / "best.safetensors").info.step == 8 for name in ("one", "two"))


def test_a_noisy_classifier_is_the_same_to_rounding(runs: Path) -> None:
    one, two = (load_file(runs / name / "model.safetensors") for name in ("noisy-one", "noisy-two"))
    for key, value in one.items():
        assert torch.allclose(two[key], value, rtol=1e-3, atol=2e-6), key
    logs = [(runs / name / "metrics.jsonl").read_text().splitlines() for name in ("noisy-one", "noisy-two")]
    for line, other in zip(*map(reversed, logs), strict=True):
        a, b = json.loads(line), json.loads(other)
        names = [name for name in a if name.startswith(("loss", "accuracy", "validation/loss"))]
        assert names and a.keys() == b.keys()
        assert [a[name] for name in names] == pytest.approx([b[name] for name in names], rel=1e-4)


def test_both_players_of_a_gan_are_the_same_to_rounding(runs: Path) -> None:
    newest = [checkpoint.newest(runs / name / "checkpoints") for name in ("gan-one", "gan-two")]
    one, two = (checkpoint.load(path) for path in newest if path is not None)
    assert one.step == two.step == 4
    for part in ("network", "job", "ema-0.9"):
        assert one.tensors[part].keys() == two.tensors[part].keys()
        for key, value in one.tensors[part].items():
            assert torch.allclose(two.tensors[part][key], value, rtol=2e-3, atol=1e-4), (part, key)


@pytest.mark.parametrize("kind", ["kl", "vq"])
def test_a_first_stage_and_its_adversary_are_the_same_to_rounding(runs: Path, kind: str) -> None:
    newest = [checkpoint.newest(runs / f"{kind}-{name}" / "checkpoints") for name in ("one", "two")]
    one, two = (checkpoint.load(path) for path in newest if path is not None)
    assert one.step == two.step == 6
    for part in ("network", "job", "ema-0.9"):
        assert one.tensors[part].keys() == two.tensors[part].keys()
        for key, value in one.tensors[part].items():
            if "running_" in key or "num_batches" in key:
                continue  # of the norms of a discriminator, which always goes by its batch
            assert torch.allclose(two.tensors[part][key], value, rtol=2e-3, atol=1e-4), (part, key)
    logs = [read_log(runs / f"{kind}-{name}") for name in ("one", "two")]
    for a, b in zip(*logs, strict=True):
        names = [name for name in a if name not in ("seconds", "images_per_second", "memory")]
        assert a.keys() == b.keys()
        assert [a[name] for name in names] == pytest.approx([b[name] for name in names], rel=2e-3, abs=1e-4)
    last = [line for line in logs[1] if "adversary/margin" in line][-1]
    assert last["adversary/margin"] and last["adversary/weight"] and last["step"] == 6
    assert ("codebook/usage" in last) == (kind == "vq")


def test_one_process_continues_what_two_began(runs: Path) -> None:
    longer = tiny_config(**SETTINGS | {"steps": 12})
    results = [tiny_run(runs / name, longer)[0] for name in ("one", "two")]
    assert [r.steps for r in results] == [12, 12]
    one, two = (load_file(runs / name / "model.safetensors") for name in ("one", "two"))
    assert all(torch.allclose(two[key], one[key], rtol=1e-3, atol=2e-6) for key in one)


def test_a_refusal_reaches_every_process(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("format: 99\n")
    done = torchrun("-m", "tests.train.two_processes", str(tmp_path / "run"), json.dumps(SETTINGS))
    assert done.returncode != 0
    assert done.stderr.count("ValueError: ") >= 2 and "written by a newer unnoise" in done.stderr


def test_more_processes_than_pictures_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(distributed, "world", lambda: 9)
    with pytest.raises(ValueError, match="batch_size=8 leaves some of the 9 processes without a picture"):
        tiny_run(tmp_path)


@pytest.mark.parametrize("count, processes", [(7, 2), (8, 3), (5, 5)])
def test_shares_cover_the_batch(monkeypatch: pytest.MonkeyPatch, count: int, processes: int) -> None:
    monkeypatch.setattr(distributed, "world", lambda: processes)
    positions = []
    for rank in range(processes):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        positions.extend(distributed.share(count))
        assert len(distributed.share(count)) in (count // processes, -(-count // processes))
    assert positions == list(range(count))


def test_alone_everything_is_the_identity() -> None:
    network, rows = torch.nn.Linear(2, 2), torch.rand(2, 3)
    assert distributed.wrap(network) is network and distributed.gather(rows, 3) is rows
    assert distributed.is_main() and distributed.world() == 1
    assert distributed.on_main(lambda: {"a": 1}, torch.device("cpu")) == {"a": 1}
    assert distributed.largest(2.5, torch.device("cpu")) == 2.5


def test_devices_are_refused_by_name() -> None:
    for name in ("gpu", "cuda:x", "cpu:0:1"):
        with pytest.raises(ValueError, match="is not known; use auto, cpu"):
            distributed.choose_device(name)
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="torch sees no CUDA device here; use cpu"):
            distributed.choose_device("cuda")
        assert distributed.choose_device("auto").type in ("cpu", "mps")
