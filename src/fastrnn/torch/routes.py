"""Which calls of PyTorch's functions are fastrnn's, and what they are.

A call is PyTorch's unless everything about it is known to be ours. The original then gets the arguments as they came,
so its results and its messages are PyTorch's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.utils._device import DeviceContext

from .._packing import Packing
from .cache import DTYPES, PLAIN, Array, Snapshot, is_plain, known, snapshot
from .call import Call
from .draws import Rates
from .report import OURS, Tally

# function of torch._VF -> cell, nonlinearity
SEQUENCES = {
    "lstm": ("lstm", "tanh"), "gru": ("gru", "tanh"), "rnn_tanh": ("rnn", "tanh"), "rnn_relu": ("rnn", "relu"),
}  # fmt: skip
CELLS = {f"{name}_cell": what for name, what in SEQUENCES.items()}
ONE_MORE = {name: Tally(name).one_more for name in (*SEQUENCES, *CELLS)}  # counts a call that is ours

following = False  # whether fastrnn's number of threads is PyTorch's: under the patch
_followed = 0  # what PyTorch's number of threads was last


# Asked at every call, so looked up once.
_tracing = torch._C._get_tracing_state
_transform = torch._C._functorch.peek_interpreter_stack
_autocast = torch.is_autocast_enabled
_dispatch_modes, _function_modes = torch._C._len_torch_dispatch_stack, torch._C._len_torch_function_stack
_threads = torch.get_num_threads


def context() -> str:
    """Why no call is ours now: something that watches, replaces or records PyTorch's operations."""
    if _tracing() is not None:
        return "tracing"
    if _transform() is not None:
        return "functorch transform"
    if _autocast("cpu"):
        return "autocast"
    if _dispatch_modes() or (_function_modes() and not _only_devices()):
        return "a mode is active"
    if forward_ad._current_level >= 0:
        return "forward-mode derivatives"
    return ""


def _only_devices() -> bool:
    """Whether no mode is active but `torch.set_default_device`, which says where new tensors go and no more."""
    return all(type(torch._C._get_function_stack_at(i)) is DeviceContext for i in range(_function_modes()))


def unsuitable(tensor: Any, dtype: torch.dtype) -> str:
    """Why a tensor is not one that kernels can read."""
    if type(tensor) not in PLAIN:
        return "not a plain tensor"
    if tensor.dtype is not dtype:
        return "unlike dtypes"
    return "" if is_plain(tensor) else "not in this machine's memory"


def follow_threads(module: Any) -> None:
    """Under the patch a call may use as many threads as PyTorch does."""
    global _followed
    if not following:
        return
    threads = _threads()
    if threads != _followed:
        _followed = threads
        setter = getattr(module, "set_num_threads", None)
        if setter is not None:
            setter(threads)


def follow(on: bool) -> None:
    """From the next call on PyTorch's number of threads holds, or no longer."""
    global following, _followed
    following, _followed = on, 0


Parsed = tuple[Call | None, Any, Any, Any, Sequence[Tensor], str]
NOTHING: tuple[None, None, None, None, tuple[()]] = (None, None, None, None, ())


def sequence(kind: str, nonlinearity: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Parsed:
    """(input, hx, params, has_biases, L, dropout, train, bidirectional, batch_first), or of a PackedSequence
    (data, batch_sizes, hx, params, has_biases, L, dropout, train, bidirectional).
    """
    if kwargs or len(args) != 9:
        return *NOTHING, "keyword arguments"
    sizes = None
    if isinstance(args[3], bool):
        x, hx, params, biases, layers, dropout, train, both, first = args
    else:
        x, sizes, hx, params, biases, layers, dropout, train, both = args
        first = False
    # An option of another type PyTorch may take, or tell what it is.
    flags = biases, train, both, first
    if type(layers) is not int or not isinstance(dropout, (float, int)) or any([type(f) is not bool for f in flags]):
        return *NOTHING, "arguments that do not fit"
    reason = context()
    if reason:
        return *NOTHING, reason
    return prepared(kind, nonlinearity, x, hx, params, biases, layers, dropout if train else 0.0, both, first, sizes)


def prepared(
    kind: str, nonlinearity: str, x: Any, hx: Any, params: Any, biases: Any, layers: Any, p: Any, both: Any, first: Any,
    sizes: Any = None, lengths: Any = None, reset: Any = None, rates: Rates | None = None,
) -> Parsed:  # fmt: skip
    """The call that these arguments make, or why they make none of ours."""
    layout = "NTI" if first else "TNI"
    h0, c0 = (None, None) if hx is None else _split(kind, hx)
    plain = not (p or rates or (h0 is None and hx is not None)) and sizes is lengths is reset is None
    weights = known(kind, nonlinearity, biases, layers, both, params)
    if plain and weights is not None and (call := _seen(weights, layout, x, h0, c0)) is not None:
        return call, x, h0, c0, params, OURS
    if type(x) not in PLAIN:
        return *NOTHING, "not a plain tensor"
    if x.dtype not in DTYPES:
        return *NOTHING, f"dtype {x.dtype}"
    if not is_plain(x):
        return *NOTHING, "not in this machine's memory"
    if hx is not None and (reason := unsuitable(h0, x.dtype) or (unsuitable(c0, x.dtype) if kind == "lstm" else "")):
        return *NOTHING, reason
    weights = weights or snapshot(kind, nonlinearity, biases, layers, both, params)
    if weights is None or weights.spec.dtype_name != DTYPES[x.dtype]:
        return *NOTHING, "weights of another kind (projection, dtype, device)"
    spec, shape = weights.spec, x.shape
    if sizes is not None:
        if type(sizes) is not Tensor or not is_plain(sizes):
            return *NOTHING, "batch sizes that are not in this machine's memory"
        if len(shape) != 2 or sizes.dtype is not torch.int64 or sizes.dim() != 1:
            return *NOTHING, "arguments that do not fit"
        return _packed(weights, x, h0, c0, params, sizes, p, rates)
    if len(shape) != 3 or 0 in shape or not 0 <= p <= 1:
        return *NOTHING, "arguments that do not fit"
    batch, steps = (shape[0], shape[1]) if first else (shape[1], shape[0])
    wanted = (spec.num_layers * spec.directions, batch, spec.hidden_size)
    # Written out: a loop over the states would take 1 us of the 9 that a call of one step is routed in.
    if (
        shape[2] != spec.input_size
        or (h0 is not None and h0.shape != wanted)
        or (c0 is not None and c0.shape != wanted)
    ):
        return *NOTHING, "arguments that do not fit"
    call = _seen(weights, layout, x, h0, c0) if plain else None
    if call is None:
        follow_threads(weights.module)
        call = Call(weights, layout, steps, batch, p, lengths, reset, None, rates)
    return call, x, h0, c0, params, OURS


def _split(kind: str, hx: Any) -> tuple[Any, Any]:
    """h0 and c0; what is no pair is no LSTM's state and will not pass as one."""
    if kind != "lstm":
        return hx, None
    if isinstance(hx, (tuple, list)) and len(hx) == 2:  # `tuple | list` would be made anew at each call
        return hx[0], hx[1]
    return hx, None


def _seen(weights: Snapshot, layout: str, x: Any, h0: Any, c0: Any) -> Call | None:
    """The call of tensors that the backend has seen to be what they mostly are: plain, dense, and of the right shapes.

    None of others, and of backends that do not look: then one thing is asked after the other.
    """
    seen = None if weights.calls is None else weights.calls.see(x, h0, c0, layout)
    if seen is None:
        return None
    follow_threads(weights.module)
    steps, batch, _ = seen[0].shape
    if layout == "NTI":
        steps, batch = batch, steps
    return Call(weights, layout, steps, batch, seen=seen)


def _packed(
    weights: Snapshot,
    data: Tensor,
    h0: Tensor | None,
    c0: Tensor | None,
    params: Sequence[Tensor],
    sizes: Tensor,
    p: float,
    rates: Rates | None,
) -> Parsed:
    """The call that the data and batch sizes of a PackedSequence make."""
    spec, counts = weights.spec, sizes.numpy()
    batch = int(counts[0]) if len(counts) else 0
    wanted = (spec.num_layers * spec.directions, batch, spec.hidden_size)
    if (
        batch < 1 or counts[-1] < 1 or (np.diff(counts) > 0).any() or counts.sum() != data.shape[0]
        or data.shape[1] != spec.input_size or not 0 <= p <= 1
        or any(s is not None and s.shape != wanted for s in (h0, c0))
    ):  # fmt: skip
        return *NOTHING, "arguments that do not fit"
    follow_threads(weights.module)
    return packed_call(weights, counts, p, rates), data, h0, c0, params, OURS


def packed_call(weights: Snapshot, counts: Array, p: float, rates: Rates | None = None) -> Call:
    """The call of a PackedSequence with these batch sizes."""
    counts = np.array(counts)  # the caller may change its own
    lengths = np.searchsorted(-counts, -np.arange(counts[0]), side="left")  # a row at place n has t if counts[t] > n
    packing = Packing(len(counts), lengths, batch_sizes=counts)
    return Call(weights, "rows", packing.steps, packing.batch, p, lengths, None, packing, rates)


def cell(kind: str, nonlinearity: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Parsed:
    """(input, hx, w_ih, w_hh, b_ih, b_hh)."""
    if kwargs or len(args) != 6:
        return *NOTHING, "keyword arguments"
    x, hx, *params = args
    reason = context()
    if reason:
        return *NOTHING, reason
    biases = params[2] is not None
    params = params if biases else params[:2]
    if biases is (args[5] is None):
        return *NOTHING, "arguments that do not fit"
    h0, c0 = _split(kind, hx)
    weights = known(kind, nonlinearity, biases, 1, False, params)
    if h0 is not None and weights is not None and (call := _seen(weights, "NI", x, h0, c0)) is not None:
        return call, x, h0, c0, params, OURS
    if not isinstance(x, Tensor) or x.dim() != 2 or 0 in x.shape:
        return *NOTHING, "arguments that do not fit"
    for tensor in (x, h0, c0) if kind == "lstm" else (x, h0):
        reason = unsuitable(tensor, x.dtype)
        if reason:
            return *NOTHING, reason
    weights = weights or snapshot(kind, nonlinearity, biases, 1, False, params)
    if weights is None or weights.spec.dtype_name != DTYPES[x.dtype]:
        return *NOTHING, "weights of another kind (projection, dtype, device)"
    wanted = (x.shape[0], weights.spec.hidden_size)
    if x.shape[1] != weights.spec.input_size or h0.shape != wanted or (c0 is not None and c0.shape != wanted):
        return *NOTHING, "arguments that do not fit"
    call = _seen(weights, "NI", x, h0, c0)
    if call is None:
        follow_threads(weights.module)
        call = Call(weights, "NI", 1, x.shape[0])
    return call, x, h0, c0, params, OURS
