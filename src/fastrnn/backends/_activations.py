"""The activation functions of the general path, by ONNX's names, and their slopes.

Arrays in, new arrays of the same dtype out. A slope is the derivative with respect to z; at a kink it is that of the
left side (at both of HardSigmoid's 0), and where z is clipped it is 0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._spec import Activation
from ._schedule import Array

_Of = Callable[[Array, float, float], Array]  # a function of z, alpha and beta


def _sigmoid(z: Array) -> Array:
    """As (1 + tanh(z / 2)) / 2, which cannot overflow."""
    out: Array = 0.5 * np.tanh(0.5 * z) + 0.5
    return out


def _where(condition: Any, yes: Any, no: Any, z: Array) -> Array:
    """np.where in the dtype of z."""
    out: Array = np.where(condition, yes, no).astype(z.dtype, copy=False)
    return out


def _inside(z: Array, a: float, b: float) -> Any:
    line = a * z + b
    return (line > 0) & (line < 1)


_VALUES: dict[str, _Of] = {
    "Relu": lambda z, a, b: np.maximum(z, 0),
    "Tanh": lambda z, a, b: np.tanh(z),
    "Sigmoid": lambda z, a, b: _sigmoid(z),
    "Affine": lambda z, a, b: a * z + b,
    "LeakyRelu": lambda z, a, b: _where(z > 0, z, a * z, z),
    "ThresholdedRelu": lambda z, a, b: _where(z < a, 0, z, z),  # NaN stays NaN
    "ScaledTanh": lambda z, a, b: a * np.tanh(b * z),
    "HardSigmoid": lambda z, a, b: np.clip(a * z + b, 0, 1),
    "Elu": lambda z, a, b: _where(z > 0, z, a * np.expm1(np.minimum(z, 0)), z),
    "Softsign": lambda z, a, b: z / (1 + np.abs(z)),
    "Softplus": lambda z, a, b: np.logaddexp(z, z.dtype.type(0)),
}
_SLOPES: dict[str, _Of] = {
    "Relu": lambda z, a, b: _where(z > 0, 1, 0, z),
    "Tanh": lambda z, a, b: 1 - np.tanh(z) ** 2,
    "Sigmoid": lambda z, a, b: _sigmoid(z) * _sigmoid(-z),
    "Affine": lambda z, a, b: np.full_like(z, a),
    "LeakyRelu": lambda z, a, b: _where(z > 0, 1, a, z),
    "ThresholdedRelu": lambda z, a, b: _where(z > a, 1, 0, z),
    "ScaledTanh": lambda z, a, b: (a * b) * (1 - np.tanh(b * z) ** 2),
    "HardSigmoid": lambda z, a, b: _where(_inside(z, a, b), a, 0, z),
    "Elu": lambda z, a, b: _where(z > 0, 1, a * np.exp(np.minimum(z, 0)), z),
    "Softsign": lambda z, a, b: 1 / (1 + np.abs(z)) ** 2,
    "Softplus": lambda z, a, b: _sigmoid(z),
}


@dataclass(frozen=True)
class Function:
    """An activation of z, of z clipped to [-clip, clip] if there is a clip."""

    activation: Activation
    clip: float | None = None

    def __call__(self, z: Array) -> Array:
        name, alpha, beta = self.activation
        return _VALUES[name](z if self.clip is None else np.clip(z, -self.clip, self.clip), alpha, beta)

    def slope(self, z: Array) -> Array:
        name, alpha, beta = self.activation
        slope = _SLOPES[name](z, alpha, beta)
        if self.clip is not None:
            slope[np.abs(z) > self.clip] = 0
        return slope
