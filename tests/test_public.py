"""The public surface: few names, each there, each imported only when it is asked for."""

import subprocess
import sys

import pytest

import unnoise


def test_every_public_name_is_there_and_documented():
    assert len(unnoise.__all__) <= 60
    for name in unnoise.__all__:
        value = getattr(unnoise, name)
        assert name.startswith("__") or value.__doc__, name


def test_no_public_name_is_hidden_by_a_module():
    code = (
        "import unnoise, unnoise.generate, unnoise.train, unnoise.model, unnoise.data, types\n"
        "hidden = [n for n in unnoise.__all__ if isinstance(getattr(unnoise, n), types.ModuleType)]\n"
        "assert not hidden, hidden"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_importing_the_package_imports_nothing_heavy():
    code = "import sys, unnoise; assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="nothing"):
        unnoise.nothing  # noqa: B018
