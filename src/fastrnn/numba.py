"""fastrnn's kernels inside Numba's functions: ``@njit(nogil=True)``, ``prange``, ``cache=True``.

>>> import fastrnn, fastrnn.numba as frn
>>> policy = frn.bind(fastrnn.LSTM(4, 32, rng=0))      # weights and sizes: a tuple of arrays, as Numba takes them
>>> @numba.njit(nogil=True)
... def walk(policy, x):                               # x (T, 1, 4)
...     state, work = frn.new_state(policy), frn.new_workspace(policy, 1)
...     y = np.empty((1, 32), np.float32)
...     for t in range(len(x)):
...         frn.step(policy, x[t], state, y, work)
...     return y

Each function becomes part of its caller, which is compiled once per dtype. It calls the core by the name of a symbol
that importing this module registers, so functions that Numba has cached run in later processes too. A call runs on the
calling thread: rows, episodes or paths are the caller's to share, with ``prange`` or threads, each with a state and a
workspace of its own.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

import numpy as np
import numpy.typing as npt

from . import _validate
from . import layers as _layers
from .backends import backend, load

try:
    import llvmlite.binding as llvm
    import numba
except ImportError as error:
    message = 'fastrnn.numba needs Numba: pip install "fastrnn[numba]"'
    raise ImportError(message) from error

if TYPE_CHECKING:
    from collections.abc import Callable

    F = TypeVar("F", bound=Callable[..., Any])

__all__ = ["Bound", "backward", "bind", "forward", "new_state", "new_tape", "new_workspace", "step"]

Array = npt.NDArray[Any]


class Bound(NamedTuple):
    """A layer for Numba's functions: what `bind` gives. The weights are a copy; bind again after they change."""

    packed: Array  # panels, of the layer's dtype
    packed_backward: Array
    problem: Array  # bytes of a fastrnn_problem
    stepper: Array
    input_size: int
    output_size: int  # D*H
    hidden_size: int
    rows: int  # L*D of the states
    states: int  # 2: h and c (LSTM), 1: h
    weights: int  # elements of all weights
    batch_size: int
    step_bytes: int  # of the workspace of a step


def _address(name: str) -> int:
    """Of a function of the core, from the capsule that Cython made of it."""
    capsule = load("cpp").__pyx_capi__[name]  # type: ignore[attr-defined]
    api = ctypes.pythonapi
    api.PyCapsule_GetName.restype = ctypes.c_char_p
    api.PyCapsule_GetName.argtypes = [ctypes.py_object]
    api.PyCapsule_GetPointer.restype = ctypes.c_void_p
    api.PyCapsule_GetPointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
    return int(api.PyCapsule_GetPointer(capsule, api.PyCapsule_GetName(capsule)))


def _external(name: str, arguments: int) -> Any:
    llvm.add_symbol(name, _address(name))
    signature = numba.types.int64(*(numba.types.intp,) * arguments)
    return numba.types.ExternalFunction(name, signature)


_size = _external("fastrnn_flat_size", 4)
_step = _external("fastrnn_flat_step", 9)
_forward = _external("fastrnn_flat_forward", 16)
_backward = _external("fastrnn_flat_backward", 23)


def _intrinsic(function: Callable[..., Any]) -> Callable[[Array], int]:
    return cast("Callable[[Array], int]", numba.extending.intrinsic(function))


def _address_of(context: Any, builder: Any, signature: Any, values: Any) -> Any:
    pointer = context.make_array(signature.args[0])(context, builder, values[0]).data
    return builder.ptrtoint(pointer, context.get_value_type(signature.return_type))


@_intrinsic
def _at(typing: Any, array: Any) -> Any:
    """An array's address; `array.ctypes.data` counts references on the way, 2 atomic operations each time."""

    return numba.types.intp(array), _address_of


@_intrinsic
def _to(typing: Any, array: Any) -> Any:
    """The same of an array that is written to."""
    if not array.mutable:
        message = "fastrnn.numba: an array that is written to is read-only"
        raise numba.TypingError(message)
    return numba.types.intp(array), _address_of


@_intrinsic
def _item(typing: Any, array: Any) -> Any:
    """Bytes of an array's element, as a constant: `array.itemsize` is read, and a division by it is one."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        size = context.get_abi_sizeof(context.get_data_type(signature.args[0].dtype))
        return context.get_constant(signature.return_type, size)

    return numba.types.intp(array), generate


def _njit(function: F) -> F:
    # Inlined, a step passes no arrays field by field, 70 words of them: LSTM 1->16 in 84 instead of 138 ns, and in 75
    # with _at and _item. Into the caller's own code, not only its machine code: Numba then sees that what raises leaves
    # it, and leaves out the counting of references to x[t] and y[t]: 72, of which 66 are fastrnn_step (Zen 4).
    return cast("F", numba.njit(nogil=True, inline="always")(function))


def bind(layer: _layers.LSTM | _layers.GRU | _layers.RNN, batch_size: int = 1) -> Bound:
    """The layer as it is now, for the functions of this module.

    Parameters
    ----------
    layer : LSTM, GRU or RNN
        Whose weights are copied. Dropout is not applied.
    batch_size : int
        N of `step` and `new_state`; `forward` and `backward` take N from their arrays.

    Returns
    -------
    Bound
        A named tuple of arrays and integers, which functions of Numba take as an argument.

    Raises
    ------
    TypeError, ValueError
        batch_size is no positive integer; no layer, or one with options that the compiled kernels lack, or with
        zoneout, whose expectation these functions do not know.
    """
    count = _validate.positive_int("batch_size", batch_size)
    if not isinstance(layer, _layers.LSTM | _layers.GRU | _layers.RNN):
        message = f"layer is a {type(layer).__name__}; it must be a fastrnn LSTM, GRU or RNN"
        raise TypeError(message)
    with backend("cpp"):
        packed: Any = layer._bind()
    spec = packed.spec
    if packed.backend != "cpp" or any(spec.zoneout):
        message = f"layer is {layer!r}, which has options that these functions lack"
        raise ValueError(message)
    problem, stepper, forward_panels, backward_panels, step_bytes = load("cpp").plain_weights(packed, count)  # type: ignore[attr-defined]
    D = spec.directions
    return Bound(
        forward_panels.view(spec.dtype_name),
        backward_panels.view(spec.dtype_name),
        problem,
        stepper,
        spec.input_size,
        D * spec.hidden_size,
        spec.hidden_size,
        D * spec.num_layers,
        2 if spec.cell == "lstm" else 1,
        int(spec.weight_count),
        count,
        step_bytes,
    )


@_njit
def _aligned(nbytes: int) -> Array:
    raw = np.empty(nbytes + 64, np.uint8)
    start = -_at(raw) % 64
    return raw[start : start + nbytes]


@_njit
def new_state(bound: Bound) -> Array:
    """Zeros (S, L*D, N, H), N being bound.batch_size: h, and c behind it where the cell has one (S = 2)."""
    return np.zeros((bound.states, bound.rows, bound.batch_size, bound.hidden_size), bound.packed.dtype)


@_njit
def _bytes(bound: Bound, T: int, N: int, which: int) -> int:
    nbytes: int = _size(_at(bound.problem), T, N, which)
    if nbytes < 0:
        raise ValueError("fastrnn.numba: T or N is negative, or too large")  # noqa: EM101
    return nbytes


@_njit
def new_workspace(bound: Bound, T: int, N: int = 0) -> Array:
    """Memory for `step` (T = 1), or `forward` and `backward` of T steps of N rows; N = 0: of bound.batch_size.

    Raises ValueError where T or N is negative or too large, as all of these functions where an argument does not fit.
    """
    rows = N if N > 0 else bound.batch_size
    return _aligned(max(_bytes(bound, T, rows, 0), _bytes(bound, T, rows, 1)))


@_njit
def new_tape(bound: Bound, T: int, N: int = 0) -> Array:
    """Memory that `forward` fills for `backward`, for T steps of N rows; N = 0: of bound.batch_size."""
    return _aligned(_bytes(bound, T, N if N > 0 else bound.batch_size, 2))


@_njit
def _check(bound: Bound, state: Array, N: int, work: Array, wanted: int) -> None:
    if state.shape != (bound.states, bound.rows, N, bound.hidden_size) or not state.flags.c_contiguous:
        raise ValueError("fastrnn.numba: a state must be a contiguous (S, L*D, N, H)")  # noqa: EM101
    if not (state.dtype == bound.packed.dtype):
        raise TypeError("fastrnn.numba: arrays must have the layer's dtype")  # noqa: EM101
    if work.size < wanted:
        raise ValueError("fastrnn.numba: the workspace or tape is too small for this call")  # noqa: EM101


@_njit
def _check_rows(bound: Bound, x: Array, width: int) -> None:
    if not (x.dtype == bound.packed.dtype):
        raise TypeError("fastrnn.numba: arrays must have the layer's dtype")  # noqa: EM101
    if x.shape[-1] != width or x.strides[-1] != _item(x):
        raise ValueError("fastrnn.numba: an array's last axis must be contiguous, and input_size or D*H long")  # noqa: EM101


@_njit
def _done(status: int) -> None:
    if status != 0:
        raise ValueError("fastrnn.numba: the call was refused; arrays may overlap or be misaligned")  # noqa: EM101


@_njit
def step(bound: Bound, x: Array, state: Array, y: Array, work: Array) -> None:
    """One step of each row: x (N, input_size) -> y (N, D*H); state (S, L*D, N, H) is read and written.

    The bits are those of the layer's own step. work: `new_workspace(bound, 1)`.
    """
    _check_rows(bound, x, bound.input_size)
    _check_rows(bound, y, bound.output_size)
    if x.shape[0] != bound.batch_size or y.shape[0] != bound.batch_size:
        raise ValueError("fastrnn.numba: x and y must have the batch_size that bind was given")  # noqa: EM101
    _check(bound, state, bound.batch_size, work, bound.step_bytes)
    item, h = _item(x), _to(state)
    c = h + state.nbytes // 2 if bound.states == 2 else 0
    _done(
        _step(
            _at(bound.stepper),
            _at(bound.packed),
            _at(x),
            x.strides[0] // item,
            _to(y),
            y.strides[0] // item,
            h,
            c,
            _to(work),
        )
    )


@_njit
def forward(bound: Bound, x: Array, state: Array, y: Array, work: Array, tape: Array, last: Array) -> None:
    """A whole sequence: x (T, N, input_size) -> y (T, N, D*H), last (S, L*D, N, H) from state.

    work: `new_workspace(bound, T, N)`. tape: `new_tape(bound, T, N)`, or an empty array for inference. last may be
    state itself unless a tape is kept.
    """
    _check_rows(bound, x, bound.input_size)
    _check_rows(bound, y, bound.output_size)
    T, N = x.shape[0], x.shape[1]
    if y.shape[0] != T or y.shape[1] != N:
        raise ValueError("fastrnn.numba: y must have the T and N of x")  # noqa: EM101
    _check(bound, state, N, work, _bytes(bound, T, N, 0))
    _check(bound, last, N, tape, _bytes(bound, T, N, 2) if tape.size > 0 else 0)
    item, h, hn, half = _item(x), _at(state), _to(last), state.nbytes // 2
    c, cn = (h + half, hn + half) if bound.states == 2 else (0, 0)
    _done(
        _forward(
            _at(bound.problem),
            T,
            N,
            _at(bound.packed),
            _at(x),
            x.strides[0] // item,
            x.strides[1] // item,
            _to(y),
            y.strides[0] // item,
            y.strides[1] // item,
            h,
            c,
            hn,
            cn,
            _to(tape) if tape.size > 0 else 0,
            _to(work),
        )
    )


@_njit
def backward(
    bound: Bound, x: Array, state: Array, y: Array, dy: Array, tape: Array, work: Array, dx: Array, dweights: Array
) -> None:
    """Gradients of that forward call, whose x, state, y and tape these are; the tape is used up.

    dy (T, N, D*H) -> dx (T, N, input_size); dweights (weights,), in the order of `state_dict`, is added to.
    """
    T, N = x.shape[0], x.shape[1]
    _check_rows(bound, x, bound.input_size)
    _check_rows(bound, dx, bound.input_size)
    _check_rows(bound, y, bound.output_size)
    _check_rows(bound, dy, bound.output_size)
    if y.shape[:2] != (T, N) or dy.shape[:2] != (T, N) or dx.shape[:2] != (T, N):
        raise ValueError("fastrnn.numba: y, dy and dx must have the T and N of x")  # noqa: EM101
    _check_rows(bound, dweights, bound.weights)
    _check(bound, state, N, work, _bytes(bound, T, N, 1))
    _check(bound, state, N, tape, _bytes(bound, T, N, 2))
    item, h = _item(x), _at(state)
    c = h + state.nbytes // 2 if bound.states == 2 else 0
    _done(
        _backward(
            _at(bound.problem),
            T,
            N,
            _at(bound.packed_backward),
            _at(x),
            x.strides[0] // item,
            x.strides[1] // item,
            _at(y),
            y.strides[0] // item,
            y.strides[1] // item,
            h,
            c,
            _at(dy),
            dy.strides[0] // item,
            dy.strides[1] // item,
            _to(dx),
            dx.strides[0] // item,
            dx.strides[1] // item,
            0,
            0,
            _to(dweights),
            _to(tape),
            _to(work),
        )
    )
