"""What every test run shares: the count of golden cases, and what was deferred, at its end."""

from typing import Any

import pytest

from tests import goldens


def pytest_sessionfinish(session: Any) -> None:
    """A process that runs a share of the tests tells the first one, which reads none of the cases itself."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["goldens"] = {"counted": goldens.COUNTED, "deferred": goldens.DEFERRED}


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist
def pytest_testnodedown(node: Any) -> None:
    """Take over what such a process says at its end: all collect every test, so that they say the same."""
    told = getattr(node, "workeroutput", {}).get("goldens", {})
    goldens.COUNTED.update(told.get("counted", {}))
    goldens.DEFERRED.update(told.get("deferred", {}))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if goldens.COUNTED:
        counts = ", ".join(f"{group} {n}" for group, n in sorted(goldens.COUNTED.items()))
        terminalreporter.write_line(f"golden cases from {goldens.directory()}: {counts}")
    for reason, ids in goldens.DEFERRED.items():
        terminalreporter.write_line(f"deferred, {len(ids)} ({reason}): {', '.join(ids)}")
