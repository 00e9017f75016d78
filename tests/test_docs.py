"""Every Python example in README.md and docs/ runs, in order within its page.

They run in a folder with model.safetensors and runs/demo-1/model.safetensors (tiny, class-conditional), their
upsampler in runs/up, and pictures/ with two classes of small PNGs.
"""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.models import tiny_model, tiny_upsampler
from unnoise.model import save_model

ROOT = Path(__file__).parents[1]
FENCE = re.compile(r"^```python *\n(.*?)^```", re.MULTILINE | re.DOTALL)
PAGES = sorted(p for p in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")] if p.exists())
LONGEST = 16
"""Lines of an example; longer ones belong into a script."""


def examples(page):
    text = page.read_text(encoding="utf-8")
    return [(text[: m.start()].count("\n") + 2, m[1]) for m in FENCE.finditer(text)]


@pytest.fixture
def place(tmp_path, monkeypatch):
    model = tiny_model(size=16, channels=1)
    save_model(tmp_path / "model.safetensors", model)
    save_model(tmp_path / "runs" / "demo-1" / "model.safetensors", model)
    save_model(tmp_path / "runs" / "up" / "model.safetensors", tiny_upsampler(size=32, low_res=16))
    rng = np.random.default_rng(0)
    for name in ("shirts", "shoes"):
        folder = tmp_path / "pictures" / name
        folder.mkdir(parents=True)
        for k in range(8):
            Image.fromarray(rng.integers(0, 256, (20, 18, 3), dtype=np.uint8)).save(folder / f"{k}.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


@pytest.mark.parametrize("page", [p for p in PAGES if examples(p)], ids=lambda p: str(p.relative_to(ROOT)))
def test_examples_run(page, place, capsys):
    names = {"__name__": page.stem}
    for line, code in examples(page):
        assert len(code.strip().splitlines()) <= LONGEST, f"{page.name}:{line} is too long for an example"
        # Blank lines before it make a traceback point at the line of the page.
        exec(compile("\n" * (line - 1) + code, str(page), "exec"), names)


def test_python_examples_are_marked_as_such():
    """An example that says it is something else would not be run."""
    for page in PAGES:
        for block in re.findall(
            r"^```(\w*)\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
        ):
            assert block[0] in ("python", "sh", "yaml", "json", "text", ""), f"{page.name}: ```{block[0]}"
            assert block[0] == "python" or "import unnoise" not in block[1], page.name
