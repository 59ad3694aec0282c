"""`python -m fastrnn.torch script.py args...`: run a program with its recurrent layers on fastrnn.

With `--report` before the script's name, what went where is printed to stderr at its end; with `-m` a module is run.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

from . import patch, report

USAGE = "usage: python -m fastrnn.torch [--report] (script.py | -m module) [args...]"


def main(arguments: list[str]) -> None:
    tell = arguments[:1] == ["--report"]
    rest = arguments[tell:]
    as_module = rest[:1] == ["-m"]
    rest = rest[as_module:]
    if not rest or rest[0].startswith("-"):
        sys.exit(USAGE)
    patch()
    sys.argv = rest
    try:
        if as_module:
            runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
        else:
            # As Python does: the script's folder comes first, in the place of this module's.
            sys.path[0] = str(Path(rest[0]).resolve().parent)
            runpy.run_path(rest[0], run_name="__main__")
    finally:
        if tell:
            print(report(), file=sys.stderr)


if __name__ == "__main__":
    main(sys.argv[1:])
