"""How far a long run has come, on stderr: tqdm's bar if there is tqdm, else one line."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

INTERRUPTED = 130  # exit code of a program that Ctrl-C ended
Show = Callable[[int, str], None]  # steps done, what to say about them


@contextmanager
def progress(total: int, unit: str) -> Iterator[Show]:
    """A function that shows how many of `total` steps are done, and a text."""
    try:
        from tqdm import tqdm
    except ImportError:
        yield _plain(total, unit, sys.stderr)
        if sys.stderr.isatty():
            print(file=sys.stderr)
        return
    with tqdm(total=total, unit=unit, dynamic_ncols=True) as bar:

        def show(step: int, text: str) -> None:
            bar.set_postfix_str(text, refresh=False)
            bar.update(step - bar.n)

        yield show


def _plain(total: int, unit: str, stream: TextIO) -> Show:
    """One line that is written over on a terminal, ten lines in all elsewhere."""
    terminal = stream.isatty()
    shown = 0.0
    widest = 0

    def show(step: int, text: str) -> None:
        nonlocal shown, widest
        now = time.monotonic()
        due = now - shown > 0.2 if terminal else step * 10 // total > (step - 1) * 10 // total
        if due or step == total:
            shown = now
            line = f"{step}/{total} {unit}s, {text}"
            if terminal:  # a line that wraps could not be written over
                line = line[: shutil.get_terminal_size().columns - 1]
                widest = max(widest, len(line))
            print(f"\r{line:<{widest}}" if terminal else line, end="" if terminal else "\n", file=stream, flush=True)

    return show
