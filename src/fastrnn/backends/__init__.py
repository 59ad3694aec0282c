"""Which module does the arithmetic: compiled kernels ("cpp"), Numba ("numba") or NumPy ("numpy").

The three modules have the same functions with the same arguments, written down in `Backend`. Stacks with options that
none of them has (`Spec.general`) run on a fourth, the general path in NumPy, whichever is chosen: see `module_for`.
Nothing is imported before it is needed: `import fastrnn` costs no more than NumPy.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import threading
import warnings
from contextvars import ContextVar, Token
from typing import Any, Protocol, cast

import numpy as np
import numpy.typing as npt

from .._packing import Packing
from .._spec import Regularisers, Spec

Array = npt.NDArray[Any]

GENERAL = "general"
MODULES = {"cpp": "_core", "numba": "_numba", "numpy": "_numpy"}  # in the order of the automatic choice
VARIABLE = "FASTRNN_BACKEND"
THREADS = "FASTRNN_NUM_THREADS"
HINTS = {
    "cpp": "it was not built: install a wheel, or the source with a C++20 compiler and without FASTRNN_PURE",
    "numba": 'Numba is not installed: pip install "fastrnn[numba]"',
}


class Packed(Protocol):
    """Immutable snapshot of a stack's weights in the layout one backend and instruction set want."""

    @property
    def spec(self) -> Spec: ...
    @property
    def backend(self) -> str: ...
    @property
    def isa(self) -> str: ...

    def in_force(self) -> bool:
        """Whether its backend would pack for the same instruction set now."""

    def infer_small(
        self, x: Any, state: Any, lengths: Any, reset: Any, mask: Any, out: Any, batch_first: bool
    ) -> tuple[Array, Any] | None:
        """(y, state) of a small call with plain arrays, where that is quicker; None: go the general way."""

    def step_small(self, x: Any, out: Any, h: Array, c: Array | None) -> Array | None:
        """y of a step with plain arrays, x (N, I) or (I,), from and into a stream's h, c (L, N, H); None: as above."""

    def forward_plain(
        self, x: Any, state: Any
    ) -> tuple[Array, Array, Array | None, Array | None, Array | None, object] | None:
        """(y, h, c, h0, c0, tape) of a training forward with plain arrays, x (T, N, I); None: as above."""

    def backward_plain(
        self, tape: Any, x: Array, y: Array, h0: Array | None, c0: Array | None, dy: Any,
        into: tuple[Array, Array, Array | None, Array] | None, accumulate: bool,
    ) -> tuple[Array, Array, Array | None, Array] | None:  # fmt: skip
        """(dx, dh0, dc0, dweights) of that forward, which uses its tape up; None: as above, and nothing is done.

        into: where to write them. accumulate: to add dweights to what is there.
        """


class Backend(Protocol):
    """What every backend module offers. Arguments have been checked and made to fit before a call."""

    NAME: str

    def pack(self, spec: Spec, weights: Array) -> Packed: ...

    def make_tape(
        self, packed: Any, steps: int, batch: int, reuse: object | None = None, recompute: bool = False, rows: int = 0
    ) -> object:
        """Memory for one forward; with `recompute` it holds no gates, and backward computes them again.

        rows: of x in all if they are packed, 0 if they are padded.
        """

    def forward(
        self, packed: Any, x: Array, y: Array, h0: Array | None, c0: Array | None, hn: Array, cn: Array | None,
        lengths: Array | None, reset: Array | None, mask: Array | None, dropout: Array | None, tape: object | None,
        packing: Packing | None = None, regular: Regularisers | None = None,
    ) -> None:  # fmt: skip
        """With a packing every (T, N, ...) is (M, 1, ...), but in `regular`, and lengths are those of the packing."""

    def backward(
        self, packed: Any, tape: object, x: Array, y: Array, h0: Array | None, c0: Array | None,
        dy: Array | None, dhn: Array | None, dcn: Array | None, dx: Array | None, dh0: Array | None,
        dc0: Array | None, dweights: Array | None, lengths: Array | None, reset: Array | None,
        mask: Array | None, dropout: Array | None, retain: bool, accumulate: bool, packing: Packing | None = None,
        regular: Regularisers | None = None,
    ) -> None: ...  # fmt: skip

    def config(self) -> dict[str, object]: ...


_loaded: dict[str, Backend] = {}
_failed: dict[str, Exception] = {}
_automatic: Backend | None = None
_lock = threading.RLock()
_chosen: ContextVar[Backend | None] = ContextVar("fastrnn_backend", default=None)
chosen = _chosen.get  # what `backend(...)` chose in this thread or task, None if nothing


def load(name: str) -> Backend:
    """The backend module of that name.

    Raises
    ------
    ValueError
        The name is unknown, `FASTRNN_ISA` names an instruction set that is absent or cannot run here, or
        `FASTRNN_NUM_THREADS` is no number of threads.
    ImportError
        The backend exists but cannot be used on this installation.
    """
    module = _loaded.get(name)
    if module is not None:
        return module
    path = f"_{GENERAL}" if name == GENERAL else MODULES.get(name)
    if path is None:
        raise _unknown(name)
    with _lock:
        # A module that failed once is not imported again: the second attempt of an extension module may fail
        # differently, and the first reason is the true one.
        if name not in _failed:
            try:
                if name == "cpp":
                    _check_threads(os.environ.get(THREADS))
                _loaded[name] = cast(Backend, importlib.import_module(f".{path}", __name__))
                if name == "cpp":
                    importlib.import_module("._threadpools", __name__).register(_loaded[name])
                return _loaded[name]
            except (ImportError, ValueError) as error:
                _failed[name] = error
    reason = _failed[name]
    if isinstance(reason, ImportError):
        message = f"backend {name!r} cannot be used: {HINTS.get(name) if _is_absent(name) else reason}"
        raise ImportError(message) from reason
    raise ValueError(*reason.args) from reason


def _unknown(name: object) -> ValueError:
    return ValueError(f"unknown backend {name!r}; it must be one of {', '.join(map(repr, MODULES))}")


def _check_threads(text: str | None) -> None:
    """The core reads the variable itself, but cannot say what is wrong with it."""
    if text and not (text.isascii() and text.isdigit() and text.strip("0")):
        message = f"{THREADS} is {text!r}; it must be a positive integer"
        raise ValueError(message)


def _is_absent(name: str) -> bool:
    """Whether a backend failed to load because it, or the package it is made for, is simply not installed."""
    reason = _failed[name]
    wanted = {"cpp": f"{__name__}.{MODULES['cpp']}", "numba": "numba"}.get(name)
    return isinstance(reason, ModuleNotFoundError) and reason.name == wanted


def current() -> Backend:
    """The backend in force here: `backend(...)`, else `FASTRNN_BACKEND`, else the fastest that loads."""
    module = chosen()
    if module is not None:
        return module
    return _automatic if _automatic is not None else _choose()


def module_for(spec: Spec) -> Backend:
    """The module that packs and runs a stack: the backend in force, or for a general one the general path."""
    return load(GENERAL) if spec.general else current()


def _choose() -> Backend:
    global _automatic
    with _lock:
        if _automatic is not None:
            return _automatic
        explicit = os.environ.get(VARIABLE)
        if explicit:
            if explicit not in MODULES:
                message = f"{VARIABLE} is {explicit!r}; it must be one of {', '.join(map(repr, MODULES))}"
                raise ValueError(message)
            _automatic = load(explicit)
        else:
            _automatic, message = _first_that_loads()
            if message:  # once, and after the choice is made: also where warnings are errors, the next call works
                warnings.warn(message, RuntimeWarning, stacklevel=_outside())
        return _automatic


def _first_that_loads() -> tuple[Backend, str]:
    """Automatic choice, and what is to be said about it.

    Only a failed import leads to the next backend, any other error is the caller's.
    """
    for name in MODULES:
        try:
            module = load(name)
        except ImportError:
            continue
        broken = [f"{n!r} failed to import ({_failed[n]})" for n in MODULES if n in _failed and not _is_absent(n)]
        told = f"; {', '.join(broken)}" if broken else ", without compiled kernels and without Numba"
        advice = f'. To speed it up: pip install "fastrnn[numba]" ({VARIABLE}=numpy makes this a choice)'
        message = f"fastrnn runs on its {name!r} backend{told}{advice if name == 'numpy' else ''}"
        return module, message if broken or name == "numpy" else ""
    raise AssertionError  # the NumPy backend needs nothing that this package does not need


def _outside() -> int:
    """Stack level of the nearest caller outside this package, so that a warning points at the user's line."""
    package = __name__.split(".")[0]
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").split(".")[0] == package:
        level, frame = level + 1, frame.f_back
    return level


def available() -> tuple[str, ...]:
    """Names of the backends that can be used on this installation, in the order of the automatic choice."""
    return tuple(name for name in MODULES if _is_available(name))


def _is_available(name: str) -> bool:
    if name == "numba" and name not in _loaded:  # looked for, not imported: importing Numba takes a second
        return name not in _failed and importlib.util.find_spec("numba") is not None
    try:
        load(name)
    except (ImportError, ValueError):
        return False
    return True


def empty(shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
    """As np.empty; where the compiled backend is in use, a large array takes a block that it kept from another."""
    core: Any = _loaded.get("cpp")
    made: Array = np.empty(shape, dtype) if core is None else core.empty(shape, dtype)
    return made


def copied(array: Array) -> Array:
    """A copy of a contiguous array, in such a block.

    8 MB in new pages of the system took ten times as long as the copying (H=512).
    """
    core: Any = _loaded.get("cpp")
    made: Array = array.copy() if core is None else core.copied(array)
    return made


def views(spec: Spec, flat: Array, writeable: bool) -> dict[str, Array]:
    """As `spec.views`, read-only unless `writeable`; where the compiled backend is in use, in a third of the time."""
    core: Any = _loaded.get("cpp")
    if core is not None:
        return cast(dict[str, Array], core.views(spec.weight_shapes, flat, writeable))
    visible = flat.view()
    if not writeable:
        visible.flags.writeable = False
    return cast(dict[str, Array], spec.views(visible))


def active_isa(module: Backend) -> str:
    """Instruction set that `module.pack` packs for now; "" for the backends that have none."""
    return cast(str, cast(Any, module).isa_active()) if module.NAME == "cpp" else ""


class backend:
    """Context manager that chooses the backend of every call inside it, in this thread or task.

    A thread started inside does not inherit the choice, unless it is given the context.

    Parameters
    ----------
    name : {"cpp", "numba", "numpy"}
        Never replaced by another: what cannot be used raises.

    Raises
    ------
    ValueError
        Unknown name.
    ImportError
        The backend cannot be used on this installation.

    Examples
    --------
    >>> import numpy as np, fastrnn
    >>> lstm = fastrnn.LSTM(4, 8, rng=0)
    >>> with fastrnn.backend("numpy"):
    ...     y, state = lstm(np.zeros((5, 1, 4)))
    """

    def __init__(self, name: str) -> None:
        if name == GENERAL:  # which is no choice: it comes by itself
            raise _unknown(name)
        self._module = load(name)
        self._tokens: list[Token[Backend | None]] = []

    def __enter__(self) -> backend:
        self._tokens.append(_chosen.set(self._module))
        return self

    def __exit__(self, *exception: object) -> None:
        _chosen.reset(self._tokens.pop())

    def __repr__(self) -> str:
        return f"fastrnn.backend({self._module.NAME!r})"
