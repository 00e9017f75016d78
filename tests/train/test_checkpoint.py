import errno
import json
import os
import resource
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from unnoise.train import checkpoint
from unnoise.train.checkpoint import Snapshot


def snapshot(step: int, score: float | None = None) -> Snapshot:
    tensors = {"network": {"w": torch.full((4, 3), float(step))}, "job": {}}
    return Snapshot(step, tensors, {"seconds": 0.1 + step, "sums": [{"loss": 1e-17}]}, score)


def steps(folder: Path) -> list[int]:
    return [int(path.name.removeprefix("step-")) for path in checkpoint.listed(folder)]


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path / "deep", snapshot(7, 0.25))
    assert checkpoint.newest(tmp_path / "deep") == path
    loaded = checkpoint.load(path)
    assert (loaded.step, loaded.score) == (7, 0.25)
    assert dict(loaded.numbers) == {"seconds": 7.1, "sums": [{"loss": 1e-17}]}
    assert torch.equal(loaded.tensors["network"]["w"], torch.full((4, 3), 7.0))
    assert loaded.tensors["job"] == {}
    assert checkpoint.newest(tmp_path / "nothing") is None


@pytest.mark.parametrize(
    "harm", ["shorter", "other bits", "no file", "no manifest", "half a manifest", "other step"]
)
def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path, harm: str) -> None:
    good = checkpoint.save(tmp_path, snapshot(1))
    bad = checkpoint.save(tmp_path, snapshot(2))
    file, manifest = bad / "network.safetensors", bad / "manifest.json"
    content = bytearray(file.read_bytes())
    if harm == "shorter":
        file.write_bytes(content[:-1])
    elif harm == "other bits":
        content[-1] ^= 1
        file.write_bytes(content)
    elif harm == "no file":
        file.unlink()
    elif harm == "no manifest":
        manifest.unlink()
    elif harm == "half a manifest":
        manifest.write_text(manifest.read_text()[:40])
    else:
        manifest.write_text(manifest.read_text().replace('"step": 2', '"step": 3'))
    assert checkpoint.newest(tmp_path) == good
    checkpoint.save(tmp_path, snapshot(2))  # replaced when the run gets there again
    assert checkpoint.newest(tmp_path) == bad


def test_all_damaged_is_refused_rather_than_begun_again(tmp_path: Path) -> None:
    (checkpoint.save(tmp_path, snapshot(1)) / "manifest.json").unlink()
    with pytest.raises(ValueError, match=r"no checkpoint is whole: step-00000001 .*another --out"):
        checkpoint.newest(tmp_path)


def test_a_checkpoint_from_the_future_is_refused(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, snapshot(1)) / "manifest.json"
    body = json.loads(path.read_text())
    body.pop("sha256")
    body["format"] = 99
    path.write_text(json.dumps({**body, "sha256": checkpoint._seal(body)}))
    with pytest.raises(ValueError, match="newer unnoise .*update unnoise"):
        checkpoint.newest(tmp_path)


def test_prune_keeps_the_last_the_best_and_milestones(tmp_path: Path) -> None:
    for step, score in ((1, 0.9), (2, 0.1), (3, 0.5), (4, 0.6), (5, None), (6, 0.7)):
        checkpoint.save(tmp_path, snapshot(step, score))
    checkpoint.prune(tmp_path, keep_last=2, milestones=(3, 40))
    assert steps(tmp_path) == [2, 3, 5, 6]


@pytest.mark.parametrize("place", ["tensors", "manifest", "rename"])
def test_a_full_disk_leaves_earlier_checkpoints_and_nothing_else(
    tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint.save(tmp_path, snapshot(1))

    def full(*args: Any, **kwargs: Any) -> Any:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    name = {"tensors": "_write_tensors", "manifest": "_write_manifest", "rename": "_flush"}[place]
    monkeypatch.setattr(checkpoint, name, full)
    with pytest.raises(
        OSError, match="No space left on device while writing the checkpoint of step 2"
    ) as caught:
        checkpoint.save(tmp_path, snapshot(2))
    assert caught.value.errno == errno.ENOSPC
    assert os.listdir(tmp_path) == ["step-00000001"]


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="the system has no limit on files")
def test_what_the_operating_system_refuses_is_an_oserror(tmp_path: Path) -> None:
    # A real refusal in the middle of a file, which the safetensors library reports as an error of its own.
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        try:
            checkpoint.save(tmp_path / "c", Snapshot(2, {"network": {"w": torch.zeros(9999)}}))
        except OSError as error:
            os._exit(error.errno if "earlier checkpoints are intact" in str(error) else 1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == errno.EFBIG
    assert os.listdir(tmp_path / "c") == []


def test_clean_removes_halves_only(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, snapshot(1))
    for name in (".part-step-00000002", ".trash-step-00000000"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "network.safetensors").write_bytes(b"half")
    assert steps(tmp_path) == [1]
    checkpoint.clean(tmp_path)
    assert os.listdir(tmp_path) == ["step-00000001"]


def test_files_are_readable_by_others_as_the_user_allows(tmp_path: Path) -> None:
    mask = os.umask(0o022)
    try:
        path = checkpoint.save(tmp_path, snapshot(1))
    finally:
        os.umask(mask)
    assert {oct(file.stat().st_mode & 0o777) for file in path.iterdir()} == {"0o644"}
