"""Named weights, or their gradients, as views of one flat buffer."""

from __future__ import annotations

import sys
from collections.abc import ItemsView, Iterator, Mapping, MutableMapping, ValuesView
from typing import Any

import numpy.typing as npt

from . import _validate
from ._spec import Spec
from .backends import copied, views

Array = npt.NDArray[Any]
getrefcount = getattr(sys, "getrefcount", None)  # CPython's
ALONE = 2  # an attribute, and the argument of the question


class Weights(Mapping[str, Array]):
    """Read-only mapping of PyTorch's names to read-only views, in `state_dict` order.

    Attributes
    ----------
    flat : ndarray, shape (weight_count,)
        The buffer behind the views: what an optimiser, a norm or an all-reduce wants. Read-only for the weights of a
        layer, writeable for gradients.
    """

    __slots__ = ("_flat", "_made", "_spec")

    def __init__(self, spec: Spec, flat: Array) -> None:
        self._spec = spec
        self._flat = flat
        self._made: dict[str, Array] | None = None

    @property
    def _views(self) -> dict[str, Array]:
        """Made when first asked for: who works on `flat` alone, as optimisers do, needs none."""
        if self._made is None:
            self._made = views(self._spec, self._flat, writeable=False)
        return self._made

    @property
    def flat(self) -> Array:
        return self._flat

    def __getitem__(self, name: str) -> Array:
        return self._views[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._spec.weight_shapes)

    def __len__(self) -> int:
        return len(self._spec.weight_shapes)

    def __reduce__(self) -> tuple[Any, ...]:
        # Copied or pickled arrays are writeable, and those that were views are not any more.
        return _restored, (self._spec, self._flat, self._flat.flags.writeable)

    def __repr__(self) -> str:
        lines = (f"    {name}: {self._views[name].shape}" for name in self)
        return "\n".join((f"{type(self).__name__} of {self._flat.dtype}, {self._flat.size} in all", *lines))


def _restored(spec: Spec, flat: Array, writeable: bool) -> Weights:
    if not writeable:
        flat.flags.writeable = False
    return Weights(spec, flat)


class Scratch(MutableMapping[str, Array]):
    """Writeable copy of a layer's weights, inside `edit()`.

    `weights[name] -= ...` and `weights[name] = array` write into one flat buffer, `weights.flat`. Names cannot be added
    or removed.
    """

    __slots__ = ("_flat", "_made", "_spec")

    def __init__(self, spec: Spec, flat: Array) -> None:
        self._spec = spec
        self._flat = copied(flat)
        self._made: dict[str, Array] | None = None

    @property
    def _views(self) -> dict[str, Array]:
        if self._made is None:
            self._made = views(self._spec, self._flat, writeable=True)
        return self._made

    def release(self) -> Array:
        """The buffer for a layer to keep: itself if nobody else can write to it, else a copy. Read-only from now on.

        Whatever could write holds a reference: a view to the buffer it is a view of. Where references are not counted
        (PyPy) or the count says more than is needed, the copy costs what it costs.
        """
        self._made = None
        alone = getrefcount is not None and getrefcount(self._flat) == ALONE
        self._flat = self._flat if alone else copied(self._flat)
        self._flat.flags.writeable = False
        return self._flat

    @property
    def flat(self) -> Array:
        """ndarray, shape (weight_count,): all weights in `state_dict` order."""
        return self._flat

    @flat.setter
    def flat(self, value: Any) -> None:
        if value is not self._flat:  # `weights.flat -= ...` ends in an assignment of the buffer to itself
            self._flat[...] = _validate.flat_weights(value, self._spec)

    def __getitem__(self, name: str) -> Array:
        return self._views[name]

    def __setitem__(self, name: str, value: Any) -> None:
        view = self._views.get(name)
        if view is None:
            message = f"{name!r} is no weight of this layer; it must be one of {', '.join(self._views)}"
            raise KeyError(message)
        if value is not view:
            view[...] = _validate.weight(name, value, self._spec)

    # The mixin's views would look up each name again: 2 of the 45 microseconds of a training step at N=T=1, I=H=64.
    def values(self) -> ValuesView[Array]:
        return self._views.values()

    def items(self) -> ItemsView[str, Array]:
        return self._views.items()

    def __delitem__(self, name: str) -> None:
        message = f"{name!r} cannot be removed: a layer keeps all its weights"
        raise TypeError(message)

    def __iter__(self) -> Iterator[str]:
        return iter(self._views)

    def __len__(self) -> int:
        return len(self._views)
