"""The published form at full size: 554 million random weights laid out as OpenAI's 256x256_diffusion.pt."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from unnoise.networks.build import build_network
from unnoise.presets import load_preset

NAME = "256x256_diffusion.pt"
WRITE = """
from pathlib import Path
from tests.weights.test_full_size import write
write(Path({path!r}))
"""
MEASURE = """
import json, resource, time
import torch
import unnoise

def peak():
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

began, before = time.monotonic(), peak()
model = unnoise.load({path!r})
assert all(torch.isfinite(value.sum()) for value in model.network.parameters())  # reads them all
read, seconds = peak(), time.monotonic() - began
pixels = model.sample(n=1, labels="207", steps="2").pixels
print(json.dumps({{
    "preset": model.info.preset, "before": before, "read": read, "drawn": peak(), "seconds": seconds,
    "shape": list(pixels.shape), "spread": int(pixels.max()) - int(pixels.min()),
}}))
"""


def write(path: Path) -> None:
    """The file; in a process of its own, which takes its memory with it."""
    with torch.device("meta"):
        state = build_network(load_preset("adm-256").published().model.network).state_dict()
    noise = torch.randn(1 << 20, generator=torch.Generator().manual_seed(0))
    filled = {}
    for key, value in state.items():
        flat, scale = torch.empty(value.numel()), max(1, value[0].numel()) ** -0.5
        for part in flat.split(len(noise)):
            torch.mul(noise[: len(part)], scale, out=part)
        filled[key] = flat.view(value.shape)
    torch.save(filled, path)


def run(code: str) -> str:
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss counts otherwise elsewhere")
def test_the_256_model_is_read_in_little_more_memory_than_its_file(tmp_path: Path) -> None:
    path = tmp_path / NAME
    try:
        run(WRITE.format(path=str(path)))
        size = path.stat().st_size
        assert size > 4 * 553_838_086
        found: dict[str, Any] = json.loads(run(MEASURE.format(path=str(path))).splitlines()[-1])
    finally:
        path.unlink(missing_ok=True)
    assert found["preset"] == "adm-256"
    for stage, bound in (("read", 1.3), ("drawn", 1.6)):  # the second with the activations of 256x256 pixels
        assert found[stage] <= bound * size, f"{stage}: {found[stage] / size:.2f} of the file"
    assert found["shape"] == [1, 256, 256, 3] and found["spread"] > 0
