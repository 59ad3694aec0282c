"""A layer as an ONNX model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, ValueInfoProto, helper, numpy_helper

from .._gates import reorder
from .._recurrent import Recurrent
from .._spec import ACTIVATIONS, STANDARD, Spec

Array = npt.NDArray[Any]
OPSET, IR_VERSION = 17, 9  # old enough for every runtime of the last years


def export(layer: Recurrent[Any], *, states: bool = False, lengths: bool = False) -> ModelProto:
    """A model that computes what a call of the layer does: `y, (h, c) = layer(x)`.

    Parameters
    ----------
    layer : LSTM, GRU or RNN
        Any number of layers and directions; `batch_first` becomes a Transpose before and after, since ONNX Runtime
        refuses layout 1. Dropout, between layers and recurrent, is for training and is not in the model.
    states : bool
        Adds the inputs h (and c), (L*D, N, H). They are optional: their default is 0. ONNX Runtime says of such inputs
        that it will not treat them as constants, which is what is wanted.
    lengths : bool
        Adds the input lengths, int32 (N,): steps of each row, from 1 to T. Of a row of no steps fastrnn gives the
        initial state as final, ONNX Runtime 0.

    Returns
    -------
    onnx.ModelProto
        Input x, outputs y, h_n (and c_n), in the layer's shapes; T and N are free. To write it: `onnx.save`.
        ONNX Runtime has no kernels for float64.

    Raises
    ------
    TypeError
        No layer.
    ValueError
        A layer with a projection or with zoneout, which ONNX has not.
    """
    if not isinstance(layer, Recurrent):
        message = f"layer is a {type(layer).__name__}; it must be a fastrnn LSTM, GRU or RNN"
        raise TypeError(message)
    spec = layer._spec
    if spec.proj_size:
        message = f"layer has proj_size {spec.proj_size}; it must be 0: ONNX's LSTM has no projection"
        raise ValueError(message)
    if any(spec.zoneout):
        message = (
            f"layer has zoneout {layer.zoneout}; it must be 0: ONNX's operators have none, and a call has its mean"
        )
        raise ValueError(message)
    return stack_model(spec, layer.weights, layer.batch_first, states, lengths)


def stack_model(
    spec: Spec, weights: Mapping[str, Array], batch_first: bool = False, states: bool = False, lengths: bool = False,
    final: bool = True, sizes: tuple[int | str, int | str] = ("T", "N"),
) -> ModelProto:  # fmt: skip
    """The model of a stack; `final`: whether h_n and c_n are outputs; sizes: T and N, numbers if they are fixed."""
    build = _Builder(spec, *sizes)
    has_c, both = spec.cell == "lstm", spec.directions
    current = build.input("x", ["N", "T", spec.input_size] if batch_first else ["T", "N", spec.input_size])
    if batch_first:
        current = build.node("Transpose", [current], "x_t", perm=[1, 0, 2])
    rows = build.input("lengths", ["N"], np.int32) if lengths else ""
    starts = build.starts(has_c, current) if states else {}
    build.constant("keep", np.array([0, 0, both * spec.hidden_size], np.int64))  # -1 would not do for T or N of 0
    ends: dict[str, list[str]] = {"h": [], "c": []}
    for layer in range(spec.num_layers):
        inputs = [current, *build.weights(weights, layer), rows, *(starts[name][layer] for name in starts)]
        if spec.peephole:
            inputs += [""] * (7 - len(inputs)) + [build.peepholes(weights, layer)]
        made = [f"Y{layer}", *([f"h_n{layer}", f"c_n{layer}"][: 1 + has_c] if final else [])]
        build.add(spec.cell.upper(), inputs, made, **attributes_of(spec))
        for name, end in zip("hc", made[1:], strict=False):
            ends[name].append(end)
        current = build.node("Transpose", [made[0]], f"Z{layer}", perm=[0, 2, 1, 3])
        last = layer == spec.num_layers - 1 and not batch_first
        current = build.node("Reshape", [current, "keep"], "y" if last else f"y{layer}")
    if batch_first:
        current = build.node("Transpose", [current], "y", perm=[1, 0, 2])
    build.output(current, [*(["N", "T"] if batch_first else ["T", "N"]), both * spec.hidden_size])
    for name, parts in ends.items():
        if parts:
            build.output(
                build.node("Concat", parts, f"{name}_n", axis=0), [spec.num_layers * both, "N", spec.hidden_size]
            )
    return build.model()


def attributes_of(spec: Spec) -> dict[str, Any]:
    """A node's attributes: those alone that differ from the standard's defaults, and the size."""
    found: dict[str, Any] = {"hidden_size": spec.hidden_size}
    if spec.bidirectional:
        found["direction"] = "bidirectional"
    if spec.cell == "gru" and spec.reset_after:
        found["linear_before_reset"] = 1
    if spec.clip is not None:
        found["clip"] = spec.clip
    if spec.input_forget:
        found["input_forget"] = 1
    functions = [one for way in range(spec.directions) for one in spec.functions(way)]
    if tuple(one.name for one in functions) != STANDARD[spec.cell] * spec.directions:
        found["activations"] = [one.name for one in functions]
        for k, key in enumerate(("activation_alpha", "activation_beta")):
            values = [one[1 + k] for one in functions if ACTIVATIONS[one.name][k] is not None]
            if values:
                found[key] = values
    return found


class _Builder:
    """A graph that grows."""

    def __init__(self, spec: Spec, steps: int | str, batch: int | str) -> None:
        self._spec = spec
        self._sizes = {"T": steps, "N": batch}
        self._nodes: list[NodeProto] = []
        self._inputs: list[ValueInfoProto] = []
        self._outputs: list[ValueInfoProto] = []
        self._constants: list[Any] = []

    def _info(self, name: str, shape: list[Any], dtype: Any) -> ValueInfoProto:
        sizes = [self._sizes.get(size, size) if isinstance(size, str) else size for size in shape]
        return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), sizes)

    def input(self, name: str, shape: list[Any], dtype: Any = None) -> str:
        self._inputs.append(self._info(name, shape, dtype or self._spec.dtype))
        return name

    def output(self, name: str, shape: list[Any]) -> None:
        self._outputs.append(self._info(name, shape, self._spec.dtype))

    def constant(self, name: str, value: Array) -> str:
        self._constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def add(self, kind: str, inputs: list[str], outputs: list[str], **attributes: Any) -> None:
        while inputs and not inputs[-1]:
            inputs = inputs[:-1]
        self._nodes.append(helper.make_node(kind, inputs, outputs, name=outputs[0], **attributes))

    def node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.add(kind, inputs, [output], **attributes)
        return output

    def starts(self, has_c: bool, x: str) -> dict[str, list[str]]:
        """Names of the initial states of each layer, (D, N, H), cut out of inputs (L*D, N, H) that may be left out.

        The default of such an input is of a fixed shape, so it is (L*D, 1, H), and is spread over N, which leaves what
        a user gives as it is.
        """
        spec = self._spec
        states = spec.num_layers * spec.directions
        batch = self.node("Shape", [x], "N", start=1, end=2)
        self.constant("one", np.array([1], np.int64))
        shape = self.node("Concat", ["one", batch, "one"], "1N1", axis=0)
        found = {}
        for name in "hc"[: 1 + has_c]:
            self.input(name, [states, f"N of {name}", spec.hidden_size])
            self.constant(name, np.zeros((states, 1, spec.hidden_size), spec.dtype))
            parts = [f"{name}{layer}" for layer in range(spec.num_layers)]
            whole = self.node("Expand", [name, shape], parts[0] if len(parts) == 1 else f"{name}_all")
            if len(parts) > 1:
                self.constant(f"{name}_split", np.full(len(parts), spec.directions, np.int64))
                self.add("Split", [whole, f"{name}_split"], parts, axis=0)
            found[name] = parts
        return found

    def _stacked(self, weights: Mapping[str, Array], name: str, layer: int, cell: str) -> Array:
        ways = ("", "_reverse")[: self._spec.directions]
        return np.stack([reorder(weights[f"{name}_l{layer}{way}"], cell, "torch", "onnx") for way in ways])

    def weights(self, weights: Mapping[str, Array], layer: int) -> list[str]:
        """W (D, G*H, I), R (D, G*H, H) and B (D, 2*G*H) of a layer, gates in ONNX's order."""
        cell = self._spec.cell
        found = [
            self.constant(f"W{layer}", self._stacked(weights, "weight_ih", layer, cell)),
            self.constant(f"R{layer}", self._stacked(weights, "weight_hh", layer, cell)),
        ]
        if not self._spec.bias:
            return [*found, ""]
        halves = [self._stacked(weights, name, layer, cell) for name in ("bias_ih", "bias_hh")]
        return [*found, self.constant(f"B{layer}", np.concatenate(halves, axis=1))]

    def peepholes(self, weights: Mapping[str, Array], layer: int) -> str:
        """P (D, 3*H) of a layer."""
        return self.constant(f"P{layer}", self._stacked(weights, "weight_ph", layer, "peephole"))

    def model(self) -> ModelProto:
        graph = helper.make_graph(self._nodes, "recurrent", self._inputs, self._outputs, self._constants)
        opsets = [helper.make_opsetid("", OPSET)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="fastrnn")
