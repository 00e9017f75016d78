"""The program in this process, for tests that run it often."""

import sys
from typing import Any

import pytest

from unnoise.cli import main


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run the program in this process -> (exit status, stdout, stderr)."""

    def run(*args: Any) -> tuple[Any, str, str]:
        monkeypatch.setattr(sys, "argv", ["unnoise", *map(str, args)])
        with pytest.raises(SystemExit) as stop:
            main()
        return stop.value.code or 0, *capsys.readouterr()

    return run
