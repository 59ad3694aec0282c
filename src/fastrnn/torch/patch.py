"""Put fastrnn's functions in the place of PyTorch's, and take them away again.

`torch.nn.LSTM` and its relatives look `torch._VF.lstm` up at each call. Whoever replaces that name reaches every module
that exists or will exist: subclasses, aliases, models from a file.
"""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.jit import _builtins

from .. import backends
from . import autograd, compile, routes, shortcut
from . import sb3 as _sb3
from .report import count

_lock = threading.RLock()
_patches = 0
_allowed: bool | None = None  # what the compiler's setting was, while it is ours
_torch_compile = torch.compile
_threads = 0  # fastrnn's own number, while it follows PyTorch's
_installed = False
_above: dict[str, Any] = {}  # functions of others that lay above ours when the patch was taken away
_below: dict[str, Any] = {}  # those that the patch lies upon: what is not ours goes to them


def _routed(name: str, original: Callable[..., Any], *, always: bool) -> Callable[..., Any]:
    """What stands in the place of `torch._VF.<name>`: ours while the patch is there, or `always`."""
    single = name in routes.CELLS
    kind, nonlinearity = (routes.CELLS if single else routes.SEQUENCES)[name]
    parse, compiled = (routes.cell, compile.step) if single else (routes.sequence, compile.sequence)
    bare = single and kind != "lstm"  # of these cells PyTorch returns h and no tuple
    one_more = routes.ONE_MORE[name]

    def function(*args: Any, **kwargs: Any) -> Any:
        if not (always or _installed):  # somebody kept it, or put a function of theirs on top
            return original(*args, **kwargs)
        if torch.compiler.is_compiling():
            made = None if kwargs or is_exporting() else compiled(kind, nonlinearity, args)
            return original(*args, **kwargs) if made is None else made
        call, x, h0, c0, params, reason = parse(kind, nonlinearity, args, kwargs)
        if call is None:
            count(name, reason)
            return _below.get(name, original)(*args, **kwargs)
        one_more()
        outputs = autograd.run(call, x, h0, c0, params)
        return outputs[0] if bare else outputs

    function.__name__ = function.__qualname__ = name
    return function


is_exporting: Callable[[], bool] = getattr(torch.compiler, "is_exporting", lambda: False)  # since PyTorch 2.7
ORIGINALS: dict[str, Callable[..., Any]] = {
    name: getattr(torch._VF, name) for name in (*routes.SEQUENCES, *routes.CELLS)
}
ROUTED = {name: _routed(name, original, always=False) for name, original in ORIGINALS.items()}
# Of fastrnn.torch.LSTM.
OURS = {name: _routed(name, original, always=True) for name, original in ORIGINALS.items()}
# class -> its forward, and that with the shortcut; not of a class that others had changed before
FORWARDS: dict[Any, tuple[Any, Any]] = {
    kind: (kind.forward, shortcut.forward_of(kind, kind.forward, ROUTED)) for kind in shortcut.METHODS
}


def patch(*, sb3: bool = False) -> None:
    """Make the recurrent layers of this process run on fastrnn: all modules, existing and future, dense and packed.

    What fastrnn does not compute goes to PyTorch unchanged; `report` tells. Calling it twice is calling it once.

    Parameters
    ----------
    sb3 : bool
        Also give sb3-contrib's recurrent policies one call for a rollout with episode starts inside, in the place of
        one for every step.

    Raises
    ------
    ImportError
        sb3 without sb3-contrib.
    """
    global _patches
    with _lock:
        if sb3:
            _sb3.install()
        _patches = max(_patches, 1)
        _install()


def unpatch() -> None:
    """Give PyTorch its functions back, whatever the number of `patch` calls before."""
    global _patches
    with _lock:
        _patches = 0
        _remove()
        _sb3.remove()


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
    global _threads, _installed
    if _installed:
        return
    getter = getattr(backends.current(), "get_num_threads", None)
    _threads = getter() if getter is not None else 0
    routes.follow(True)
    if "torch._dynamo" in sys.modules:
        _allow_rnn()
    torch.compile = _compile
    for name, function in ROUTED.items():
        found = vars(torch._VF).get(name)
        if found is None or found is not _above.get(name):  # else it still calls ours
            if found is not None and found is not function:
                _below[name] = found
            setattr(torch._VF, name, function)
        # TorchScript compiles a module's source and looks up what `_VF.lstm` stands for: still the operator.
        _builtins._register_builtin(function, f"aten::{name}")
        _builtins._register_builtin(OURS[name], f"aten::{name}")
    for kind, (original, shorter) in FORWARDS.items():
        if kind.forward is original:  # else somebody else's, to whom it is left
            kind.forward = shorter
    _installed = True


def _remove() -> None:
    global _installed
    if not _installed:
        return
    _installed = False
    for name, function in ROUTED.items():
        found = vars(torch._VF).get(name)
        below = _below.pop(name, None)
        if found is function and below is not None:
            setattr(torch._VF, name, below)
        elif found is function:
            delattr(torch._VF, name)
        _above.pop(name, None)
        if found is not function and found is not None:
            _above[name] = found
    for kind, (original, shorter) in FORWARDS.items():
        if kind.forward is shorter:
            kind.forward = original
    if torch.compile is _compile:
        torch.compile = _torch_compile
    _refuse_rnn()
    routes.follow(False)
    setter = getattr(backends.current(), "set_num_threads", None)
    if setter is not None and _threads:
        setter(_threads)


def _compile(*args: Any, **kwargs: Any) -> Any:
    """What stands in the place of `torch.compile`: importing the compiler, 1.2 s, waits until it is wanted."""
    _allow_rnn()
    return _torch_compile(*args, **kwargs)


def _allow_rnn() -> None:
    """PyTorch's compiler refuses recurrent modules unless this is set.

    That of PyTorch 2.4, which does not look inside modules, takes them as they are then, and fails on an LSTM; refused,
    they run uncompiled and patched.
    """
    global _allowed
    if torch.__version__.startswith("2.4."):
        return
    config: Any = importlib.import_module("torch._dynamo.config")
    if _allowed is None and hasattr(config, "allow_rnn"):  # without it nothing has to be allowed
        _allowed, config.allow_rnn = config.allow_rnn, True


def _refuse_rnn() -> None:
    """The compiler's setting as it was."""
    global _allowed
    if _allowed is not None:
        config: Any = importlib.import_module("torch._dynamo.config")
        config.allow_rnn, _allowed = _allowed, None
