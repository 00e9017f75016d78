"""What every test run shares: the count of golden cases, and what was deferred, at its end."""

from typing import Any

from tests import goldens


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if goldens.COUNTED:
        counts = ", ".join(f"{group} {n}" for group, n in sorted(goldens.COUNTED.items()))
        terminalreporter.write_line(f"golden cases from {goldens.directory()}: {counts}")
    for reason, ids in goldens.DEFERRED.items():
        terminalreporter.write_line(f"deferred, {len(ids)} ({reason}): {', '.join(ids)}")
