"""What a stack of recurrent layers is, apart from the values of its weights.

Letters: T steps, N batch, I input, H hidden, G gates, D directions, L layers.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import prod

import numpy as np
import numpy.typing as npt

GATES = {"rnn": 1, "lstm": 4, "gru": 3}


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
    exact: bool = False  # tests only: every activation is a clamp to [-1, 1], so small integers stay exact

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
        """Width of what enters a layer: input_size for the first, D*H for the others."""
        return self.input_size if layer == 0 else self.directions * self.hidden_size

    @cached_property
    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape in PyTorch's state_dict order, which is the order of the flat buffer."""
        rows = self.gates * self.hidden_size
        shapes: dict[str, tuple[int, ...]] = {}
        for layer in range(self.num_layers):
            for suffix in ("", "_reverse")[: self.directions]:
                shapes[f"weight_ih_l{layer}{suffix}"] = (rows, self.layer_input_size(layer))
                shapes[f"weight_hh_l{layer}{suffix}"] = (rows, self.hidden_size)
                if self.bias:
                    shapes[f"bias_ih_l{layer}{suffix}"] = (rows,)
                    shapes[f"bias_hh_l{layer}{suffix}"] = (rows,)
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
