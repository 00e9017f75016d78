"""Runs each command line in a process of its own, forked from this one: JSON of the lines on stdin, JSON of
[exit status, stdout, stderr] on stdout.

Real processes with a real exit status, without loading torch a dozen times.
"""

import json
import os
import sys
import tempfile
import traceback

import unnoise.metrics.evaluate  # noqa: F401 (loaded once, before the forks)
from unnoise.cli import main


def run(arguments: list[str]) -> tuple[int, str, str]:
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = os.fork()
        if child == 0:
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            os._exit(_program(arguments))
        _, status = os.waitpid(child, 0)
        for file in (out, err):
            file.seek(0)
        return os.waitstatus_to_exitcode(status), out.read().decode(), err.read().decode()


def _program(arguments: list[str]) -> int:
    sys.argv = ["unnoise", *arguments]
    code = 0
    try:
        main()
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return code


if __name__ == "__main__":
    print(json.dumps([run(arguments) for arguments in json.load(sys.stdin)]))
