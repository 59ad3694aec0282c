"""Linear and Embedding: the layers around a recurrent one. Public as `fastrnn.training.Linear` and `.Embedding`.

Both keep their weights as the recurrent layers do: read-only views of one flat buffer that change through `edit`,
assignment and `load_state_dict` only, and gradients of the same form.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from math import prod, sqrt
from typing import Any, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from . import _validate
from ._spec import Spec
from ._weights import Scratch, Weights

Array: TypeAlias = npt.NDArray[Any]


@dataclass(frozen=True)
class _Shapes:
    """Names and shapes of a layer's weights: the part of a `Spec` that buffers of weights are made from."""

    weight_shapes: dict[str, tuple[int, ...]]
    dtype: np.dtype[Any]

    @cached_property
    def weight_count(self) -> int:
        return sum(prod(shape) for shape in self.weight_shapes.values())

    views = Spec.views


@dataclass(frozen=True, eq=False)
class DenseGradients:
    """Gradients of a Linear or an Embedding."""

    x: Array | None  # d loss / d input; None for an Embedding
    weights: Weights  # by weight name, read-only views of flat

    @property
    def flat(self) -> Array:
        """All weight gradients in `state_dict` order, writable."""
        return self.weights.flat


@dataclass(frozen=True, eq=False)
class DenseTape:
    """What `backward` needs of one `forward`: the input, and the weights it met."""

    x: Array
    weights: Weights


class _Dense:
    """Named weights in one flat buffer, which is replaced, never written, so that a tape can tell when it changed."""

    def __init__(self, shapes: dict[str, tuple[int, ...]], dtype: npt.DTypeLike) -> None:
        self.dtype = np.dtype(_validate.dtype_name(dtype))
        self._spec = cast(Spec, _Shapes(shapes, self.dtype))
        if self._spec.weight_count * 8 > sys.maxsize:  # initial weights are drawn in float64
            message = f"weight of shape {shapes['weight']} is more than this machine can address"
            raise ValueError(message)

    def _commit(self, flat: Array) -> None:
        flat.flags.writeable = False
        self._weights = Weights(self._spec, flat)

    @property
    def weights(self) -> Weights:
        """Mapping of names to read-only views of one flat buffer, `weights.flat`."""
        return self._weights

    @property
    def weight(self) -> Array:
        """The weight matrix, read-only. Can be assigned."""
        return self._weights["weight"]

    @weight.setter
    def weight(self, value: npt.ArrayLike) -> None:
        with self.edit() as weights:
            weights["weight"] = cast(Array, value)

    def state_dict(self) -> dict[str, Array]:
        """Copies of the weights by name, PyTorch's names and shapes."""
        return {name: weight.copy() for name, weight in self._weights.items()}

    def load_state_dict(self, mapping: Mapping[str, npt.ArrayLike]) -> None:
        """Take over all weights.

        Parameters
        ----------
        mapping : mapping of str to array_like
            Exactly the names and shapes of `state_dict`; dtypes are converted.

        Raises
        ------
        TypeError
            If it is no mapping, or values are no real numbers; then nothing has changed.
        ValueError
            If a name is missing or unknown or a shape differs; then nothing has changed.
        """
        if not hasattr(mapping, "keys"):
            message = f"mapping is a {type(mapping).__name__}; it must be a mapping of names to arrays"
            raise TypeError(message)
        self._commit(_validate.flat_weights(mapping, self._spec))

    @contextmanager
    def edit(self) -> Iterator[Scratch]:
        """Writable copies of the weights by name; they become the weights on leaving, unless by an exception."""
        scratch = Scratch(self._spec, self._weights.flat)
        yield scratch
        self._commit(scratch.flat.copy())

    def _check_tape(self, tape: DenseTape) -> None:
        if not isinstance(tape, DenseTape):
            message = f"tape is a {type(tape).__name__}; it must be what forward returned"
            raise TypeError(message)
        if tape.weights is not self._weights:
            message = "tape is of another layer or older than the last change of the weights; it must be of this layer"
            raise ValueError(message)

    def _gradients(self, out: DenseGradients | None, accumulate: bool) -> Weights:
        """Where the gradients of one backward go."""
        if out is None:
            if accumulate:
                message = "accumulate is True without out; it needs the gradients to add to"
                raise ValueError(message)
            return Weights(self._spec, np.empty(self._spec.weight_count, self.dtype))
        if not isinstance(out, DenseGradients):
            message = f"out is a {type(out).__name__}; it must be the gradients of an earlier backward"
            raise TypeError(message)
        if out.flat.shape != (self._spec.weight_count,) or out.flat.dtype != self.dtype:
            message = f"out is not for this layer; it must hold gradients of {self._spec.weight_count} weights"
            raise ValueError(message)
        return out.weights

    def _output_gradient(self, dy: npt.ArrayLike, shape: tuple[int, ...]) -> Array:
        """Gradient dy as a matrix, after a check that it has shape."""
        given = _validate.real_array("dy", dy, self.dtype)
        if given.shape != shape:
            message = f"dy has shape {given.shape}; it must have the shape of the output, {shape}"
            raise ValueError(message)
        return given.reshape(-1, shape[-1])


class Linear(_Dense):
    """output[t] = V h[t] + b, for every leading index of the input.

    Weights: `weight` (out_features, in_features) and `bias` (out_features,), drawn from U(-1/sqrt(in_features),
    1/sqrt(in_features)), as PyTorch does.

    Parameters
    ----------
    in_features, out_features : int
        Widths of input and output, at least 1.
    bias : bool
        Whether b is there.
    dtype : float32 or float64
        Of weights, outputs and gradients.
    rng : None, int or numpy.random.Generator
        Where the initial weights come from.

    Raises
    ------
    ValueError
        If a width is less than 1 or the dtype is not float32 or float64.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        bias: bool = True,
        dtype: npt.DTypeLike = np.float32,
        rng: int | np.random.Generator | None = None,
    ) -> None:
        self.in_features = _validate.positive_int("in_features", in_features)
        self.out_features = _validate.positive_int("out_features", out_features)
        shapes: dict[str, tuple[int, ...]] = {"weight": (self.out_features, self.in_features)}
        if _validate.flag("bias", bias):
            shapes["bias"] = (self.out_features,)
        super().__init__(shapes, dtype)
        bound = 1.0 / sqrt(self.in_features)
        self._commit(_validate.generator(rng).uniform(-bound, bound, self._spec.weight_count).astype(self.dtype))

    @property
    def bias(self) -> Array | None:
        """b, read-only, or None. Can be assigned where there is one."""
        return self._weights.get("bias")

    @bias.setter
    def bias(self, value: npt.ArrayLike) -> None:
        with self.edit() as weights:
            weights["bias"] = cast(Array, value)

    def __call__(self, x: npt.ArrayLike) -> Array:
        """Output of shape (..., out_features) for x of shape (..., in_features)."""
        return self.forward(x)[0]

    def forward(self, x: npt.ArrayLike) -> tuple[Array, DenseTape]:
        """Output and what `backward` needs.

        Parameters
        ----------
        x : array_like, shape (..., in_features)
            For example the outputs (T, N, H) of a recurrent layer. It must not change until `backward`.

        Returns
        -------
        y : ndarray, shape (..., out_features)
        tape : object
            For `backward`, any number of times while the weights are unchanged.

        Raises
        ------
        ValueError
            If the last axis of x is not in_features wide.
        """
        given = _validate.real_array("x", x, self.dtype)
        if given.ndim == 0 or given.shape[-1] != self.in_features:
            message = f"x has shape {given.shape}; it must have shape (..., {self.in_features})"
            raise ValueError(message)
        y = given.reshape(-1, self.in_features) @ self.weight.T
        if self.bias is not None:
            y += self.bias
        return y.reshape(*given.shape[:-1], self.out_features), DenseTape(given, self._weights)

    def backward(
        self, tape: DenseTape, dy: npt.ArrayLike, *, out: DenseGradients | None = None, accumulate: bool = False
    ) -> DenseGradients:
        """Gradients: dx = dy V, dV = sum over all rows of outer(dy, x), db = sum of dy.

        Parameters
        ----------
        tape : object
            Of this layer's `forward`.
        dy : array_like, shape (..., out_features)
            d loss / d y.
        out : gradients of an earlier call, optional
            Whose memory for the weights' gradients is used again.
        accumulate : bool
            Add the weights' gradients to those in `out`.

        Returns
        -------
        gradients
            `x` (..., in_features), `weights` by name, `flat` their buffer.

        Raises
        ------
        ValueError
            If the tape is another layer's, the weights have changed since, or shapes do not fit.
        """
        self._check_tape(tape)
        rows = self._output_gradient(dy, (*tape.x.shape[:-1], self.out_features))
        weights = self._gradients(out, accumulate)
        views = self._spec.views(weights.flat)
        _put(views["weight"], rows.T @ tape.x.reshape(-1, self.in_features), accumulate)
        if "bias" in views:
            _put(views["bias"], rows.sum(axis=0), accumulate)
        return DenseGradients((rows @ self.weight).reshape(tape.x.shape), weights)

    def __repr__(self) -> str:
        return f"Linear({self.in_features}, {self.out_features}, bias={self.bias is not None}, dtype={self.dtype.name})"


class Embedding(_Dense):
    """One learnt vector for each of a number of symbols: y = weight[indices].

    Weight: `weight` (num_embeddings, embedding_dim), drawn from a standard normal distribution, as PyTorch does.

    Parameters
    ----------
    num_embeddings : int
        Number of symbols, at least 1.
    embedding_dim : int
        Width of a vector, at least 1.
    dtype : float32 or float64
        Of weights, outputs and gradients.
    rng : None, int or numpy.random.Generator
        Where the initial weights come from.

    Raises
    ------
    ValueError
        If a size is less than 1 or the dtype is not float32 or float64.
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        *,
        dtype: npt.DTypeLike = np.float32,
        rng: int | np.random.Generator | None = None,
    ) -> None:
        self.num_embeddings = _validate.positive_int("num_embeddings", num_embeddings)
        self.embedding_dim = _validate.positive_int("embedding_dim", embedding_dim)
        super().__init__({"weight": (self.num_embeddings, self.embedding_dim)}, dtype)
        self._commit(_validate.generator(rng).standard_normal(self._spec.weight_count).astype(self.dtype))

    def __call__(self, indices: npt.ArrayLike) -> Array:
        """Vectors of shape (..., embedding_dim) for indices of shape (...)."""
        return self.forward(indices)[0]

    def forward(self, indices: npt.ArrayLike) -> tuple[Array, DenseTape]:
        """Vectors and what `backward` needs.

        Parameters
        ----------
        indices : array_like of int, shape (...)
            Each in [0, num_embeddings). They must not change until `backward`.

        Returns
        -------
        y : ndarray, shape (..., embedding_dim)
        tape : object
            For `backward`, any number of times while the weights are unchanged.

        Raises
        ------
        TypeError
            If indices are not integers.
        ValueError
            If an index is out of range.
        """
        given = integers("indices", indices)
        if given.size and not (given.min() >= 0 and given.max() < self.num_embeddings):
            message = f"indices run from {given.min()} to {given.max()}; they must be in [0, {self.num_embeddings})"
            raise ValueError(message)
        return self.weight[given], DenseTape(given, self._weights)

    def backward(
        self, tape: DenseTape, dy: npt.ArrayLike, *, out: DenseGradients | None = None, accumulate: bool = False
    ) -> DenseGradients:
        """Gradient of the weight: row s is the sum of dy over all places where the index was s.

        Parameters
        ----------
        tape : object
            Of this layer's `forward`.
        dy : array_like, shape (..., embedding_dim)
            d loss / d y.
        out : gradients of an earlier call, optional
            Whose memory for the weight's gradient is used again.
        accumulate : bool
            Add the weight's gradient to that in `out`.

        Returns
        -------
        gradients
            `x` None (indices have no gradient), `weights` by name, `flat` their buffer.

        Raises
        ------
        ValueError
            If the tape is another layer's, the weights have changed since, or shapes do not fit.
        """
        self._check_tape(tape)
        rows = self._output_gradient(dy, (*tape.x.shape, self.embedding_dim))
        weights = self._gradients(out, accumulate)
        if not accumulate:
            weights.flat[...] = 0
        # Sorting makes the rows of one symbol neighbours, whose sums are whole-vector additions; np.add.at is slower.
        order = np.argsort(tape.x, axis=None, kind="stable")
        symbols, starts = np.unique(tape.x.reshape(-1)[order], return_index=True)
        if symbols.size:
            sums = np.add.reduceat(rows[order], starts, axis=0)
            weights.flat.reshape(self.weight.shape)[symbols] += sums
        return DenseGradients(None, weights)

    def __repr__(self) -> str:
        return f"Embedding({self.num_embeddings}, {self.embedding_dim}, dtype={self.dtype.name})"


def integers(name: str, value: Any) -> Array:
    """Integers of any kind as int64; those too large for it as the largest, which is out of every range."""
    array = _validate.plain_array(name, value)
    if array.size and array.dtype.kind not in "iu":
        message = f"{name} has dtype {array.dtype}; it must hold integers"
        raise TypeError(message)
    if array.dtype.kind == "u":
        array = np.minimum(array, np.iinfo(np.int64).max) if array.dtype.itemsize == 8 else array
    return array.astype(np.int64, copy=False)


def _put(target: Array, value: Array, accumulate: bool) -> None:
    if accumulate:
        target += value
    else:
        target[...] = value
