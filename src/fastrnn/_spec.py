"""What a stack of recurrent layers is, apart from the values of its weights.

Letters: T steps, N batch, I input, H hidden, P projection, G gates, D directions, L layers.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

GATES = {"rnn": 1, "lstm": 4, "gru": 3}


class Activation(NamedTuple):
    """An activation function with its parameters; those that it does not have are 0."""

    name: str
    alpha: float = 0.0
    beta: float = 0.0


# ONNX's names, with the values that alpha and beta have if they are not given; None: there is no such parameter.
ACTIVATIONS: dict[str, tuple[float | None, float | None]] = {
    "Relu": (None, None),  # max(z, 0)
    "Tanh": (None, None),
    "Sigmoid": (None, None),  # 1 / (1 + exp(-z))
    "Affine": (1.0, 0.0),  # alpha z + beta
    "LeakyRelu": (0.01, None),  # z if z > 0, else alpha z
    "ThresholdedRelu": (1.0, None),  # z if z >= alpha, else 0
    "ScaledTanh": (1.0, 1.0),  # alpha tanh(beta z)
    "HardSigmoid": (0.2, 0.5),  # alpha z + beta, at least 0 and at most 1
    "Elu": (1.0, None),  # z if z > 0, else alpha (exp(z) - 1)
    "Softsign": (None, None),  # z / (1 + |z|)
    "Softplus": (None, None),  # log(1 + exp(z))
}
# The functions of a direction, in ONNX's order: f of the gates, g of the candidate, h of the LSTM's cell state.
STANDARD = {"rnn": ("Tanh",), "lstm": ("Sigmoid", "Tanh", "Tanh"), "gru": ("Sigmoid", "Tanh")}


class Regularisers(NamedTuple):
    """What recurrent dropout and zoneout multiply by in one call, in the stack's dtype; None: not on.

    mask : ndarray, shape (L*D, N, H), C-contiguous
        Multiplies h[t-1] where it enters the recurrent product; 0 or 1/(1-p). With a projection P stands for H here
        and in zone_h.
    zone_h, zone_c : ndarray, shape (L*D, T, N, H), last axis contiguous
        Share z, from 0 to 1, of the state before that stays: h[t] = z h[t-1] + (1-z) h~[t]. If both are given, they
        have the same strides.
    """

    mask: npt.NDArray[Any] | None = None
    zone_h: npt.NDArray[Any] | None = None
    zone_c: npt.NDArray[Any] | None = None


@dataclass(frozen=True)
class Spec:
    """Cell, sizes and options of one stack: hashable, comparable, shared by layer, packed weights and tape.

    Values are taken as valid: `_validate` checks what a user gives before a Spec is made.
    """

    cell: str  # "rnn", "lstm" or "gru"
    input_size: int
    hidden_size: int
    num_layers: int = 1
    bias: bool = True
    bidirectional: bool = False
    dtype_name: str = "float32"  # or "float64"
    nonlinearity: str = "tanh"  # RNN: "tanh" or "relu"
    reset_after: bool = True  # GRU: reset gate applied after (True) or before (False) the recurrent product
    zoneout: tuple[float, float] = (0.0, 0.0)  # of h and, in an LSTM, of c: the shares that inference applies
    exact: bool = False  # tests only: every activation is a clamp to [-1, 1], so small integers stay exact
    # What the fast kernels do not do: see `general`.
    proj_size: int = 0  # LSTM: P, the width of h; 0: h is not projected and has the width H
    peephole: bool = False  # LSTM: gates see the cell state
    input_forget: bool = False  # LSTM: the forget gate is 1 - the input gate
    clip: float | None = None  # what enters the activations of gates and candidates is clipped to [-clip, clip]
    activations: tuple[tuple[Activation, ...], ...] = ()  # of each direction, as in STANDARD; (): the cell's own

    @cached_property
    def general(self) -> bool:
        """Whether it has an option that only `backends._general` computes."""
        options = self.proj_size or self.peephole or self.input_forget or self.activations
        return bool(options) or self.clip is not None

    def functions(self, direction: int) -> tuple[Activation, ...]:
        """Activation functions of a direction, as in STANDARD."""
        if self.activations:
            return self.activations[direction]
        if self.cell == "rnn":
            return (Activation("Relu" if self.nonlinearity == "relu" else "Tanh"),)
        return tuple(map(Activation, STANDARD[self.cell]))

    @property
    def activation_options(self) -> tuple[Any, ...] | None:
        """What gives these activations to a layer's constructor, as short as it can be said."""
        per_direction = self.activations[:1] if len(set(self.activations)) == 1 else self.activations
        given = [
            one.name if one[1:] == tuple(usual or 0.0 for usual in ACTIVATIONS[one.name]) else tuple(one)
            for functions in per_direction
            for one in functions
        ]
        return tuple(given) or None

    @cached_property
    def output_size(self) -> int:
        """Width of h, and of y for each direction: P with a projection, else H."""
        return self.proj_size or self.hidden_size

    @cached_property
    def gates(self) -> int:
        """G: 1, 4 or 3."""
        return GATES[self.cell]

    @cached_property
    def directions(self) -> int:
        """D: 2 if bidirectional, else 1."""
        return 2 if self.bidirectional else 1

    @cached_property
    def dtype(self) -> np.dtype[np.floating[npt.NBitBase]]:
        return np.dtype(self.dtype_name)

    def layer_input_size(self, layer: int) -> int:
        """Width of what enters a layer: input_size for the first, D*H (D*P) for the others."""
        return self.input_size if layer == 0 else self.directions * self.output_size

    def expected(self, steps: int, batch: int) -> Regularisers | None:
        """Zoneout without chance: every share is its expectation, the rate. None if there is no zoneout."""
        if self.zoneout == (0.0, 0.0):
            return None
        rows = (self.num_layers * self.directions, steps, batch)
        h, c = (
            np.broadcast_to(np.full(width, rate, self.dtype), (*rows, width)) if rate else None
            for rate, width in zip(self.zoneout, (self.output_size, self.hidden_size), strict=True)
        )
        return Regularisers(None, h, c)

    @cached_property
    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape in PyTorch's state_dict order, which is the order of the flat buffer."""
        rows = self.gates * self.hidden_size
        shapes: dict[str, tuple[int, ...]] = {}
        for layer in range(self.num_layers):
            for suffix in ("", "_reverse")[: self.directions]:
                shapes[f"weight_ih_l{layer}{suffix}"] = (rows, self.layer_input_size(layer))
                shapes[f"weight_hh_l{layer}{suffix}"] = (rows, self.output_size)
                if self.bias:
                    shapes[f"bias_ih_l{layer}{suffix}"] = (rows,)
                    shapes[f"bias_hh_l{layer}{suffix}"] = (rows,)
                if self.proj_size:
                    shapes[f"weight_hr_l{layer}{suffix}"] = (self.proj_size, self.hidden_size)
                if self.peephole:
                    shapes[f"weight_ph_l{layer}{suffix}"] = (3 * self.hidden_size,)  # i f o
        return shapes

    @cached_property
    def weight_count(self) -> int:
        """Elements of the flat buffer."""
        return sum(prod(shape) for shape in self.weight_shapes.values())

    def views(self, flat: npt.NDArray[np.floating[npt.NBitBase]]) -> dict[str, npt.NDArray[np.floating[npt.NBitBase]]]:
        """Named views of a flat buffer of `weight_count` elements."""
        out = {}
        start = 0
        for name, shape in self.weight_shapes.items():
            stop = start + prod(shape)
            out[name] = flat[start:stop].reshape(shape)
            start = stop
        return out

    def by_direction(self, flat: npt.NDArray[Any]) -> list[dict[str, npt.NDArray[Any]]]:
        """The same views for every state k = layer * D + direction, named without layer and direction."""
        count = self.num_layers * self.directions
        tensors = [(name[: name.rindex("_l")], view) for name, view in self.views(flat).items()]
        per = len(tensors) // count
        return [dict(tensors[k * per : (k + 1) * per]) for k in range(count)]
