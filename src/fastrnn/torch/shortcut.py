"""The forward of `torch.nn.LSTM`, `GRU` and `RNN` in one step, for the calls that are ours.

PyTorch's own makes states of zeros where none are given, looks every weight up by name and asks one method after the
other whether the sizes fit, before it comes to `torch._VF.lstm`. A call that is ours has been asked all of that there.
Whatever is not takes PyTorch's forward, and so has its messages and its way through `torch._VF`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from operator import attrgetter, is_
from types import FunctionType
from typing import Any

import torch

from . import autograd, routes
from .cache import PLAIN

Forward = Callable[..., Any]

# What PyTorch's forward calls. Of a class or of a module that has its own, it is called.
_ASKED = frozenset({
    "_update_flat_weights", "_weights_have_changed", "check_forward_args", "check_hidden_size", "check_input",
    "get_expected_cell_size", "get_expected_hidden_size", "permute_hidden",
})  # fmt: skip
_methods: dict[type[torch.nn.RNNBase], Callable[[type], Any]] = {
    kind: attrgetter(*(name for name in _ASKED if hasattr(kind, name)))
    for kind in (torch.nn.LSTM, torch.nn.GRU, torch.nn.RNN)
}
_usual = {kind: methods(kind) for kind, methods in _methods.items()}
_is_compiling = torch.compiler.is_compiling


def is_usual(module: torch.nn.RNNBase, kind: type[torch.nn.RNNBase]) -> bool:
    """Whether its methods are PyTorch's, and its list of weights is what its parameters are now."""
    state = vars(module)
    if _methods[kind](type(module)) != _usual[kind] or not state.keys().isdisjoint(_ASKED):
        return False
    try:
        parameters, names, weights = state["_parameters"], state["_flat_weights_names"], state["_flat_weights"]
    except KeyError:  # PyTorch tells what is missing
        return False
    return len(names) == len(weights) and all(map(is_, map(parameters.get, names), weights))


def outputs(module: torch.nn.RNNBase, kind: type[torch.nn.RNNBase], x: Any, hx: Any) -> Any:
    """(y, h) or (y, (h, c)), as the module's forward gives them; None of a call that is not ours, or has to ask."""
    if type(x) not in PLAIN or routes.context() or not is_usual(module, kind):
        return None
    name = module.mode.lower()
    call, x, h0, c0, params, _ = routes.prepared(
        *routes.SEQUENCES[name], x, hx, module._flat_weights, module.bias, module.num_layers,
        module.dropout if module.training else 0.0, module.bidirectional, module.batch_first,
    )  # fmt: skip
    if call is None or (call.spec.input_size, call.spec.hidden_size) != (module.input_size, module.hidden_size):
        return None
    routes.ONE_MORE[name]()
    made = autograd.run(call, x, h0, c0, params)
    return made if len(made) == 2 else (made[0], made[1:])


def forward_of(kind: type[torch.nn.RNNBase], original: Forward, functions: Mapping[str, Forward]) -> Forward:
    """The class's forward with the shortcut before it, open while `torch._VF` has these functions.

    TorchScript reads the source of what this wraps and looks names up where this function does: it is one of PyTorch's
    module, and has no global name of its own.
    """
    found = vars(torch._VF).get

    def shortcut(module: torch.nn.RNNBase, x: Any, hx: Any) -> Any:
        if _is_compiling():  # first: the compiler reads no further
            return None
        name = module.mode.lower()
        return outputs(module, kind, x, hx) if name in functions and found(name) is functions[name] else None

    def forward(self: Any, input: Any, hx: Any = None) -> Any:
        made = shortcut(self, input, hx)
        return original(self, input, hx) if made is None else made

    assert isinstance(original, FunctionType)
    made = FunctionType(forward.__code__, original.__globals__, "forward", forward.__defaults__, forward.__closure__)
    return wraps(original)(made)
