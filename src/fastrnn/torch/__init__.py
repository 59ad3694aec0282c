"""One line makes a PyTorch program's recurrent layers fast on a CPU: `fastrnn.torch.patch()`.

>>> import torch, fastrnn.torch
>>> fastrnn.torch.patch()                   # torch.nn.LSTM, GRU, RNN and their cells now run on fastrnn
>>> lstm = torch.nn.LSTM(8, 16)
>>> y, (h, c) = lstm(torch.zeros(100, 4, 8))
>>> fastrnn.torch.report()
lstm          1 fastrnn

`with fastrnn.torch.patched():` does it for a block, `python -m fastrnn.torch script.py` for an unchanged
program.
"""

from __future__ import annotations

from .cache import invalidate
from .modules import GRU, LSTM, RNN, GRUCell, LSTMCell, RNNCell
from .patch import patch, patched, unpatch
from .report import report

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "GRUCell",
    "LSTMCell",
    "RNNCell",
    "invalidate",
    "patch",
    "patched",
    "report",
    "unpatch",
]
