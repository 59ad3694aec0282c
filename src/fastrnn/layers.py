"""The recurrent layers: LSTM, GRU and Elman RNN.

Letters: T steps, N batch, I input_size, H hidden_size, D directions (2 if bidirectional, else 1), L num_layers.
Names, arguments, shapes, gate order and layout of the weights are PyTorch's, so a `state_dict` moves across unchanged.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import numpy.typing as npt

from . import _io
from ._recurrent import Recurrent
from ._stream import Stream

__all__ = ["GRU", "LSTM", "RNN", "Stream", "load"]

Array = npt.NDArray[Any]
Rng = int | np.random.Generator | None


class LSTM(Recurrent[tuple[Array, Array]]):
    """Long short-term memory, in layers and one or both directions.

    Per step, with gates stacked in the order i f g o::

        i, f, o = sigmoid(W x[t] + b + U h[t-1] + b')         g = tanh(the same)
        c[t] = f * c[t-1] + i * g                             h[t] = o * tanh(c[t])

    Parameters
    ----------
    input_size, hidden_size, num_layers : int
        Positive.
    bias : bool
        Whether there are `bias_ih` and `bias_hh`.
    batch_first : bool
        Swaps the first two axes of x, y, dy, grads.x, reset and mask (never of states).
    dropout : float
        Probability with which `forward` zeroes an output on its way to the next layer; a call never does.
    bidirectional : bool
        Adds a direction that runs from each row's last step to its first.
    proj_size : int
        0.
    dtype : float32 or float64
        Of weights, states, outputs and gradients.
    rng : None, int or numpy.random.Generator
        For the weights, uniform in -1/sqrt(H) to 1/sqrt(H) and drawn in `state_dict` order, then for dropout.

    Attributes
    ----------
    weight_ih_l{k}, weight_hh_l{k}, bias_ih_l{k}, bias_hh_l{k} : ndarray, read-only
        Shapes (4*H, I or D*H), (4*H, H), (4*H,), (4*H,); with the suffix `_reverse` for the reverse direction.
        Can be assigned.

    Raises
    ------
    TypeError, ValueError
        An argument that is not as described, named.

    Notes
    -----
    Hochreiter and Schmidhuber, "Long short-term memory", Neural Computation 9 (1997), with the forget gate of Gers,
    Schmidhuber and Cummins, "Learning to forget", Neural Computation 12 (2000).

    Examples
    --------
    >>> import numpy as np, fastrnn
    >>> lstm = fastrnn.LSTM(3, 8, num_layers=2, rng=0)
    >>> y, (h, c) = lstm(np.zeros((5, 1, 3)))
    >>> y.shape, h.shape, c.shape
    ((5, 1, 8), (2, 1, 8), (2, 1, 8))
    """

    __slots__ = ()
    _cell = "lstm"

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        dtype: npt.DTypeLike = np.float32,
        rng: Rng = None,
    ) -> None:
        super().__init__(
            input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, proj_size, dtype, rng
        )


class GRU(Recurrent[Array]):
    """Gated recurrent unit, in layers and one or both directions.

    Per step, with gates stacked in the order r z n::

        r, z = sigmoid(W x[t] + b + U h[t-1] + b')
        n = tanh(W_n x[t] + b_n + r * (U_n h[t-1] + b'_n))    if reset_after
        n = tanh(W_n x[t] + b_n + U_n (r * h[t-1]) + b'_n)    else
        h[t] = (1 - z) * n + z * h[t-1]

    Parameters
    ----------
    input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, proj_size, dtype, rng
        As for `LSTM`; weights have 3*H rows.
    reset_after : bool
        Whether the reset gate applies after the recurrent product (PyTorch, cuDNN, the default of Keras) or before it
        (the paper, the default of ONNX).

    Raises
    ------
    TypeError, ValueError
        An argument that is not as described, named.

    Notes
    -----
    Cho et al., "Learning phrase representations using RNN encoder-decoder for statistical machine translation",
    EMNLP 2014.
    """

    __slots__ = ()
    _cell = "gru"
    _own = ("reset_after",)

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        dtype: npt.DTypeLike = np.float32,
        rng: Rng = None,
        reset_after: bool = True,
    ) -> None:
        super().__init__(
            input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, proj_size, dtype, rng,
            reset_after=reset_after,
        )  # fmt: skip


class RNN(Recurrent[Array]):
    """Elman network, in layers and one or both directions: h[t] = act(W x[t] + b + U h[t-1] + b').

    Parameters
    ----------
    input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, proj_size, dtype, rng
        As for `LSTM`; weights have H rows.
    nonlinearity : {"tanh", "relu"}
        act.

    Raises
    ------
    TypeError, ValueError
        An argument that is not as described, named.

    Notes
    -----
    Elman, "Finding structure in time", Cognitive Science 14 (1990).
    """

    __slots__ = ()
    _cell = "rnn"
    _own = ("nonlinearity",)

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        dtype: npt.DTypeLike = np.float32,
        rng: Rng = None,
        nonlinearity: str = "tanh",
    ) -> None:
        super().__init__(
            input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, proj_size, dtype, rng,
            nonlinearity=nonlinearity,
        )  # fmt: skip


def load(path: str | os.PathLike[str]) -> LSTM | GRU | RNN:
    """The layer that `layer.save(path)` wrote: cell, options and weights, with a fresh random generator.

    Parameters
    ----------
    path : str or path-like
        Ends in .npz or .safetensors. Nothing in the file is executed.

    Raises
    ------
    OSError
        The file cannot be read.
    ValueError
        Another suffix, a damaged file, one not written by `save`, or weights that are not exactly those of its options.
    ImportError
        .safetensors without the package of that name.
    """
    arrays, header = _io.read(path)
    kinds: dict[str, type[LSTM | GRU | RNN]] = {"LSTM": LSTM, "GRU": GRU, "RNN": RNN}
    kind = kinds.get(str(header.get("layer")))
    options = header.get("options")
    if kind is None or header.get("format") != 1 or not isinstance(options, dict):
        what = f"{header.get('layer')!r} in format {header.get('format')!r}"
        message = f"{path} holds {what}; it must be one of {', '.join(kinds)} in format 1"
        raise ValueError(message)
    return kind._restore(options, arrays)
