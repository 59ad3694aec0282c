"""Packed weights of PyTorch's parameters: made once, and again when a parameter has changed.

A parameter is known by its identity, and its value by where its data lie (`data_ptr`), how often they were changed
(`_version`), its shape and its dtype. An entry keeps the data alive, so that no other tensor can come to lie at the
same address; it goes when a parameter of it does.

What PyTorch does not count are changes of `parameter.data`, of memory shared with other processes, and of memory that
NumPy shares, nor those by an optimiser with `fused=True`. In grad mode, inside a compiled graph, for parameters in
shared memory, and once after every optimiser's step the values are therefore compared bit by bit, which takes a
fraction of packing. In inference the first and the last need `invalidate`.
"""

from __future__ import annotations

import ctypes
import os
import weakref
from collections.abc import Callable, Sequence
from functools import lru_cache, wraps
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from .. import backends
from .._spec import Spec
from ..backends import Backend, Packed

Array = npt.NDArray[Any]
# measured: 64 KB in 1.5 microseconds, by NumPy as integers in 3.7 (2-vCPU Zen 4).
_memcmp = ctypes.CDLL(None if os.name == "posix" else "msvcrt").memcmp
_memcmp.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)

Key = tuple[Any, ...]
Place = tuple[int, int, int]  # two addresses, bytes
# Of each parameter: data_ptr, _version, shape, dtype, strides.
Marks = list[tuple[int, int, torch.Size, torch.dtype, tuple[int, ...]]]

DTYPES = {torch.float32: "float32", torch.float64: "float64"}


class Snapshot:
    """Weights as they were, and everything needed to know whether they still are."""

    __slots__ = (
        "aliases",
        "bits",
        "calls",
        "double",
        "flat",
        "marks",
        "module",
        "packed",
        "places",
        "refs",
        "see",
        "shared",
        "spec",
        "steps",
        "views",
    )

    aliases: list[torch.Tensor]  # they hold the memory
    views: list[Array]  # on it
    bits: list[Place]  # where they lie, where what was packed lies, bytes
    places: list[tuple[slice, tuple[int, ...]]]  # of each weight in the flat buffer
    shared: bool
    refs: list[weakref.ref[torch.Tensor]]

    def __init__(self, spec: Spec, params: Sequence[torch.Tensor], marks: Marks | None, old: Snapshot | None) -> None:
        self.spec = spec
        self.marks = marks
        self.steps = _steps  # optimisers' steps when the values were last known to be these
        if old is not None:  # an optimiser's step: the memory is the same, the values are not
            self.aliases, self.views, self.shared, self.refs = old.aliases, old.views, old.shared, old.refs
            self.places = old.places
        else:
            self.aliases = [p.detach() for p in params]
            self.views = [see(alias, spec.dtype_name == "float64") for alias in self.aliases]
            self.shared = any(p.untyped_storage().is_shared() for p in params)
            self.refs = []
            ends = np.cumsum([view.size for view in self.views]).tolist()
            self.places = [(slice(end - v.size, end), v.shape) for end, v in zip(ends, self.views, strict=True)]
        self.module: Backend = backends.current()
        self.see: Callable[..., Array] = getattr(self.module, "see", see)
        self.double = spec.dtype_name == "float64"
        flat = np.concatenate([view.ravel() for view in self.views])
        flat.flags.writeable = False  # so that the compiled backend keeps it instead of a copy
        self.flat: Array = flat
        self.bits = []
        self.packed: Packed = self.module.pack(self.spec, flat)
        library = _library_of(self.module)
        # What the compiled backend does with ordinary calls; None of other backends.
        self.calls: Any = None
        if library is not None and marks is not None:
            self.calls = cast(Any, self.module).Calls(library, self.packed, params, [mark[1] for mark in marks])

    def lies_at(self, marks: Marks | None) -> bool:
        """Whether the parameters still have the memory, shapes and dtypes that they had."""
        if marks is None or self.marks is None:
            return False
        return all(a[0] == b[0] and a[2:] == b[2:] for a, b in zip(marks, self.marks, strict=True))

    def same_values(self) -> bool:
        """Whether the parameters hold, bit for bit, what was packed."""
        if not self.bits:
            if not all(view.flags.c_contiguous for view in self.views):
                return False  # and so packed at every call: such weights are rare
            kept = self.cut(self.flat)
            self.bits = [(v.ctypes.data, k.ctypes.data, v.nbytes) for v, k in zip(self.views, kept, strict=True)]
        return same_memory(self.bits)

    def holds(self, params: Sequence[torch.Tensor], compare: bool = False) -> bool:
        """Whether this is what the parameters are now, packed for the backend and instruction set in force."""
        steps = _steps
        compare = compare or self.shared or self.steps != steps or torch.is_grad_enabled()
        if self.calls is not None:
            if not self.calls.unchanged(params, compare):
                return False
        elif self.marks is None or marks_of(params) != self.marks or (compare and not self.same_values()):
            return False
        if compare:
            self.steps = steps
        return self.module is backends.current() and self.packed.in_force()

    def cut(self, flat: Array) -> list[Array]:
        """Views of a flat buffer, one for each weight."""
        return [flat[place].reshape(shape) for place, shape in self.places]


_entries: dict[Key, Snapshot] = {}
_steps = 0


def _count_step(*_: object) -> None:
    global _steps
    _steps += 1


register_optimizer_step_post_hook(_count_step)


def known(
    cell: str, nonlinearity: str, biases: bool, layers: int, bidirectional: bool, params: Sequence[torch.Tensor]
) -> Snapshot | None:
    """What `snapshot` gives, if there is nothing to be packed for it."""
    found = _entries.get((cell, nonlinearity, biases, layers, bidirectional, *map(id, params)))
    return found if found is not None and found.holds(params) else None


def snapshot(
    cell: str, nonlinearity: str, biases: bool, layers: int, bidirectional: bool, params: Sequence[torch.Tensor],
    *, compare: bool = False,
) -> Snapshot | None:  # fmt: skip
    """The packed weights of these parameters as they are now; None if they are not those of such a stack.

    With `compare` the values are compared whatever the mode: an operator runs below autograd, where it is off.
    """
    key = (cell, nonlinearity, biases, layers, bidirectional, *map(id, params))
    found = _entries.get(key)
    if found is not None and found.holds(params, compare):
        return found
    try:
        marks = marks_of(params)
    except AttributeError:  # no tensor at all
        return None
    old = found if found is not None and found.lies_at(marks) and all(map(_is_seen, params)) else None
    spec = old.spec if old is not None else spec_of(cell, nonlinearity, biases, layers, bidirectional, params)
    if spec is None:
        return None
    new = Snapshot(spec, params, marks, old)
    if old is not None:
        _entries[key] = new
    elif marks is not None and all(p.is_leaf for p in params):  # what is computed anew for each call is not kept
        _make_swappable()
        new.refs = [weakref.ref(p, lambda _, key=key: _entries.pop(key, None)) for p in params]  # type: ignore[misc]
        _entries[key] = new
    return new


def marks_of(params: Sequence[torch.Tensor]) -> Marks | None:
    """By which parameters are known to be as they were; None of those that do not tell."""
    try:
        return [(p.data_ptr(), p._version, p.shape, p.dtype, p.stride()) for p in params]
    except RuntimeError:  # made in inference mode, without a version, or without memory
        return None


def see(tensor: torch.Tensor, double: bool, layer: bool = False) -> Array:
    """The memory of a strided tensor as an array, as the compiled backend's function of this name gives it.

    `Tensor.numpy` would mark the storage, which PyTorch then refuses to resize.
    """
    dtype = np.dtype(np.float64 if double else np.float32)
    shape, strides = tuple(tensor.shape), [step * dtype.itemsize for step in tensor.stride()]
    if 0 in shape:
        return np.empty((1, *shape) if layer else shape, dtype)
    extent = sum((size - 1) * step for size, step in zip(shape, strides, strict=True)) + dtype.itemsize
    address = tensor.data_ptr()
    if not address:
        message = "a tensor has elements but no memory: its storage was resized"
        raise ValueError(message)
    memory: Any = (ctypes.c_char * extent).from_address(address)
    view: Array = np.ndarray(shape, dtype, memory, 0, strides)
    return view[None] if layer else view


def same_memory(places: list[Place]) -> bool:
    """Whether all pairs of blocks hold the same bytes."""
    return not any([_memcmp(now, then, size) for now, then, size in places])


def _make_swappable() -> None:
    """`torch.utils.swap_tensors`, by which modules may be converted, refuses tensors with weak references: ours go."""
    swap: Callable[..., None] = torch.utils.swap_tensors
    if getattr(swap, "forgets", False):
        return

    @wraps(swap)
    def swap_tensors(t1: torch.Tensor, t2: torch.Tensor) -> None:
        _forget({id(t1), id(t2)})
        swap(t1, t2)

    vars(swap_tensors)["forgets"] = True
    torch.utils.swap_tensors = swap_tensors


def spec_of(
    cell: str, nonlinearity: str, biases: bool, layers: int, bidirectional: bool, params: Sequence[torch.Tensor]
) -> Spec | None:
    """What stack these parameters make; None if they are of none that fastrnn computes."""
    if len(params) < 2 or layers < 1:
        return None
    first, second = params[:2]
    if type(first) not in PLAIN or type(second) not in PLAIN or first.dim() != 2 or second.dim() != 2:
        return None
    dtype, hidden = DTYPES.get(first.dtype), second.shape[1]
    if dtype is None or 0 in (first.shape[1], hidden):
        return None
    spec = _spec(cell, first.shape[1], hidden, layers, biases, bidirectional, dtype, nonlinearity)
    shapes = spec.weight_shapes.values()
    if len(params) != len(shapes):
        return None
    for p, shape in zip(params, shapes, strict=True):
        if not _is_seen(p) or p.shape != shape or p.dtype is not first.dtype:
            return None
    return spec


@lru_cache(maxsize=256)
def _spec(cell: str, inputs: int, hidden: int, layers: int, biases: bool, both: bool, dtype: str, act: str) -> Spec:
    return Spec(cell, inputs, hidden, layers, biases, both, dtype, nonlinearity=act)


_wrapped: Callable[[torch.Tensor], bool] = torch._C._functorch.is_functorch_wrapped_tensor
PLAIN = (
    {torch.Tensor, torch.nn.Parameter, torch.nn.Buffer}
    if hasattr(torch.nn, "Buffer")
    else {
        torch.Tensor,
        torch.nn.Parameter,
    }
)


def is_plain(tensor: torch.Tensor) -> bool:
    """Whether NumPy can look at its memory; what outlived a transform of functorch has none of its own."""
    if _wrapped(tensor) or not tensor.is_cpu or tensor.layout is not torch.strided or tensor.is_nested:
        return False
    return not tensor.is_neg() and not tensor._is_zerotensor()


def _is_seen(tensor: torch.Tensor) -> bool:
    """Whether a parameter is memory and no more, which a change of its class or of its data may end."""
    return type(tensor) in PLAIN and is_plain(tensor)


def _library_of(module: Backend) -> Any:
    """What a backend has to know of PyTorch to run ordinary calls by itself; None of one that does not."""
    if module.NAME not in _libraries:
        kind: Any = getattr(module, "Library", None)
        floats = {torch.float32: 32, torch.float64: 64}
        exchange = getattr(torch.Tensor, "__dlpack_c_exchange_api__", None)
        made = None if kind is None else kind(PLAIN, floats, torch.from_numpy, torch.empty_like, exchange)
        _libraries[module.NAME] = made
    return _libraries[module.NAME]


_libraries: dict[str, Any] = {}


def usual(kind: type, methods: dict[str, Any]) -> Any:
    """What tells a class's ordinary modules from others, if the backend in force has such a thing; or None."""
    made: Any = getattr(backends.current(), "Usual", None)
    return None if made is None else made(kind, methods)


def invalidate(module: torch.nn.Module | None = None) -> None:
    """Forget the packed weights of a module, or of all: the next call packs them anew.

    Needed only after a change that PyTorch does not count (`parameter.data.mul_(2)`, or through a NumPy array that
    shares the memory) and only for calls under `no_grad` or `inference_mode`.

    Parameters
    ----------
    module : torch.nn.Module, optional
        With everything inside it.
    """
    if module is None:
        _entries.clear()
        return
    _forget({id(p) for p in (*module.parameters(), *module.buffers())})


def _forget(mine: set[int]) -> None:
    for key in [key for key in list(_entries) if mine.intersection(key[5:])]:
        _entries.pop(key, None)
