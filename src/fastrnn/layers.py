"""The recurrent layers: LSTM, GRU and Elman RNN.

Letters: T steps, N batch, I input_size, H hidden_size, D directions (2 if bidirectional, else 1), L num_layers.
Names, arguments, shapes, gate order and layout of the weights are PyTorch's, so a `state_dict` moves across unchanged.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from . import _io
from ._recurrent import Recurrent
from ._stream import Stream

__all__ = ["GRU", "LSTM", "RNN", "Stream", "load"]

Array = npt.NDArray[Any]
Rng = int | np.random.Generator | None
# For each function a name, or a name with alpha and beta.
Activations = str | Sequence[str | Sequence[Any]] | None


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
        P, less than H. If it is not 0, h[t] is `weight_hr` times the above, and h and y have P values where they had H.
    recurrent_dropout : float
        Probability with which `forward` keeps a unit of h from the recurrent product, the same units at every step of a
        call: U multiplies m * h[t-1], m being 0 or 1/(1-p), drawn for each row, layer and direction. What goes past the
        product, as in a GRU, is not dropped. A call never drops.
    zoneout : float or (float, float)
        Probability with which `forward` leaves a unit of the state as it was, drawn anew at every step; a pair is for h
        and for c. h[t] = z_h h[t-1] + (1-z_h) o tanh(c~), c[t] = z_c c[t-1] + (1-z_c) c~, where c~ = f c[t-1] + i g and
        z is 0 or 1; a call and a stream have the probabilities in the place of z.
    dtype : float32 or float64
        Of weights, states, outputs and gradients.
    rng : None, int or numpy.random.Generator
        For the weights, uniform in -1/sqrt(H) to 1/sqrt(H) and drawn in `state_dict` order, then for what `forward`
        draws.
    peephole : bool
        Gates see the cell state: before their activation `weight_ph` adds p_i * c[t-1] to i, p_f * c[t-1] to f and
        p_o * c[t] to o.
    input_forget : bool
        Input and forget gate are coupled: f is 1 - i, and the forget gate's own weights have no effect.
    clip : float, optional
        What enters the activations of i, f, g and o is clipped to [-clip, clip]; the gradient is 0 beyond.
    activations : sequence of 3 or, for each direction its own, 6 functions, optional
        In the places of sigmoid for i, f and o, tanh for g and tanh for c. A function is one of ONNX's names (Relu,
        Tanh, Sigmoid, Affine, LeakyRelu, ThresholdedRelu, ScaledTanh, HardSigmoid, Elu, Softsign, Softplus), or a tuple
        of a name, alpha and beta.

    Attributes
    ----------
    weight_ih_l{k}, weight_hh_l{k}, bias_ih_l{k}, bias_hh_l{k} : ndarray, read-only
        Shapes (4*H, I or D*H), (4*H, H), (4*H,), (4*H,); with the suffix `_reverse` for the reverse direction.
        Can be assigned.
    weight_hr_l{k}, weight_ph_l{k} : ndarray, read-only
        Shapes (P, H), with a projection (weight_hh is (4*H, P) then, and weight_ih of later layers (4*H, D*P)), and
        (3*H,), peepholes in the order i f o.

    Raises
    ------
    TypeError, ValueError
        An argument that is not as described, named.

    Notes
    -----
    Hochreiter and Schmidhuber, "Long short-term memory", Neural Computation 9 (1997), with the forget gate of Gers,
    Schmidhuber and Cummins, "Learning to forget", Neural Computation 12 (2000). Projection: Sak, Senior and Beaufays,
    "Long short-term memory recurrent neural network architectures for large scale acoustic modeling", Interspeech 2014.
    Peepholes: Gers and Schmidhuber, "Recurrent nets that time and count", IJCNN 2000.
    Recurrent dropout: Gal and Ghahramani,
    "A theoretically grounded application of dropout in recurrent neural networks", NIPS 2016. Zoneout: Krueger et al.,
    "Zoneout: regularizing RNNs by randomly preserving hidden activations", ICLR 2017.

    With proj_size, peephole, input_forget, clip or other activations a layer runs on the general path: NumPy, whatever
    the backend, correct and slower. It is there for models that were made so.

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
    _own = ("peephole", "input_forget", "clip", "activations")

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
        recurrent_dropout: float = 0.0,
        zoneout: float | tuple[float, float] = 0.0,
        dtype: npt.DTypeLike = np.float32,
        rng: Rng = None,
        peephole: bool = False,
        input_forget: bool = False,
        clip: float | None = None,
        activations: Activations = None,
    ) -> None:
        super().__init__(
            input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, proj_size, dtype, rng,
            recurrent_dropout=recurrent_dropout, zoneout=zoneout, peephole=peephole, input_forget=input_forget,
            clip=clip, activations=activations,
        )  # fmt: skip


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
    recurrent_dropout, zoneout
        As for `LSTM`, zoneout being a number; weights have 3*H rows, and proj_size must be 0.
    reset_after : bool
        Whether the reset gate applies after the recurrent product (PyTorch, cuDNN, the default of Keras) or before it
        (the paper, the default of ONNX).
    clip, activations
        As for `LSTM`, with 2 functions, f of r and z and g of n, or for each direction its own 4.

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
    _own = ("reset_after", "clip", "activations")

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
        recurrent_dropout: float = 0.0,
        zoneout: float = 0.0,
        dtype: npt.DTypeLike = np.float32,
        rng: Rng = None,
        reset_after: bool = True,
        clip: float | None = None,
        activations: Activations = None,
    ) -> None:
        super().__init__(
            input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, proj_size, dtype, rng,
            recurrent_dropout=recurrent_dropout, zoneout=zoneout, reset_after=reset_after, clip=clip,
            activations=activations,
        )  # fmt: skip


class RNN(Recurrent[Array]):
    """Elman network, in layers and one or both directions: h[t] = act(W x[t] + b + U h[t-1] + b').

    Parameters
    ----------
    input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, proj_size, dtype, rng
    recurrent_dropout, zoneout
        As for `LSTM`, zoneout being a number; weights have H rows, and proj_size must be 0.
    nonlinearity : {"tanh", "relu"}
        act.
    clip, activations
        As for `LSTM`, with 1 function in the place of `nonlinearity`, or for each direction its own.

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
    _own = ("nonlinearity", "clip", "activations")

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
        recurrent_dropout: float = 0.0,
        zoneout: float = 0.0,
        dtype: npt.DTypeLike = np.float32,
        rng: Rng = None,
        nonlinearity: str = "tanh",
        clip: float | None = None,
        activations: Activations = None,
    ) -> None:
        super().__init__(
            input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, proj_size, dtype, rng,
            recurrent_dropout=recurrent_dropout, zoneout=zoneout, nonlinearity=nonlinearity, clip=clip,
            activations=activations,
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
