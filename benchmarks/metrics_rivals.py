"""The public metric packages where torchvision's compiled part does not fit this torch: only the files that
compute are imported, the rest of torchvision is stood in for.
"""

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from unittest.mock import MagicMock

PEERS = Path(sys.prefix) / "peers"
"""Where `make bench` puts these packages, apart from what the program itself imports."""
INSTALL = "run `make bench`, or: pip install --no-deps -r benchmarks/requirements-metrics.txt"
NOT_COMPUTING = ("transforms", "transforms._presets", "transforms.functional", "datasets", "utils")
"""Parts of torchvision that the packages import and nothing here calls."""


if PEERS.is_dir():
    sys.path.append(str(PEERS))


def _bare(package: str) -> ModuleType | None:
    """An empty module of the package's name that finds its files; its own __init__ does not run."""
    if package in sys.modules:
        return sys.modules[package]
    found = importlib.util.find_spec(package)
    if found is None or found.submodule_search_locations is None:
        return None
    bare = ModuleType(package)
    bare.__path__ = [str(Path(p)) for p in found.submodule_search_locations]
    sys.modules[package] = bare
    return bare


def _stand_in(name: str) -> None:
    if name not in sys.modules:
        parent, _, child = name.rpartition(".")
        sys.modules[name] = MagicMock()
        if parent:
            setattr(sys.modules[parent], child, sys.modules[name])


def _torchvision() -> None:
    """torchvision without its operators: models.inception for real when it is installed, mocks otherwise."""
    if "torchvision" in sys.modules:
        return
    bare = _bare("torchvision")
    for part in ("", *NOT_COMPUTING) if bare is None else NOT_COMPUTING:
        _stand_in(f"torchvision.{part}".rstrip("."))
    if bare is None:
        for part in ("models", "models.inception"):
            _stand_in(f"torchvision.{part}")
        return
    bare.__version__ = "0.28.0"  # read by pytorch-fid, which asks whether it is younger than 0.13
    bare.models = _bare("torchvision.models")
    bare.models.inception = importlib.import_module("torchvision.models.inception")
    bare.models.inception_v3 = bare.models.inception.inception_v3


def has_torchvision() -> bool:
    """Whether torchvision's own networks can be built here."""
    _torchvision()
    return not isinstance(sys.modules["torchvision"], MagicMock)


def load(package: str, module: str) -> ModuleType | None:
    """`package.module` without running the package's own __init__; None when it is not installed."""
    _torchvision()
    if "requests" not in sys.modules and importlib.util.find_spec("requests") is None:
        _stand_in("requests")
    fresh = package not in sys.modules
    bare = _bare(package)
    if bare is None:
        return None
    if fresh and package == "torch_fidelity":
        # Read by its utils at import; nothing of it is called here.
        bare.GenerativeModelModuleWrapper = MagicMock()
    return importlib.import_module(f"{package}.{module}")
