"""The walls of the house: which part may import which, read from the import lines."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "src" / "unnoise"
INNER = {"diffusion", "networks", "images", "distributed"}
"""Import nothing else of ours."""
HEAVY = {"torch", "numpy", "PIL", "safetensors", "tensorboard", "rich", "scipy", "datasets"}
OUTER = {"cli", "studio"}
"""Nothing else may import these."""
PRIVATE = {"pydantic": {"config/load.py"}, "torch.distributed": {"distributed.py"}}
"""Modules that only these files may name."""


def imports(path: Path) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found += [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
    return found


def part(name: str) -> str:
    """Such as "diffusion" of "unnoise.diffusion.walk"."""
    pieces = name.split(".")
    return pieces[1] if len(pieces) > 1 and pieces[0] == "unnoise" else ""


FILES = sorted(ROOT.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=[str(f.relative_to(ROOT)) for f in FILES])
def test_imports_keep_to_their_walls(path):
    inside = path.relative_to(ROOT).as_posix()
    own = inside.split("/")[0].removesuffix(".py")
    named = imports(path)
    ours = {part(name) for name in named} - {"", "__version__"}
    if own in INNER:
        assert ours <= {own}, f"{inside} imports {ours - {own}}"
    if own in ("diffusion", "networks"):
        others = {name.split(".")[0] for name in named} & (HEAVY - {"torch"})
        assert not others, f"{inside} imports {others}: torch only"
    if own == "config":
        assert ours <= {"config", "networks"}
        assert all("settings" in name for name in named if part(name) == "networks")
        assert not {name.split(".")[0] for name in named} & HEAVY
    if own not in OUTER | {"__init__", "__main__"}:
        assert not ours & OUTER, f"{inside} imports {ours & OUTER}"
    for module, allowed in PRIVATE.items():
        if any(name == module or name.startswith(module + ".") for name in named):
            assert inside in allowed, f"{inside} names {module}"
