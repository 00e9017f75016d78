"""The public metric packages without torchvision: only the files that compute are imported, its modules stood
in for.
"""

import importlib
import importlib.util
import sys
import types
from pathlib import Path
from unittest.mock import MagicMock


def load(package: str, module: str):
    """`package.module` without running the package's own __init__; None when it is not installed."""
    parts = ("", ".transforms", ".transforms.functional", ".datasets", ".models", ".models.inception")
    for name in ("requests", *(f"torchvision{part}" for part in parts)):
        try:
            importlib.import_module(name)
        except ImportError:
            sys.modules[name] = MagicMock()
    try:
        found = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        found = sys.modules.get(package)
    if found is None:
        return None
    if package not in sys.modules:
        stand_in = types.ModuleType(package)
        stand_in.__path__ = [str(Path(p)) for p in found.submodule_search_locations]
        sys.modules[package] = stand_in
        if package == "torch_fidelity":
            # Read by its utils at import; nothing of it is called here.
            stand_in.GenerativeModelModuleWrapper = MagicMock()
    return importlib.import_module(f"{package}.{module}")
