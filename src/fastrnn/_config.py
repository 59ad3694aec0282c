"""Threads, and the facts about this installation."""

from __future__ import annotations

import contextlib
import io
import sys
from typing import Any

import numpy as np

from . import _validate, backends


def set_num_threads(n: int) -> None:
    """How many threads a call may use at most.

    The results do not depend on it. The Numba and NumPy backends use one thread whatever the number. Once the compiled
    backend is in use, `threadpoolctl.threadpool_limits` sets the same number, under the user_api "fastrnn".

    Parameters
    ----------
    n : int
        Positive.

    Raises
    ------
    TypeError, ValueError
        n is no positive integer.
    """
    count = _validate.positive_int("n", n)
    setter = getattr(backends.current(), "set_num_threads", None)
    if setter is not None:
        setter(min(count, 1 << 16))  # more than the core starts, and no more than it can count


def get_num_threads() -> int:
    """How many threads a call may use at most, on the backend in force."""
    getter = getattr(backends.current(), "get_num_threads", None)
    return int(getter()) if getter is not None else 1


class Config(dict[str, Any]):
    """Facts by name; printed as lines."""

    def __str__(self) -> str:
        width = max(map(len, self), default=0) + 1
        return "\n".join(f"{name + ':':<{width}} {_text(value)}" for name, value in self.items())

    __repr__ = __str__


def show_config(mode: str = "stdout") -> Config | None:
    """Version, backend, instruction sets built, runnable and active, threads, compiler, NumPy and its BLAS.

    Parameters
    ----------
    mode : {"stdout", "dicts"}
        Print the facts, or return them.

    Returns
    -------
    dict or None

    Raises
    ------
    ValueError
        Another mode.
    """
    facts = _facts()
    if _validate.choice("mode", mode, ("stdout", "dicts")) == "dicts":
        return facts
    print(facts)
    return None


def _facts() -> Config:
    package = sys.modules[__package__ or "fastrnn"]
    module = backends.current()
    facts = Config(fastrnn=package.__version__, backend=module.NAME, backends=backends.available())
    if "cpp" in facts["backends"]:
        facts.update(backends.load("cpp").config())
    facts.update(threads=get_num_threads(), python=sys.version.split()[0], numpy=np.__version__, numpy_blas=_blas())
    return facts


def _blas() -> str:
    """Name and version of the library behind NumPy's matrix products."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # before NumPy 1.25 it can only print
            config: Any = np.show_config(mode="dicts")
            blas = config["Build Dependencies"]["blas"]
    except (TypeError, KeyError):
        return "unknown"
    return f"{blas.get('name', 'unknown')} {blas.get('version', '')}".strip()


def _text(value: object) -> str:
    return (" ".join(map(str, value)) or "none") if isinstance(value, list | tuple) else str(value)
