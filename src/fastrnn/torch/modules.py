"""PyTorch's recurrent modules on fastrnn, patched or not, with `lengths`, `reset` and regularisers.

They are subclasses: `isinstance`, `state_dict`, pickling, `flatten_parameters` and every option are PyTorch's, and so
are the forward methods, in which only the functions at the bottom are others.
"""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from .. import _validate, _validate_regularisers
from . import autograd, compile, routes, shortcut
from .draws import Rates
from .patch import OURS, is_exporting
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

    # Of modules that were pickled before there were any.
    recurrent_dropout: float = 0.0
    zoneout: float | tuple[float, float] = 0.0

    _kind: type[torch.nn.RNNBase]
    _plain: Callable[..., Any]

    def __init__(
        self, *args: Any, recurrent_dropout: float = 0.0, zoneout: float | tuple[float, float] = 0.0, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.recurrent_dropout = _validate.fraction("recurrent_dropout", recurrent_dropout)
        h, c = _validate_regularisers.zoneout_rates(zoneout, self.mode.lower())
        self.zoneout = (h, c) if self.mode == "LSTM" and h != c else h

    def extra_repr(self) -> str:
        names = [name for name in ("recurrent_dropout", "zoneout") if getattr(self, name)]
        return super().extra_repr() + "".join(f", {name}={getattr(self, name)}" for name in names)

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
            lengths, reset, recurrent_dropout or zoneout where only PyTorch can compute: another device or dtype,
            autocast, a projection, ...
        """
        rates = self._rates()
        if lengths is None and reset is None and rates is None:
            made = None if torch.compiler.is_compiling() else self._short(input, hx)
            return self._plain(input, hx) if made is None else made
        if (
            lengths is None
            and reset is None
            and torch.compiler.is_compiling()
            and not isinstance(input, PackedSequence)
        ):
            return self._dense(input, hx, None, None, rates)
        return self._uncompiled(input, hx, lengths, reset, rates)

    def _short(self, x: Any, hx: Any) -> Any:
        """Outputs of an ordinary call, None of another."""
        name = shortcut.name_of(self, self._kind)
        return shortcut.outputs(self, self._kind, name, x, hx) if name else None

    def _rates(self) -> Rates | None:
        """What regularises this call, if anything does."""
        dropout, zoneout = self.recurrent_dropout if self.training else 0.0, self.zoneout
        if not dropout and not zoneout:
            return None
        h, c = zoneout if isinstance(zoneout, tuple) else (zoneout, zoneout if self.mode == "LSTM" else 0.0)
        return Rates(dropout, h, c, self.training)

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _uncompiled(self, x: Any, hx: Any, lengths: Any, reset: Any, rates: Rates | None) -> Any:
        if not isinstance(x, PackedSequence):
            return self._dense(x, hx, lengths, reset, rates)
        if lengths is not None or reset is not None:
            message = "input is a PackedSequence; with lengths or reset it must be a 3-D tensor"
            raise ValueError(message)
        data, sizes, order, back = x
        hx = self._zeros(data, int(sizes[0])) if hx is None else self.permute_hidden(hx, order)
        self.check_forward_args(data, hx, sizes)
        y, state = self._run(data, hx, sizes, None, None, rates)
        return PackedSequence(y, sizes, order, back), self.permute_hidden(state, back)

    def _dense(self, x: Any, hx: Any, lengths: Any, reset: Any, rates: Rates | None) -> Any:
        alone = isinstance(x, Tensor) and x.dim() == 2 and lengths is None and reset is None
        if not alone and (not isinstance(x, Tensor) or x.dim() != 3):
            what = f"{x.dim()}-D" if isinstance(x, Tensor) else f"a {type(x).__name__}"
            message = f"input is {what}; it must be a 3-D tensor, or without lengths and reset a 2-D one"
            raise ValueError(message)
        if alone:
            axis = 0 if self.batch_first else 1
            hx = None if hx is None else _each(hx, lambda state: state.unsqueeze(1))
            y, state = self._dense(x.unsqueeze(axis), hx, None, None, rates)
            return y.squeeze(axis), _each(state, lambda state: state.squeeze(1))
        if lengths is None and reset is None and 0 in x.shape:  # nothing to regularise, or PyTorch's message
            return self._plain(x, hx)
        batch, steps = (x.shape[0], x.shape[1]) if self.batch_first else (x.shape[1], x.shape[0])
        if lengths is not None:
            lengths = _validate.lengths(lengths, steps, batch, True)
        if reset is not None:
            reset = _validate.flags("reset", reset, steps, batch, True, self.batch_first, True)
        hx = self._zeros(x, batch) if hx is None else hx
        self.check_forward_args(x, hx, None)
        return self._run(x, hx, None, lengths, reset, rates)

    def _zeros(self, x: Tensor, batch: int) -> Any:
        """The state before the first step where none is given."""
        rows = self.num_layers * (1 + self.bidirectional)
        h, c = (x.new_zeros((rows, batch, width)) for width in (self.proj_size or self.hidden_size, self.hidden_size))
        return (h, c) if self.mode == "LSTM" else h

    def _run(self, x: Tensor, hx: Any, sizes: Any, lengths: Any, reset: Any, rates: Rates | None) -> Any:
        name, p = self.mode.lower(), self.dropout if self.training else 0.0
        made = None
        if torch.compiler.is_compiling():
            reason = "the compiler cannot take it" if not is_exporting() else "export"
            if not is_exporting():
                args = (x, hx, self._flat_weights, self.bias, self.num_layers, self.dropout, self.training,
                        self.bidirectional, self.batch_first)  # fmt: skip
                made = compile.sequence(*routes.SEQUENCES[name], args, rates)
        elif not (reason := routes.context()):
            call, x, h0, c0, params, reason = routes.prepared(
                *routes.SEQUENCES[name], x, hx, self._flat_weights, self.bias, self.num_layers,
                p, self.bidirectional, self.batch_first, sizes, lengths, reset, rates,
            )  # fmt: skip
            if call is not None:
                count(name, reason)
                made = autograd.run(call, x, h0, c0, params)
        if made is None:
            message = (
                "lengths, reset, recurrent_dropout and zoneout are not PyTorch's, "
                f"and fastrnn does not compute this call: {reason}"
            )
            raise RuntimeError(message)
        y, *last = made
        return y, tuple(last) if self.mode == "LSTM" else last[0]


def _each(state: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Of h, or of h and c."""
    return tuple(change(part) for part in state) if isinstance(state, tuple | list) else change(state)


class LSTM(_Sequence, torch.nn.LSTM):
    """`torch.nn.LSTM` on fastrnn, with `lengths` and `reset`, and two arguments more.

    Parameters
    ----------
    recurrent_dropout : float
        Probability with which training keeps a unit of h from the recurrent product, the same units at every step of a
        call: see `fastrnn.LSTM`.
    zoneout : float or (float, float)
        Probability with which training leaves a unit of the state as it was, drawn anew at every step; a pair is for h
        and for c. Otherwise the state has its expectation.

    Raises
    ------
    TypeError, ValueError
        Probabilities that are none, named; what PyTorch raises for its own arguments.

    Notes
    -----
    PyTorch's generator draws, for a call: dropout between layers, recurrent dropout, zoneout of h, zoneout of c.
    """

    _kind, _plain = torch.nn.LSTM, _on_fastrnn(torch.nn.LSTM.forward)


class GRU(_Sequence, torch.nn.GRU):
    """`torch.nn.GRU` on fastrnn, with the arguments that `LSTM` adds; zoneout is a number."""

    _kind, _plain = torch.nn.GRU, _on_fastrnn(torch.nn.GRU.forward)


class RNN(_Sequence, torch.nn.RNN):
    """`torch.nn.RNN` on fastrnn, with the arguments that `LSTM` adds; zoneout is a number."""

    _kind, _plain = torch.nn.RNN, _on_fastrnn(torch.nn.RNN.forward)


class LSTMCell(torch.nn.LSTMCell):
    """`torch.nn.LSTMCell` on fastrnn."""

    forward = _on_fastrnn(torch.nn.LSTMCell.forward)


class GRUCell(torch.nn.GRUCell):
    """`torch.nn.GRUCell` on fastrnn."""

    forward = _on_fastrnn(torch.nn.GRUCell.forward)


class RNNCell(torch.nn.RNNCell):
    """`torch.nn.RNNCell` on fastrnn."""

    forward = _on_fastrnn(torch.nn.RNNCell.forward)
