"""Every rule about what a user may pass, and every message about what he did pass.

Each function returns the value in the form the rest of the package wants, or raises one `TypeError` (what it is) or
`ValueError` (what it says) that names the argument, what it is and what it must be, before anything is written.
What is checked at every call is kept short where all is well.
"""

from __future__ import annotations

import contextlib
import operator
import sys
from typing import Any

import numpy as np
import numpy.typing as npt

from . import _validate_cells
from ._spec import Spec

Array = npt.NDArray[Any]
MAX_LAYERS = 1 << 16  # each has names and views of its own: a number without bound would take time without bound


# ---------------------------------------------------------------------------------------------------------------------
# Options of a layer


def positive_int(name: str, value: object) -> int:
    """A positive integer, Python's or NumPy's; no bool, no float."""
    number = _integer(name, value)
    if number < 1:
        message = f"{name} is {number}; it must be a positive integer"
        raise ValueError(message)
    return number


def natural_int(name: str, value: object) -> int:
    """0 or a positive integer."""
    number = _integer(name, value)
    if number < 0:
        message = f"{name} is {number}; it must not be negative"
        raise ValueError(message)
    return number


def _integer(name: str, value: object) -> int:
    if not isinstance(value, bool | np.bool_):
        try:
            return operator.index(value)  # type: ignore[arg-type]
        except TypeError:
            pass
    message = f"{name} is {value!r} ({type(value).__name__}); it must be an integer"
    raise TypeError(message)


def flag(name: str, value: object) -> bool:
    """True or False."""
    if isinstance(value, bool | np.bool_):
        return bool(value)
    message = f"{name} is {value!r} ({type(value).__name__}); it must be True or False"
    raise TypeError(message)


def fraction(name: str, value: object) -> float:
    """A real number from 0 to 1."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | float | np.integer | np.floating):
        message = f"{name} is {value!r} ({type(value).__name__}); it must be a number from 0 to 1"
        raise TypeError(message)
    if not 0 <= value <= 1:
        message = f"{name} is {value}; it must be a number from 0 to 1"
        raise ValueError(message)
    return float(value)


def choice(name: str, value: object, allowed: tuple[str, ...]) -> str:
    """One of a few words."""
    if isinstance(value, str) and value in allowed:
        return value
    message = f"{name} is {value!r}; it must be one of {', '.join(map(repr, allowed))}"
    raise ValueError(message)


def dtype_name(value: object) -> str:
    """ "float32" or "float64" from anything NumPy takes for one of them."""
    with contextlib.suppress(Exception):  # a string can even be a syntax error
        name = np.dtype(value).str  # type: ignore[call-overload]
        for known in ("float32", "float64"):
            if value is not None and name == np.dtype(known).str:
                return known
    message = f"dtype is {value!r}; it must be float32 or float64"
    raise TypeError(message)


def projection(cell: str, value: object, hidden_size: int) -> int:
    """proj_size: 0, or for an LSTM less than hidden_size."""
    size = natural_int("proj_size", value)
    if size and cell != "lstm":
        message = f"proj_size is {size}; for {cell.upper()} it must be 0, since only an LSTM has a projection"
        raise ValueError(message)
    if size >= hidden_size:
        message = f"proj_size is {size}; it must be less than hidden_size, which is {hidden_size}"
        raise ValueError(message)
    return size


def generator(value: object) -> np.random.Generator:
    """A generator from None (fresh entropy), a non-negative seed, or itself."""
    if value is None or isinstance(value, np.random.Generator):
        return np.random.default_rng(value)
    try:
        seed = _integer("rng", value)
    except TypeError:
        what = f"{value!r} ({type(value).__name__})"
        message = f"rng is {what}; it must be None, an integer seed or a numpy.random.Generator"
        raise TypeError(message) from None
    if seed < 0:
        message = f"rng is {seed}; a seed must not be negative"
        raise ValueError(message)
    return np.random.default_rng(seed)


def spec(cell: str, options: dict[str, Any]) -> Spec:
    """Spec of a layer from its constructor's arguments; those of one cell only may be absent."""
    hidden_size = positive_int("hidden_size", options["hidden_size"])
    bidirectional = flag("bidirectional", options["bidirectional"])
    nonlinearity = choice("nonlinearity", options.get("nonlinearity", "tanh"), ("tanh", "relu"))
    nonlinearity, functions = _validate_cells.functions(
        cell, nonlinearity, options.get("activations"), 1 + bidirectional
    )
    return sizes(
        Spec(
            cell=cell,
            input_size=positive_int("input_size", options["input_size"]),
            hidden_size=hidden_size,
            num_layers=positive_int("num_layers", options["num_layers"]),
            bias=flag("bias", options["bias"]),
            bidirectional=bidirectional,
            dtype_name=dtype_name(options["dtype"]),
            nonlinearity=nonlinearity,
            reset_after=flag("reset_after", options.get("reset_after", True)),
            proj_size=projection(cell, options.get("proj_size", 0), hidden_size),
            peephole=flag("peephole", options.get("peephole", False)),
            input_forget=flag("input_forget", options.get("input_forget", False)),
            clip=_validate_cells.clip(options.get("clip")),
            activations=functions,
        )
    )


def sizes(spec: Spec) -> Spec:
    """The spec, if the bytes of its weights can be counted by this machine."""
    if spec.num_layers > MAX_LAYERS:
        message = f"num_layers is {spec.num_layers}; it must be at most {MAX_LAYERS}"
        raise ValueError(message)
    rows = spec.gates * spec.hidden_size
    per_row = spec.output_size + (2 if spec.bias else 0)
    inputs = spec.input_size + (spec.num_layers - 1) * spec.directions * spec.output_size
    more = spec.num_layers * spec.hidden_size * (spec.proj_size + 3 * spec.peephole)
    count = spec.directions * (rows * (inputs + spec.num_layers * per_row) + more)
    if count * 8 > sys.maxsize:  # initial weights are drawn in float64
        message = (
            f"input_size {spec.input_size}, hidden_size {spec.hidden_size} and num_layers {spec.num_layers} "
            f"ask for {count} weights, more than this machine can address"
        )
        raise ValueError(message)
    return spec


# ---------------------------------------------------------------------------------------------------------------------
# Arrays of a call


def real_array(name: str, value: Any, dtype: npt.DTypeLike) -> Array:
    """`value` as an array of `dtype`: itself where it fits, else a converted copy."""
    array = value if type(value) is np.ndarray else plain_array(name, value)
    if array.dtype == dtype:
        return array
    if array.dtype.kind not in "biuf":
        message = f"{name} has dtype {array.dtype}; it must hold real numbers, as in float32 or float64"
        raise TypeError(message)
    return array.astype(dtype)


def plain_array(name: str, value: Any) -> Array:
    """What NumPy makes of a value, of whatever dtype."""
    if isinstance(value, np.ma.MaskedArray):
        message = f"{name} is a masked array; it must be a plain one: `mask` and `lengths` say what is not to be read"
        raise TypeError(message)
    try:
        return np.asarray(value)
    except Exception as error:  # whatever an object's __array__ may raise
        message = f"{name} is a {type(value).__name__} that is no array of numbers: {error}"
        raise (ValueError if isinstance(error, ValueError) else TypeError)(message) from error


def _shaped(name: str, array: Array, shape: tuple[int, ...], meaning: str = "") -> None:
    if array.shape != shape:
        message = f"{name} has shape {array.shape}; it must be {shape}{meaning and ', '}{meaning}"
        raise ValueError(message)


def fits(array: Array) -> bool:
    """Whether kernels can walk through a 3-D array: last axis dense, steps between rows whole and not backwards."""
    first, second, last = array.strides
    size = array.itemsize
    # The sign of `first | second` is negative if either is; its low bits are zero only if both multiples are whole.
    steps = first | second
    return last == size and steps >= 0 and not steps % size and array.flags.aligned


def sequence(spec: Spec, x: Any, batch_first: bool) -> tuple[Array, bool]:
    """x as (T, N, I) that `fits`, and whether it came with a batch axis."""
    dtype = spec.dtype
    if type(x) is not np.ndarray or x.dtype != dtype:
        x = real_array("x", x, dtype)
    batched = x.ndim == 3
    if not batched:
        if x.ndim != 2:
            raise _bad_x(spec, x.shape, batch_first)
        x = x[:, None, :]
    if x.shape[2] != spec.input_size:
        raise _bad_x(spec, x.shape if batched else x[:, 0].shape, batch_first)
    if batched and batch_first:
        x = x.transpose(1, 0, 2)
    if not fits(x):
        x = x.copy()  # C order: the only one whose strides are right whatever the sizes
    return x, batched


def _bad_x(spec: Spec, shape: tuple[int, ...], batch_first: bool) -> ValueError:
    axes = "N, T" if batch_first else "T, N"
    message = (
        f"x has shape {shape}; it must be ({axes}, input_size) or, without a batch, (T, input_size), "
        f"where input_size is {spec.input_size}"
    )
    return ValueError(message)


def like_output(name: str, value: Any, spec: Spec, steps: int, batch: int, batched: bool, batch_first: bool) -> Array:
    """dy, or what else is shaped like y, as (T, N, D*H or D*P) that `fits`."""
    array = real_array(name, value, spec.dtype)
    shape = output_shape(spec, steps, batch, batched, batch_first)
    _shaped(name, array, shape, "like y")
    array = time_major(array, batched, batch_first)
    return array if fits(array) else array.copy()


def output_shape(spec: Spec, steps: int, batch: int, batched: bool, batch_first: bool) -> tuple[int, ...]:
    """Shape of y as the user sees it."""
    width = spec.directions * spec.output_size
    if not batched:
        return (steps, width)
    return (batch, steps, width) if batch_first else (steps, batch, width)


def time_major(array: Array, batched: bool, batch_first: bool) -> Array:
    """View (T, N, X) of an array in the user's layout."""
    if not batched:
        return array[:, None]
    return array.swapaxes(0, 1) if batch_first else array


def output(out: Any, dtype: npt.DTypeLike, shape: tuple[int, ...]) -> Array:
    """The array that outputs shall be written to; its strides may be anything that gives each element its place."""
    if type(out) is np.ndarray and out.dtype == dtype and out.shape == shape and out.flags.carray:
        return out  # C-contiguous, aligned, writeable
    if not isinstance(out, np.ndarray):
        message = f"out is a {type(out).__name__}; it must be a NumPy array"
        raise TypeError(message)
    if out.dtype != dtype:
        message = f"out has dtype {out.dtype}; it must be {dtype}"
        raise TypeError(message)
    _shaped("out", out, shape)
    if not out.flags.writeable:
        message = "out is read-only; it must be writeable"
        raise ValueError(message)
    if 0 in out.strides and any(s == 0 and n > 1 for s, n in zip(out.strides, out.shape, strict=True)):
        message = "out repeats its elements (a stride is 0); each must have a place of its own"
        raise ValueError(message)
    return out if type(out) is np.ndarray else out.view(np.ndarray)


def apart(out: Array, *inputs: tuple[str, Array | None]) -> None:
    """Check that `out` shares no memory with an input, since it is written while they are read."""
    for name, array in inputs:
        if array is not None and overlap(out, array):
            message = f"out shares memory with {name}; it must be an array of its own"
            raise ValueError(message)


def overlap(a: Array, b: Array) -> bool:
    """Whether two arrays share an element; where that is too hard to tell, whether they might."""
    # The second question is only asked if the first, which compares ends of memory, is not enough.
    return np.may_share_memory(a, b) and np.may_share_memory(a, b, max_work=10_000)  # type: ignore[arg-type]


def state_shape(spec: Spec, batch: int, batched: bool = True, cell: bool = False) -> tuple[int, ...]:
    """Shape of h, or of the cell state c, as the user sees it."""
    layers, width = spec.num_layers * spec.directions, spec.hidden_size if cell else spec.output_size
    return (layers, batch, width) if batched else (layers, width)


def state(
    name: str, value: Any, spec: Spec, batch: int, batched: bool = True, own: bool = False, partial: bool = False
) -> tuple[Array | None, Array | None]:
    """(h, c), each C-contiguous (L*D, N, H; h with a projection P) or None, from a user's state.

    Parameters
    ----------
    name : str
        How to call it in messages.
    own : bool
        Always copy, because the arrays are kept beyond the call.
    partial : bool
        Whether h or c of an LSTM may be None.
    """
    if value is None:
        return None, None
    shape, c_shape = state_shape(spec, batch, batched), state_shape(spec, batch, batched, cell=True)
    if spec.cell != "lstm":
        return _state_array(name, value, spec, shape, batched, own), None
    if not isinstance(value, tuple | list) or len(value) != 2:
        what = f"a {type(value).__name__}" + (f" of {len(value)}" if isinstance(value, tuple | list) else "")
        message = f"{name} is {what}; for an LSTM it must be a pair (h, c)"
        raise TypeError(message)
    h, c = value
    for part, array, wanted in (("[0] (h)", h, shape), ("[1] (c)", c, c_shape)):
        if array is None and not partial:
            message = f"{name}{part} is None; it must be an array of shape {wanted}"
            raise TypeError(message)
    return (
        None if h is None else _state_array(f"{name}[0] (h)", h, spec, shape, batched, own),
        None if c is None else _state_array(f"{name}[1] (c)", c, spec, c_shape, batched, own),
    )


def _state_array(name: str, value: Any, spec: Spec, shape: tuple[int, ...], batched: bool, own: bool) -> Array:
    array = real_array(name, value, spec.dtype)
    width = "hidden_size" if shape[-1] == spec.hidden_size else "proj_size"
    _shaped(name, array, shape, f"(num_layers * num_directions, {'N, ' if batched else ''}{width})")
    if not batched:
        array = array[:, None]
    flags = array.flags
    return array if flags.c_contiguous and flags.aligned and not own else array.copy()


def lengths(value: Any, steps: int, batch: int, batched: bool) -> Array:
    """Steps per row as int64 (N,): integers from 0 to T. A copy, which no other thread can change during the call."""
    array = value if type(value) is np.ndarray else plain_array("lengths", value)
    if array.dtype.kind not in "iu" and not (array.size == 0 and array.dtype == np.float64):
        message = f"lengths has dtype {array.dtype}; it must hold integers"
        raise TypeError(message)
    _shaped("lengths", array, (batch,) if batched else (), "(N,)" if batched else "one integer")
    if array.size and not 0 <= (low := int(array.min())) <= (high := int(array.max())) <= steps:
        message = f"lengths holds {low if low < 0 else high}; every entry must be from 0 to T = {steps}"
        raise ValueError(message)
    return np.array(array.reshape(batch), dtype=np.int64)


def flags(name: str, value: Any, steps: int, batch: int, batched: bool, batch_first: bool, own: bool) -> Array:
    """reset or mask as C-contiguous bool (T, N)."""
    array = value if type(value) is np.ndarray else plain_array(name, value)
    if array.dtype != np.bool_ and not (array.size == 0 and array.dtype == np.float64):
        message = f"{name} has dtype {array.dtype}; it must be bool"
        raise TypeError(message)
    shape = (steps,) if not batched else (batch, steps) if batch_first else (steps, batch)
    _shaped(name, array, shape, "(T,)" if not batched else "(N, T)" if batch_first else "(T, N)")
    array = array.T if batched and batch_first else array.reshape(steps, batch)
    return np.array(array, dtype=np.bool_, order="C") if own else np.ascontiguousarray(array, dtype=np.bool_)


def dropout_masks(value: Any, spec: Spec, steps: int, batch: int, batched: bool) -> Array | None:
    """Factors between layers as C-contiguous (L-1, T, N, D*H), None if there is nothing between layers."""
    array = real_array("dropout", value, spec.dtype)
    width = spec.directions * spec.output_size
    shape = (spec.num_layers - 1, steps, batch, width) if batched else (spec.num_layers - 1, steps, width)
    _shaped("dropout", array, shape, "(num_layers - 1, T, N, num_directions * hidden_size)")
    if spec.num_layers == 1:
        return None
    array = array.reshape(spec.num_layers - 1, steps, batch, width)
    return array if array.flags.c_contiguous and array.flags.aligned else array.copy()


def rows(value: Any, batch: int) -> Array:
    """Row numbers of a batch from an integer, an integer array or a bool mask (N,)."""
    array = plain_array("rows", value)
    if array.dtype == np.bool_ and array.shape == (batch,):
        return np.flatnonzero(array)
    array = np.atleast_1d(array)
    if array.ndim != 1 or (array.dtype.kind not in "iu" and array.size):
        message = (
            f"rows has dtype {array.dtype} and shape {array.shape}; "
            f"it must be integers from 0 to {batch - 1}, or bool of shape ({batch},)"
        )
        raise TypeError(message)
    if array.size and not 0 <= int(array.min()) <= int(array.max()) < batch:
        message = f"rows holds {array.tolist()}; every entry must be from 0 to {batch - 1}"
        raise ValueError(message)
    return array.astype(np.intp)


# ---------------------------------------------------------------------------------------------------------------------
# Weights


def weight(name: str, value: Any, spec: Spec) -> Array:
    """One weight of a spec, in its dtype and shape; possibly the user's own array."""
    array = real_array(name, value, spec.dtype)
    _shaped(name, array, spec.weight_shapes[name])
    return array


def flat_weights(value: Any, spec: Spec) -> Array:
    """New flat buffer from a flat array or a mapping with exactly the names of the spec.

    Raises
    ------
    TypeError
        Neither mapping nor array of real numbers.
    ValueError
        Missing, unknown and misshapen names, all of them in one message.
    """
    count = spec.weight_count
    if not hasattr(value, "keys"):
        flat = real_array("weights", value, spec.dtype)
        _shaped("weights", flat, (count,), "or a mapping of names to arrays")
        return np.array(flat, order="C")
    shapes = spec.weight_shapes
    given = {name: value[name] for name in value.keys()}  # noqa: SIM118 - what has keys() need not iterate over them
    wrong = [f"missing: {', '.join(missing)}"] if (missing := [name for name in shapes if name not in given]) else []
    if unknown := [str(name) for name in given if name not in shapes]:
        wrong.append(f"unknown: {', '.join(unknown)}")
    arrays = {name: real_array(str(name), array, spec.dtype) for name, array in given.items() if name in shapes}
    for name, array in arrays.items():
        if array.shape != shapes[name]:
            wrong.append(f"{name} has shape {array.shape}; it must be {shapes[name]}")
    if wrong:
        message = "these weights are not those of the layer:\n    " + "\n    ".join(wrong)
        raise ValueError(message)
    flat = np.empty(count, spec.dtype)
    for name, view in spec.views(flat).items():
        view[...] = arrays[name]
    return flat


def spec_of_weights(cell: str, weights: Any, **own: Any) -> Spec:
    """Sizes and options that a mapping of PyTorch-named weights implies, with those that it cannot tell."""
    try:
        names = {str(name) for name in weights.keys()}  # noqa: SIM118
        first = [plain_array(name, weights[name]) for name in ("weight_ih_l0", "weight_hh_l0")]
        projection = plain_array("weight_hr_l0", weights["weight_hr_l0"]) if "weight_hr_l0" in names else None
    except (AttributeError, KeyError) as error:
        what = f"a {type(weights).__name__} without weight_ih_l0 and weight_hh_l0"
        message = f"weights is {what}; it must be a mapping with both"
        raise ValueError(message) from error
    shapes = [array.shape for array in first]
    if any(len(shape) != 2 or 0 in shape for shape in shapes):
        message = f"weight_ih_l0 and weight_hh_l0 have shapes {shapes[0]} and {shapes[1]}; both must be matrices"
        raise ValueError(message)
    if projection is not None and projection.ndim != 2:
        message = f"weight_hr_l0 has shape {projection.shape}; it must be a matrix"
        raise ValueError(message)
    layers = 1
    while f"weight_ih_l{layers}" in names:
        layers += 1
    options = {
        "input_size": shapes[0][1],
        "hidden_size": shapes[1][1] if projection is None else projection.shape[1],
        "proj_size": 0 if projection is None else projection.shape[0],
        "peephole": cell == "lstm" and "weight_ph_l0" in names,
        "num_layers": layers,
        "bias": "bias_ih_l0" in names,
        "bidirectional": "weight_ih_l0_reverse" in names,
        "dtype": np.float64 if any(array.dtype.newbyteorder("=") == np.float64 for array in first) else np.float32,
        **own,
    }
    return spec(cell, options)
