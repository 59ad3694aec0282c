"""ONNX models with their recurrent operators on fastrnn.

>>> import numpy as np, fastrnn, fastrnn.onnx
>>> model = fastrnn.onnx.export(fastrnn.LSTM(8, 16, rng=0))     # an onnx.ModelProto; models come from anywhere
>>> session = fastrnn.onnx.Session(model)                       # prepared once: weights packed
>>> y, h, c = session.run({"x": np.zeros((100, 4, 8), np.float32)})

`run` prepares and runs at once, `report` says what runs where and why, `layers` takes the recurrent layers out of a
model, and `Backend` is an `onnx.backend.base.Backend`.
"""

from __future__ import annotations

try:
    import onnx as _onnx  # noqa: F401
except ImportError as error:
    message = 'fastrnn.onnx needs the package onnx: pip install "fastrnn[onnx]"'
    raise ImportError(message) from error

from .backend import Backend
from .export import export
from .layers import layers
from .report import report
from .session import Session, run

__all__ = ["Backend", "Session", "export", "layers", "report", "run"]
