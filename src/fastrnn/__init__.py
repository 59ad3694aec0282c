"""The fastest recurrent networks on a CPU: RNN, LSTM and GRU, forward and backward, needing only NumPy.

>>> import numpy as np, fastrnn
>>> lstm = fastrnn.LSTM(input_size=8, hidden_size=16, rng=0)
>>> y, (h, c) = lstm(np.zeros((100, 4, 8)))                    # inference
>>> y, state, tape = lstm.forward(np.zeros((100, 4, 8)))       # training
>>> grads = lstm.backward(tape, dy=np.ones_like(y))            # grads.x, grads.state, grads.weights["weight_hh_l0"]

`fastrnn.functional` has the same as functions of arrays; `fastrnn.training` what a small training loop needs besides.
`fastrnn.sequences` has ragged, windowed and chunked data; `fastrnn.diagnostics` shows what a recurrence does.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from . import functional
from ._config import get_num_threads, set_num_threads, show_config
from ._paths import cmake_dir, get_include
from .backends import backend
from .layers import GRU, LSTM, RNN, Stream, load

if TYPE_CHECKING:
    from . import diagnostics, sequences, training

__version__ = "0.1.0"

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "Stream",
    "__version__",
    "backend",
    "cmake_dir",
    "diagnostics",
    "functional",
    "get_include",
    "get_num_threads",
    "load",
    "sequences",
    "set_num_threads",
    "show_config",
    "training",
]


def __getattr__(name: str) -> Any:
    """What inference does not need is imported when it is first used."""
    if name in ("diagnostics", "onnx", "sequences", "training", "weights"):
        return import_module(f".{name}", __name__)
    message = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(message)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
