"""PyTorch's recurrent modules on fastrnn, patched or not, with two arguments more.

They are subclasses: `isinstance`, `state_dict`, pickling, `flatten_parameters` and every option are PyTorch's, and so
are the forward methods, in which only the functions at the bottom are others.
"""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from .. import _validate
from . import autograd, routes
from .patch import OURS
from .report import count

_FUNCTIONS = SimpleNamespace(**OURS)


def _on_fastrnn(forward: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, for which `_VF` is ours."""
    assert isinstance(forward, FunctionType)
    names = {**forward.__globals__, "_VF": _FUNCTIONS}
    made = FunctionType(forward.__code__, names, forward.__name__, forward.__defaults__, forward.__closure__)
    made.__kwdefaults__ = forward.__kwdefaults__
    return made


class _Sequence(torch.nn.RNNBase):
    """What the three have in common; not made by itself."""

    _plain: Callable[..., Any]

    def forward(self, input: Any, hx: Any = None, *, lengths: Any = None, reset: Any = None) -> Any:
        """As of the module of PyTorch with this name, and:

        Parameters
        ----------
        lengths : array_like of int, shape (N,), optional
            Row n runs lengths[n] steps, 0 to T, in any order; its later outputs are 0 and its final state is that of
            its last step. What a PackedSequence does, without packing.
        reset : array_like of bool, shape (T, N), (N, T) if batch_first, optional
            Boundaries between step t-1 and t, as where one episode ends and the next begins: the state is zero there,
            in both directions, and no gradient passes.

        Raises
        ------
        TypeError, ValueError
            lengths or reset that do not fit.
        RuntimeError
            lengths or reset where only PyTorch can compute: another device or dtype, autocast, a projection, ...
        """
        if lengths is None and reset is None:
            return self._plain(input, hx)
        return self._ragged(input, hx, lengths, reset)

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _ragged(self, x: Any, hx: Any, lengths: Any, reset: Any) -> Any:
        if not isinstance(x, Tensor) or x.dim() != 3:
            message = f"input is {type(x).__name__}; with lengths or reset it must be a 3-D tensor"
            raise ValueError(message)
        batch, steps = (x.shape[0], x.shape[1]) if self.batch_first else (x.shape[1], x.shape[0])
        if lengths is not None:
            lengths = _validate.lengths(lengths, steps, batch, True)
        if reset is not None:
            reset = _validate.flags("reset", reset, steps, batch, True, self.batch_first, True)
        if hx is None:
            shape = (self.num_layers * (1 + self.bidirectional), batch, self.hidden_size)
            hx = tuple(x.new_zeros(shape) for _ in range(2)) if self.mode == "LSTM" else x.new_zeros(shape)
        self.check_forward_args(x, hx, None)
        name = self.mode.lower()
        reason = routes.context()
        if not reason:
            call, x, h0, c0, params, reason = routes.prepared(
                *routes.SEQUENCES[name], x, hx, self._flat_weights, self.bias, self.num_layers,
                self.dropout if self.training else 0.0, self.bidirectional, self.batch_first, None, lengths, reset,
            )  # fmt: skip
        if reason:
            message = f"lengths and reset are not PyTorch's, and fastrnn does not compute this call: {reason}"
            raise RuntimeError(message)
        count(name, reason)
        assert call is not None
        y, *last = autograd.run(call, x, h0, c0, params)
        return y, tuple(last) if self.mode == "LSTM" else last[0]


class LSTM(_Sequence, torch.nn.LSTM):
    """`torch.nn.LSTM` on fastrnn, with `lengths` and `reset`."""

    _plain = _on_fastrnn(torch.nn.LSTM.forward)


class GRU(_Sequence, torch.nn.GRU):
    """`torch.nn.GRU` on fastrnn, with `lengths` and `reset`."""

    _plain = _on_fastrnn(torch.nn.GRU.forward)


class RNN(_Sequence, torch.nn.RNN):
    """`torch.nn.RNN` on fastrnn, with `lengths` and `reset`."""

    _plain = _on_fastrnn(torch.nn.RNN.forward)


class LSTMCell(torch.nn.LSTMCell):
    """`torch.nn.LSTMCell` on fastrnn."""

    forward = _on_fastrnn(torch.nn.LSTMCell.forward)


class GRUCell(torch.nn.GRUCell):
    """`torch.nn.GRUCell` on fastrnn."""

    forward = _on_fastrnn(torch.nn.GRUCell.forward)


class RNNCell(torch.nn.RNNCell):
    """`torch.nn.RNNCell` on fastrnn."""

    forward = _on_fastrnn(torch.nn.RNNCell.forward)
