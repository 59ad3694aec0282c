"""Put fastrnn's functions in the place of PyTorch's, and take them away again.

`torch.nn.LSTM` and its relatives look `torch._VF.lstm` up at each call. Whoever replaces that name reaches every module
that exists or will exist: subclasses, aliases, models from a file.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.jit import _builtins

from .. import backends
from . import routes

_lock = threading.RLock()
_patches = 0
_threads = 0  # fastrnn's own number, while it follows PyTorch's
ORIGINALS: dict[str, Callable[..., Any]] = {
    name: getattr(torch._VF, name) for name in (*routes.SEQUENCES, *routes.CELLS)
}
ROUTED: dict[str, Callable[..., Any]] = {
    **{name: routes.sequence(name, ORIGINALS[name]) for name in routes.SEQUENCES},
    **{name: routes.cell(name, ORIGINALS[name]) for name in routes.CELLS},
}


def patch() -> None:
    """Make the recurrent layers of this process run on fastrnn: all modules, existing and future, dense and packed.

    What fastrnn does not compute goes to PyTorch unchanged; `report` tells. Calling it twice is calling it once.
    """
    global _patches
    with _lock:
        _patches = max(_patches, 1)
        _install()


def unpatch() -> None:
    """Give PyTorch its functions back, whatever the number of `patch` calls before."""
    global _patches
    with _lock:
        _patches = 0
        _remove()


@contextmanager
def patched() -> Iterator[None]:
    """`patch` for a block, and afterwards as before. It holds for all threads."""
    global _patches
    with _lock:
        _patches += 1
        _install()
    try:
        yield
    finally:
        with _lock:
            _patches = max(_patches - 1, 0)
            if not _patches:
                _remove()


def _install() -> None:
    global _threads
    if _is_installed():
        return
    getter = getattr(backends.current(), "get_num_threads", None)
    _threads = getter() if getter is not None else 0
    routes.forget_threads()
    for name, function in ROUTED.items():
        setattr(torch._VF, name, function)
        # TorchScript compiles a module's source and looks up what `_VF.lstm` stands for: still the operator.
        _builtins._register_builtin(function, f"aten::{name}")


def _remove() -> None:
    if not _is_installed():
        return
    for name, function in ROUTED.items():
        if vars(torch._VF).get(name) is function:  # somebody may have put theirs on top
            delattr(torch._VF, name)
    setter = getattr(backends.current(), "set_num_threads", None)
    if setter is not None and _threads:
        setter(_threads)


def _is_installed() -> bool:
    return vars(torch._VF).get("lstm") is ROUTED["lstm"]
