"""The forward of `torch.nn.LSTM`, `GRU` and `RNN` in one step, for the calls that are ours.

PyTorch's own makes states of zeros where none are given, looks every weight up by name and asks one method after the
other whether the sizes fit, before it comes to `torch._VF.lstm`. A call that is ours has been asked all of that there.
Whatever is not takes PyTorch's forward, and so has its messages and its way through `torch._VF`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from types import FunctionType
from typing import Any

import torch
from torch.nn.modules import rnn

from . import autograd, routes
from .cache import PLAIN, usual

Forward = Callable[..., Any]
Kind = type[torch.nn.RNNBase]

# What PyTorch's forward calls. Of a class or of a module that has its own, it is called.
_ASKED = (
    "_update_flat_weights", "_weights_have_changed", "check_forward_args", "check_hidden_size", "check_input",
    "get_expected_cell_size", "get_expected_hidden_size", "permute_hidden",
)  # fmt: skip
_is_compiling = torch.compiler.is_compiling


def _methods(kind: Kind) -> dict[str, Any]:
    return {name: getattr(kind, name) for name in _ASKED if hasattr(kind, name)}


def _is_pytorchs(kind: Kind) -> bool:
    """Whether the class's forward and all that it calls are as PyTorch wrote them, which others may have replaced."""
    functions = (kind.forward, *_methods(kind).values())
    return all(isinstance(f, FunctionType) and f.__code__.co_filename == rnn.__file__ for f in functions)


# Those methods, of each class that is PyTorch's own at this time: of another there is no shortcut.
METHODS: dict[Kind, dict[str, Any]] = {
    kind: _methods(kind) for kind in (torch.nn.LSTM, torch.nn.GRU, torch.nn.RNN) if _is_pytorchs(kind)
}
_usual: dict[Kind, Any] = {}  # class -> what tells its ordinary modules from others


def weights_of(module: torch.nn.RNNBase, kind: Kind) -> Any:
    """The list of an ordinary module's weights; None of another, and until the compiled backend has been in force."""
    known = _usual.get(kind)
    if known is None:
        known = usual(kind, METHODS[kind]) if kind in METHODS else None
        if known is None:
            return None
        _usual[kind] = known
    return known.weights(module)


def name_of(module: torch.nn.RNNBase, kind: Kind) -> str:
    """Which function of `torch._VF` the module's forward comes to; "" if none."""
    if kind is not torch.nn.RNN:
        return "lstm" if kind is torch.nn.LSTM else "gru"
    mode = module.mode
    return "rnn_tanh" if mode == "RNN_TANH" else "rnn_relu" if mode == "RNN_RELU" else ""


def outputs(module: torch.nn.RNNBase, kind: Kind, name: str, x: Any, hx: Any) -> Any:
    """(y, h) or (y, (h, c)), as the module's forward gives them; None of a call that is not ours, or has to ask."""
    if type(x) not in PLAIN or x.dim() != 3 or routes.context():
        return None
    params = weights_of(module, kind)
    if params is None:
        return None
    call, x, h0, c0, params, _ = routes.prepared(
        *routes.SEQUENCES[name], x, hx, params, module.bias, module.num_layers,
        module.dropout if module.training else 0.0, module.bidirectional, module.batch_first,
    )  # fmt: skip
    if call is None or (call.spec.input_size, call.spec.hidden_size) != (module.input_size, module.hidden_size):
        return None
    routes.ONE_MORE[name]()
    made = autograd.run(call, x, h0, c0, params)
    return made if len(made) == 2 else (made[0], made[1:])


def forward_of(kind: Kind, original: Forward, functions: Mapping[str, Forward]) -> Forward:
    """The class's forward with the shortcut before it, open while `torch._VF` has these functions.

    TorchScript reads the source of what this wraps and looks names up where this function does: it is one of PyTorch's
    module, and has no global name of its own. The compiler goes by the file that code is from, and so that is the same.
    """
    assert isinstance(original, FunctionType)
    found, names = vars(torch._VF).get, original.__globals__

    def shortcut(module: torch.nn.RNNBase, x: Any, hx: Any) -> Any:
        if _is_compiling():  # first: the compiler reads no further
            return None
        name = name_of(module, kind)
        if names["_VF"] is not torch._VF or found(name) is not functions.get(name, original):
            return None
        return outputs(module, kind, name, x, hx)

    def forward(self: Any, input: Any, hx: Any = None) -> Any:
        made = shortcut(self, input, hx)
        return original(self, input, hx) if made is None else made

    theirs = original.__code__
    code = forward.__code__.replace(co_filename=theirs.co_filename, co_firstlineno=theirs.co_firstlineno)
    return wraps(original)(FunctionType(code, names, "forward", forward.__defaults__, forward.__closure__))
