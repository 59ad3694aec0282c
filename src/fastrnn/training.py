"""The few pieces around a recurrent layer that training needs: Linear, Embedding, losses, clipping, SGD and Adam.

Everything here is NumPy. The optimisers work on the flat buffers of weights and gradients that the recurrent layers and
the two layers below share. A training step reads

    y, state, tape = lstm.forward(x, state)
    scores, head_tape = head.forward(y)
    loss, dscores = softmax_cross_entropy(scores, targets, out=scores)
    head_grads = head.backward(head_tape, dscores)
    grads = lstm.backward(tape, head_grads.x)
    clip_grad_norm([head_grads, grads], 1.0)
    optimizer.step([head_grads, grads])

Letters: T steps, N batch, I input width, H hidden width.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from math import isfinite, sqrt
from typing import Any, Protocol, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from . import _validate
from ._dense import Embedding, Linear, integers

__all__ = [
    "SGD",
    "Adam",
    "Embedding",
    "Linear",
    "clip_grad_norm",
    "mean_squared_error",
    "softmax_cross_entropy",
]

Array: TypeAlias = npt.NDArray[Any]

# Elements per pass: an optimiser reads and writes up to five arrays of this many floats, which together stay in a
# 1 MiB second-level cache; a softmax block is read and written four times.
_BLOCK = 32768


class Flat(Protocol):
    """Weights or gradients of one layer, all in one buffer."""

    @property
    def flat(self) -> Array: ...


class Trainable(Protocol):
    """What an optimiser needs of a layer."""

    @property
    def weights(self) -> Flat: ...

    def edit(self) -> AbstractContextManager[Flat]: ...


def softmax_cross_entropy(
    logits: npt.ArrayLike, targets: npt.ArrayLike, *, ignore_index: int = -100, out: Array | None = None
) -> tuple[float, Array]:
    """Mean over the targets of -log softmax(logits)[target], and its gradient.

    With p = softmax(logits) the gradient of one row is (p - onehot(target)) / count (Bishop 2006, section 4.3.4). The
    row's maximum is subtracted before the exponential, so no finite logit overflows.

    Parameters
    ----------
    logits : ndarray, shape (..., V), float32 or float64
        Scores before normalisation, for example (T, N, V). Other real dtypes are converted to float32.
    targets : array_like of int, shape (...)
        The right class of each row, in [0, V), or `ignore_index` for rows that count for nothing (padding).
    ignore_index : int
        The target that marks a row as ignored.
    out : ndarray, shape (..., V), optional
        Where to write the gradient; may be `logits` itself, which saves a large array.

    Returns
    -------
    loss : float
        Mean over the rows that are not ignored; 0.0 if there are none. In nats: divide by log(2) for bits.
    gradient : ndarray, shape (..., V)
        d loss / d logits; exactly 0 in ignored rows.

    Raises
    ------
    ValueError
        If shapes do not fit, a target is out of range, or `out` cannot take the result.
    TypeError
        If logits are not real or targets are not integers.
    """
    scores = _real("logits", logits)
    if scores.ndim == 0 or scores.shape[-1] == 0:
        message = f"logits has shape {scores.shape}; it must have shape (..., V) with V at least 1"
        raise ValueError(message)
    classes = scores.shape[-1]
    wanted = _targets(targets, scores.shape[:-1], classes, ignore_index)
    counted = wanted != ignore_index
    count = int(np.count_nonzero(counted))
    gradient = _output("logits", scores, out)
    if count == 0:
        gradient[...] = 0
        return 0.0, gradient
    work = gradient if gradient.flags.c_contiguous else np.empty_like(scores, order="C")
    rows_in = scores.reshape(-1, classes)
    rows_out = work.reshape(-1, classes)
    total = 0.0
    step = max(1, _BLOCK // classes)
    for start in range(0, len(wanted), step):
        part = slice(start, start + step)
        total += _softmax_block(rows_in[part], wanted[part], counted[part], 1.0 / count, rows_out[part])
    if work is not gradient:
        gradient[...] = work
    return total / count, gradient


def _softmax_block(scores: Array, wanted: Array, counted: Array, weight: float, out: Array) -> float:
    """Sum of the losses of some rows; writes their gradients times weight into out, which may be scores."""
    np.subtract(scores, scores.max(axis=-1, keepdims=True), out=out)
    rows = np.flatnonzero(counted)
    picked = out[rows, wanted[rows]]
    np.exp(out, out=out)
    sums = out.sum(axis=-1, keepdims=True)
    out *= weight / sums
    out[rows, wanted[rows]] -= weight
    if len(rows) != len(out):
        out[~counted] = 0
    return float(np.sum(np.log(sums[rows, 0]) - picked, dtype=np.float64))


def mean_squared_error(
    prediction: npt.ArrayLike, target: npt.ArrayLike, *, out: Array | None = None
) -> tuple[float, Array]:
    """Mean over all elements of (prediction - target)^2, and its gradient 2 (prediction - target) / size.

    Parameters
    ----------
    prediction : ndarray, any shape, float32 or float64
        Other real dtypes are converted to float32.
    target : array_like, the same shape
        The wanted values, converted to prediction's dtype. Shapes are not broadcast.
    out : ndarray, the same shape, optional
        Where to write the gradient; may be `prediction` itself.

    Returns
    -------
    loss : float
        0.0 for empty arrays.
    gradient : ndarray
        d loss / d prediction, prediction's shape and dtype.

    Raises
    ------
    ValueError
        If the shapes differ or `out` cannot take the result.
    TypeError
        If an argument is not real.
    """
    given = _real("prediction", prediction)
    wanted = _validate.real_array("target", target, given.dtype)
    if wanted.shape != given.shape:
        message = f"target has shape {wanted.shape}; it must have the shape of prediction, {given.shape}"
        raise ValueError(message)
    gradient = _output("prediction", given, out)
    if given.size == 0:
        return 0.0, gradient
    np.subtract(given, wanted, out=gradient)
    loss = float(np.mean(np.square(gradient), dtype=np.float64))
    gradient *= 2.0 / given.size
    return loss, gradient


def clip_grad_norm(gradients: Flat | Iterable[Flat], max_norm: float, *, error_if_nonfinite: bool = False) -> float:
    """Scale gradients in place so that their joint Euclidean norm is at most max_norm (Pascanu et al. 2013).

    Parameters
    ----------
    gradients : gradients of one layer, or a sequence of them
        What the layers' `backward` returned. Only gradients of weights count and are scaled.
    max_norm : float
        The largest norm that is left as it is; greater than 0.
    error_if_nonfinite : bool
        Raise if the norm is NaN or infinite. Otherwise it is returned and nothing is scaled, so that the caller can
        skip the step.

    Returns
    -------
    norm : float
        The norm before clipping.

    Raises
    ------
    TypeError
        If an argument is not of its kind.
    ValueError
        If max_norm is not greater than 0, or the norm is not finite and error_if_nonfinite is set.
    """
    if not _number("max_norm", max_norm) > 0:
        message = f"max_norm is {max_norm!r}; it must be greater than 0"
        raise ValueError(message)
    flats = _flats(gradients)
    with np.errstate(over="ignore", invalid="ignore"):
        squares = sum(float(np.dot(flat, flat)) for flat in flats)
        if not isfinite(squares):  # the squares of float32 overflow from 1.8e19 on
            squares = sum(float(np.sum(np.square(flat, dtype=np.float64))) for flat in flats)
    norm = sqrt(squares)
    if not isfinite(norm):
        if error_if_nonfinite:
            message = f"the norm of the gradients is {norm}; it must be finite"
            raise ValueError(message)
        return norm
    if norm > max_norm:
        for flat in flats:
            flat *= max_norm / norm
    return norm


class _Optimizer:
    """Steps over the weights of several layers, in blocks that stay in cache."""

    def __init__(self, layers: Sequence[Trainable], lr: float, slots: int) -> None:
        self.layers = list(layers)
        self.lr = lr
        self.steps = 0
        # Per layer: running averages of the size of its weights.
        self._slots = [[np.zeros_like(layer.weights.flat) for _ in range(slots)] for layer in self.layers]

    @property
    def lr(self) -> float:
        """The learning rate, which may be changed between steps."""
        return self._lr

    @lr.setter
    def lr(self, value: float) -> None:
        _check_range("lr", value, 0.0, float("inf"))
        self._lr = float(value)

    def step(self, gradients: Iterable[Flat]) -> None:
        """Change every layer's weights once.

        Parameters
        ----------
        gradients : sequence
            What each layer's `backward` returned, in the order of the layers. They are read only.

        Raises
        ------
        ValueError
            If their number or sizes do not fit the layers; then no weight has changed.
        """
        flats = _flats(gradients)
        if len(flats) != len(self.layers):
            message = f"gradients has {len(flats)} entries; it must have one for each of {len(self.layers)} layers"
            raise ValueError(message)
        for index, (flat, slots) in enumerate(zip(flats, self._slots, strict=True)):
            if flat.shape != slots[0].shape:
                message = f"gradients[{index}] is of {flat.size} weights; its layer has {slots[0].size}"
                raise ValueError(message)
        self.steps += 1
        for layer, flat, slots in zip(self.layers, flats, self._slots, strict=True):
            with layer.edit() as weights:
                for start in range(0, flat.size, _BLOCK):
                    part = slice(start, start + _BLOCK)
                    self._update(weights.flat[part], flat[part], [slot[part] for slot in slots])

    def _update(self, w: Array, g: Array, slots: list[Array]) -> None:
        """Change w and slots in place, never g."""
        raise AssertionError


class SGD(_Optimizer):
    """Stochastic gradient descent with momentum (Sutskever et al. 2013): v = momentum v + g; w = w - lr v.

    Parameters
    ----------
    layers : sequence of layers
        The layers whose weights are changed, in the order in which `step` gets their gradients.
    lr : float
        Learning rate, at least 0. The attribute of this name may be changed between steps.
    momentum : float
        In [0, 1).

    Raises
    ------
    ValueError
        If a number is out of its range.
    """

    def __init__(self, layers: Sequence[Trainable], lr: float = 1e-3, *, momentum: float = 0.0) -> None:
        _check_range("momentum", momentum, 0.0, 1.0)
        super().__init__(layers, lr, 1)
        self.momentum = momentum

    def _update(self, w: Array, g: Array, slots: list[Array]) -> None:
        velocity = slots[0]
        velocity *= self.momentum
        velocity += g
        w -= self.lr * velocity


class Adam(_Optimizer):
    """Adam (Kingma and Ba 2015, algorithm 1), with epsilon outside the corrected root as there.

    m = b1 m + (1 - b1) g; v = b2 v + (1 - b2) g^2; w = w - lr m' / (sqrt(v') + eps) with m' = m / (1 - b1^t) and
    v' = v / (1 - b2^t) at step t = 1, 2, ...

    Parameters
    ----------
    layers : sequence of layers
        The layers whose weights are changed, in the order in which `step` gets their gradients.
    lr : float
        Learning rate, at least 0. The attribute of this name may be changed between steps.
    betas : (float, float)
        b1 and b2, each in [0, 1).
    eps : float
        At least 0.

    Raises
    ------
    ValueError
        If a number is out of its range.
    """

    def __init__(
        self,
        layers: Sequence[Trainable],
        lr: float = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        if np.shape(betas) != (2,):
            message = f"betas is {betas!r}; it must be a pair of numbers"
            raise TypeError(message)
        _check_range("betas[0]", betas[0], 0.0, 1.0)
        _check_range("betas[1]", betas[1], 0.0, 1.0)
        _check_range("eps", eps, 0.0, float("inf"))
        super().__init__(layers, lr, 2)
        self.betas = betas
        self.eps = eps

    def _update(self, w: Array, g: Array, slots: list[Array]) -> None:
        mean, square = slots
        b1, b2 = self.betas
        root = sqrt(1.0 - b2**self.steps)
        change = np.subtract(g, mean)
        change *= 1.0 - b1
        mean += change
        np.multiply(g, g, out=change)
        change -= square
        change *= 1.0 - b2
        square += change
        # m' / (sqrt(v') + eps), both fractions multiplied by sqrt(1 - b2^t)
        np.sqrt(square, out=change)
        change += self.eps * root
        np.divide(mean, change, out=change)
        change *= self.lr * root / (1.0 - b1**self.steps)
        w -= change


def _flats(gradients: Flat | Iterable[Flat]) -> list[Array]:
    """The buffers of one layer's gradients or several layers'."""
    several = [gradients] if hasattr(gradients, "flat") else list(gradients)
    flats = [getattr(item, "flat", None) for item in several]
    for item, flat in zip(several, flats, strict=True):
        if not isinstance(flat, np.ndarray):
            message = f"gradients holds a {type(item).__name__}; it must hold what the layers' backward returned"
            raise TypeError(message)
    return cast(list[Array], flats)


def _number(name: str, value: float) -> float:
    if not isinstance(value, int | float | np.integer | np.floating):
        message = f"{name} is a {type(value).__name__}; it must be a number"
        raise TypeError(message)
    return float(value)


def _check_range(name: str, value: float, low: float, end: float) -> None:
    if not low <= _number(name, value) < end:
        message = f"{name} is {value!r}; it must be in [{low:g}, {end:g})"
        raise ValueError(message)


def _real(name: str, value: npt.ArrayLike) -> Array:
    """As an array of float32 or float64."""
    given = getattr(value, "dtype", None)
    wide = isinstance(given, np.dtype) and given.newbyteorder("=") == np.float64
    dtype = np.float64 if wide else np.float32
    return _validate.real_array(name, value, dtype)


def _targets(targets: npt.ArrayLike, shape: tuple[int, ...], classes: int, ignore_index: int) -> Array:
    """As a flat int64 array whose every entry is a class or ignore_index."""
    wanted = integers("targets", targets)
    if wanted.shape != shape:
        message = f"targets has shape {wanted.shape}; it must have the shape of logits without its last axis, {shape}"
        raise ValueError(message)
    flat = wanted.reshape(-1)
    bad = ((flat < 0) | (flat >= classes)) & (flat != ignore_index)
    if bad.any():
        message = f"targets has an entry {flat[bad][0]}; each must be in [0, {classes}) or ignore_index {ignore_index}"
        raise ValueError(message)
    return flat


def _output(name: str, like: Array, out: Any) -> Array:
    """Out, checked to take a result of like's shape and dtype, or a new array."""
    if out is None:
        return np.empty(like.shape, like.dtype)
    if not isinstance(out, np.ndarray) or out.shape != like.shape or out.dtype != like.dtype:
        got = f"{out.dtype} {out.shape}" if isinstance(out, np.ndarray) else type(out).__name__
        message = f"out is {got}; it must be an ndarray of {like.dtype} {like.shape}"
        raise ValueError(message)
    if not out.flags.writeable:
        message = "out is read-only; it must be writable"
        raise ValueError(message)
    same = out.ctypes.data == like.ctypes.data and out.strides == like.strides
    if not same and np.may_share_memory(out, like):
        message = f"out overlaps {name}; it must be {name} itself or apart from it"
        raise ValueError(message)
    result: Array = out
    return result
