"""Kills a training run at random moments with SIGKILL; compares its weights with those of a run left alone.

    python scripts/kill_test.py [--kills 20] [--seed 0] [--steps 120] [--keep FOLDER]

The run is the command line's own, on the pictures inside the package. Moments are spread over the whole run;
every second one waits until a checkpoint is being written and strikes within it. Prints a line a kill and the
verdict; exit status 0 when every bit of the weights, averages and optimiser is equal and the log says every
step once.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import load_file

RECIPE = [
    *("fashion-28", "--data", "fashion-mnist-10k", "--batch-size", "8", "--seed", "1", "--device", "cpu"),
    *("--compile", "off"),
]
SMALL = [
    *("model.network.width=16", "model.network.depth=1", "model.network.channel_mult=[1,2]"),
    *("model.network.attention=[2]", "model.network.head_channels=16", "model.network.dropout=0.1"),
    *("log_every=1", "sample_every=40", "sample_steps=2", "sample_count=2", "keep_last=2"),
]


def start(out: Path, steps: int, save_every: int) -> subprocess.Popen[bytes]:
    """The command that starts the run, and continues it."""
    settings = [f"--set={text}" for text in (*SMALL, f"save_every={save_every}")]
    command = [
        sys.executable,
        "-m",
        "unnoise",
        "train",
        *RECIPE,
        "--steps",
        str(steps),
        "--out",
        str(out),
        *settings,
    ]
    log = open(out.with_name(f"{out.name}.log"), "ab")  # noqa: SIM115 (the child's)
    return subprocess.Popen(command, stdout=log, stderr=log)


def steps_done(out: Path, since: float = 0.0) -> int:
    """The last step in the log; -1 when nothing was written to it since then."""
    try:
        if (out / "metrics.jsonl").stat().st_mtime < since:
            return -1
        lines = (out / "metrics.jsonl").read_text().splitlines()
    except OSError:
        return -1
    for line in reversed(lines):
        try:
            return int(json.loads(line)["step"])
        except (ValueError, KeyError):
            continue
    return 0


def writing(out: Path) -> bool:
    """Whether a checkpoint is half written."""
    folder = out / "checkpoints"
    return folder.is_dir() and any(path.name.startswith(".part-") for path in folder.iterdir())


def strike(out: Path, arguments: argparse.Namespace, number: int, moment: int, draw: random.Random) -> str:
    """Start the run, wait for the moment, kill; returns what was hit."""
    begun = time.time()
    process = start(out, arguments.steps, arguments.save_every)
    inside = number % 2 == 1
    while process.poll() is None and steps_done(out, begun) < moment:
        time.sleep(0.002)
    if inside:
        while process.poll() is None and not writing(out):
            time.sleep(0.0002)
    time.sleep(draw.random() * (0.02 if inside else 0.3))
    half = writing(out)
    process.send_signal(signal.SIGKILL)
    if process.wait() != -signal.SIGKILL:
        raise SystemExit(
            f"the run ended by itself (status {process.returncode}), see {out}.log; take more --steps"
        )
    return f"step {steps_done(out):4d}, {'while a checkpoint was written' if half else 'between checkpoints'}"


def state(run: Path) -> dict[str, torch.Tensor]:
    """Every tensor that the run ended with."""
    last = max((run / "checkpoints").glob("step-*"))
    files = [*run.glob("*.safetensors"), *last.glob("*.safetensors")]
    return {f"{file.name}: {key}": value for file in files for key, value in load_file(file).items()}


def finish(out: Path, arguments: argparse.Namespace) -> None:
    """Let the run come to its end."""
    if start(out, arguments.steps, arguments.save_every).wait():
        raise SystemExit(f"the run failed, see {out}.log")


def verdict(folder: Path, steps: int) -> list[str]:
    """What differs between the two runs; empty when nothing does."""
    alone, killed = state(folder / "alone"), state(folder / "killed")
    faults = [] if alone.keys() == killed.keys() else ["different tensors"]
    faults += [key for key in alone if key in killed and not torch.equal(alone[key], killed[key])]
    lines = (folder / "killed" / "metrics.jsonl").read_text().splitlines()
    if [json.loads(line)["step"] for line in lines] != list(range(1, steps + 1)):
        faults.append("metrics.jsonl does not hold every step once")
    return faults


def main() -> int:
    """Kill, finish, compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--save-every", type=int, default=5)
    parser.add_argument("--keep", type=Path, help="leave both runs in this new folder")
    arguments = parser.parse_args()
    draw = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        # The last save before the end must still be ahead of the last moment.
        latest = arguments.steps - 2 * arguments.save_every
        moments = sorted(draw.randrange(0, latest) for _ in range(arguments.kills))
        inside = 0
        for number, moment in enumerate(moments):
            what = strike(folder / "killed", arguments, number, moment, draw)
            inside += "while" in what
            print(f"kill {number + 1:2d} of {arguments.kills}: {what}", flush=True)
        finish(folder / "killed", arguments)
        finish(folder / "alone", arguments)
        faults = verdict(folder, arguments.steps)
    threads = os.environ.get("OMP_NUM_THREADS", "all")
    print(f"{arguments.kills} kills, {inside} while a checkpoint was written; threads: {threads}")
    print("PASS: all tensors are equal to the bit" if not faults else f"FAIL: {len(faults)}: {faults[:10]}")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
