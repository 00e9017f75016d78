"""A short demo, which several tests look at."""

from pathlib import Path

import pytest

from tests.cli.test_app import unnoise


@pytest.fixture(scope="session")
def demo(tmp_path_factory) -> Path:
    """The run directory of a demo that trained for a second."""
    folder = tmp_path_factory.mktemp("demo")
    done = unnoise(
        *("demo", "--minutes", "0.02", "--samples", "30"),
        cwd=folder,
        timeout=600,
        XDG_CACHE_HOME=str(folder / "cache"),
    )
    assert done.returncode == 0, done.stderr
    assert "runs/demo-1/report.html" in done.stdout and "KID[unnoise-small]" in done.stdout
    assert "10,000 pictures" in done.stderr
    return folder / "runs" / "demo-1"
