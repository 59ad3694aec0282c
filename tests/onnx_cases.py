"""One-node ONNX models for tests, and what they compute by the words of the standard: row by row, step by step.

https://onnx.ai/onnx/operators/onnx__LSTM.html, onnx__GRU.html, onnx__RNN.html. Nothing here comes from the package.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
USUAL = {"RNN": ["Tanh"], "GRU": ["Sigmoid", "Tanh"], "LSTM": ["Sigmoid", "Tanh", "Tanh"]}
INPUTS = ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P")
OUTPUTS = ("Y", "Y_h", "Y_c")


def apply(name: str, z: NDArray[Any], alpha: float | None, beta: float | None) -> NDArray[Any]:
    """An activation, as the standard's table has it."""
    a = {"LeakyRelu": 0.01, "HardSigmoid": 0.2}.get(name, 1.0) if alpha is None else alpha
    b = {"HardSigmoid": 0.5, "Affine": 0.0}.get(name, 1.0) if beta is None else beta
    values: dict[str, Any] = {
        "Relu": lambda: np.maximum(0, z),
        "Tanh": lambda: np.tanh(z),
        "Sigmoid": lambda: 1 / (1 + np.exp(-z)),
        "Affine": lambda: a * z + b,
        "LeakyRelu": lambda: np.where(z >= 0, z, a * z),
        "ThresholdedRelu": lambda: np.where(z >= a, z, 0),
        "ScaledTanh": lambda: a * np.tanh(b * z),
        "HardSigmoid": lambda: np.minimum(np.maximum(a * z + b, 0), 1),
        "Elu": lambda: np.where(z >= 0, z, a * (np.exp(z) - 1)),
        "Softsign": lambda: z / (1 + np.abs(z)),
        "Softplus": lambda: np.log(1 + np.exp(z)),
    }
    found: NDArray[Any] = values[name]()
    return found


READS_ALPHA = {"Affine", "LeakyRelu", "ThresholdedRelu", "ScaledTanh", "HardSigmoid", "Elu"}
READS_BETA = {"Affine", "ScaledTanh", "HardSigmoid"}


@dataclass
class Node:
    """A node with its tensors."""

    op: str
    tensors: dict[str, NDArray[Any]]
    attributes: dict[str, Any] = field(default_factory=dict)
    outputs: tuple[str, ...] = OUTPUTS
    opset: int = 14
    inputs: frozenset[str] = frozenset({"X", "sequence_lens", "initial_h", "initial_c"})  # the others are initializers

    def model(self) -> Any:
        """The ModelProto."""
        from onnx import helper, numpy_helper

        names = [name if name in self.tensors else "" for name in INPUTS]
        while not names[-1]:
            names.pop()
        kept = self.outputs if self.op == "LSTM" else self.outputs[:2]
        node = helper.make_node(self.op, names, list(kept), name="node", **self.attributes)
        kind = helper.np_dtype_to_tensor_dtype(self.tensors["X"].dtype)
        declared = [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), [None] * array.ndim)
            for name, array in self.tensors.items()
            if name in self.inputs
        ]
        constants = [numpy_helper.from_array(a, name) for name, a in self.tensors.items() if name not in self.inputs]
        made = [helper.make_tensor_value_info(name, kind, None) for name in kept if name]
        graph = helper.make_graph([node], "one", declared, made, constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=9)

    def feed(self) -> dict[str, NDArray[Any]]:
        return {name: array for name, array in self.tensors.items() if name in self.inputs}

    def expected(self) -> list[NDArray[Any]]:
        """The outputs that the node names, in float64."""
        found = reference(self.op, self.attributes, self.tensors)
        return [found[name] for name in self.outputs if name in found]


def functions_of(op: str, attributes: dict[str, Any], directions: int) -> list[Any]:
    names = attributes.get("activations", USUAL[op] * directions)
    alphas, betas = list(attributes.get("activation_alpha", [])), list(attributes.get("activation_beta", []))
    functions = []
    for name in names:
        alpha = alphas.pop(0) if name in READS_ALPHA and alphas else None
        beta = betas.pop(0) if name in READS_BETA and betas else None
        functions.append(lambda z, name=name, alpha=alpha, beta=beta: apply(name, z, alpha, beta))
    return functions


def reference(op: str, attributes: dict[str, Any], tensors: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Y, Y_h and Y_c of a node, in the shapes of its layout."""
    batched = attributes.get("layout", 0) == 1
    wide = {k: v.astype(np.float64) if v.dtype.kind != "i" else v for k, v in tensors.items()}
    if batched:
        wide |= {name: wide[name].swapaxes(0, 1) for name in ("X", "initial_h", "initial_c") if name in wide}
    x, r = wide["X"], wide["R"]
    (steps, batch, _), (directions, _, size) = x.shape, r.shape
    direction = attributes.get("direction", "forward")
    functions = functions_of(op, attributes, directions)
    per = len(USUAL[op])
    y = np.zeros((steps, directions, batch, size))
    last = {name: np.zeros((directions, batch, size)) for name in ("Y_h", "Y_c")}
    lengths = wide.get("sequence_lens", np.full(batch, steps))
    for way in range(directions):
        own = {name: wide[name][way] for name in ("W", "R", "B", "P") if name in wide}
        for n in range(batch):
            h, c = (wide[s][way, n] if s in wide else np.zeros(size) for s in ("initial_h", "initial_c"))
            order = list(range(lengths[n]))
            for t in order[::-1] if direction == "reverse" or way == 1 else order:
                h, c = step(op, attributes, own, functions[way * per :][:per], x[t, n], h, c)
                y[t, way, n] = h
            last["Y_h"][way, n], last["Y_c"][way, n] = h, c
    if batched:
        y, last = y.transpose(2, 0, 1, 3), {name: array.swapaxes(0, 1) for name, array in last.items()}
    return {"Y": y, "Y_h": last["Y_h"]} | ({"Y_c": last["Y_c"]} if op == "LSTM" else {})


def step(
    op: str, attributes: dict[str, Any], own: dict[str, NDArray[Any]], f: list[Any], x: Any, h: Any, c: Any
) -> tuple[Any, Any]:
    """One step of one row."""
    size, gates = len(h), GATES[op]
    b = own.get("B", np.zeros(2 * gates * size))
    wb, rb = b[: gates * size].reshape(gates, size), b[gates * size :].reshape(gates, size)
    w, r = own["W"].reshape(gates, size, -1), own["R"].reshape(gates, size, -1)
    clip = attributes.get("clip")

    def clipped(z: Any) -> Any:
        return z if clip is None else np.clip(z, -clip, clip)

    if op == "RNN":
        return f[0](clipped(w[0] @ x + r[0] @ h + wb[0] + rb[0])), c
    if op == "GRU":
        z, reset = (f[0](clipped(w[k] @ x + r[k] @ h + wb[k] + rb[k])) for k in (0, 1))
        if attributes.get("linear_before_reset", 0):
            inner = w[2] @ x + reset * (r[2] @ h + rb[2]) + wb[2]
        else:
            inner = w[2] @ x + r[2] @ (reset * h) + rb[2] + wb[2]
        return (1 - z) * f[1](clipped(inner)) + z * h, c
    p = own.get("P", np.zeros(3 * size)).reshape(3, size)
    i = f[0](clipped(w[0] @ x + r[0] @ h + p[0] * c + wb[0] + rb[0]))
    forget = f[0](clipped(w[2] @ x + r[2] @ h + p[2] * c + wb[2] + rb[2]))
    if attributes.get("input_forget", 0):
        forget = 1 - i
    c = forget * c + i * f[1](clipped(w[3] @ x + r[3] @ h + wb[3] + rb[3]))
    o = f[0](clipped(w[1] @ x + r[1] @ h + p[1] * c + wb[1] + rb[1]))
    return o * f[2](c), c


def random_node(rng: np.random.Generator, dtype: Any = np.float32) -> Node:
    """Any node at all."""
    op = str(rng.choice([*GATES]))
    direction = str(rng.choice(["forward", "reverse", "bidirectional"]))
    directions, gates = 1 + (direction == "bidirectional"), GATES[op]
    steps, batch, inputs, size = (int(rng.integers(1, k)) for k in (7, 5, 6, 9))

    def normal(*shape: int) -> NDArray[Any]:
        return (0.4 * rng.standard_normal(shape)).astype(dtype)  # small: some activations have no bound

    layout = int(rng.random() < 0.3)
    tensors = {
        "X": normal(batch, steps, inputs) if layout else normal(steps, batch, inputs),
        "W": normal(directions, gates * size, inputs),
        "R": normal(directions, gates * size, size),
    }
    state = (batch, directions, size) if layout else (directions, batch, size)
    if rng.random() < 0.7:
        tensors["B"] = normal(directions, 2 * gates * size)
    if rng.random() < 0.5:
        tensors["sequence_lens"] = rng.integers(0, steps + 1, batch).astype(np.int32)
    if rng.random() < 0.5:
        tensors["initial_h"] = normal(*state)
    attributes: dict[str, Any] = {"direction": direction, "hidden_size": size}
    if layout:
        attributes["layout"] = 1
    if rng.random() < 0.3:
        attributes["clip"] = float(rng.choice([0.25, 1.0, 5.0]))
    if op == "GRU":
        attributes["linear_before_reset"] = int(rng.random() < 0.5)
    if op == "LSTM":
        if rng.random() < 0.5:
            tensors["initial_c"] = normal(*state)
        if rng.random() < 0.3:
            tensors["P"] = normal(directions, 3 * size)
        if rng.random() < 0.3:
            attributes["input_forget"] = 1
    if rng.random() < 0.5:
        names = [str(rng.choice(sorted(KNOWN))) for _ in range(len(USUAL[op]) * directions)]
        attributes["activations"] = names
        if rng.random() < 0.6:
            for key, readers in (("activation_alpha", READS_ALPHA), ("activation_beta", READS_BETA)):
                count = sum(name in readers for name in names)
                if count:  # attributes are float32
                    attributes[key] = rng.uniform(0.2, 1.2, count).astype(np.float32).astype(float).tolist()
    names = OUTPUTS if op == "LSTM" else OUTPUTS[:2]
    outputs = tuple(name if rng.random() < 0.8 else "" for name in names)
    outputs = outputs if any(outputs) else names
    while not outputs[-1]:
        outputs = outputs[:-1]
    opset = 14 if layout else int(rng.choice([7, 14, 22]))
    moved = {"X", "sequence_lens", "initial_h", "initial_c"} | ({"W", "R"} if rng.random() < 0.2 else set())
    return Node(op, tensors, attributes, outputs, opset, frozenset(moved))


KNOWN = {
    "Relu", "Tanh", "Sigmoid", "Affine", "LeakyRelu", "ThresholdedRelu", "ScaledTanh", "HardSigmoid", "Elu", "Softsign",
    "Softplus",
}  # fmt: skip
