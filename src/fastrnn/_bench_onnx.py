"""A stack of recurrent layers as an ONNX model, for the peers that read one."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from ._bench_cases import Case
from ._gates import reorder

OPSET, IR_VERSION = 17, 9  # old enough for every runtime of the last years


def onnx_model(case: Case) -> Any:
    """onnx.ModelProto with input x (T, N, I) and output y (T, N, D*H).

    The operators give Y (T, D, N, H), so a Transpose and a Reshape follow each.

    Raises
    ------
    ImportError
        The package onnx is not installed.
    """
    helper: Any = importlib.import_module("onnx.helper")
    numpy_helper: Any = importlib.import_module("onnx.numpy_helper")
    float32 = importlib.import_module("onnx").TensorProto.FLOAT
    options: dict[str, Any] = {"hidden_size": case.H}
    options["direction"] = "bidirectional" if case.bidirectional else "forward"
    if case.cell == "gru":
        options["linear_before_reset"] = 1
    keep = numpy_helper.from_array(np.array([0, 0, -1], np.int64), "keep")
    nodes, constants, current = [], [keep], "x"
    for layer in range(case.L):
        names = [f"{name}{layer}" for name in ("W", "R", "B", "Y", "Z", "y")]
        constants += map(numpy_helper.from_array, _weights(case, layer), names[:3])
        nodes.append(helper.make_node(case.cell.upper(), [current, *names[:3]], [names[3]], **options))
        nodes.append(helper.make_node("Transpose", [names[3]], [names[4]], perm=[0, 2, 1, 3]))
        nodes.append(helper.make_node("Reshape", [names[4], "keep"], [names[5]]))
        current = names[5]
    shape = [case.T, case.N, case.I]
    x = helper.make_tensor_value_info("x", float32, shape)
    y = helper.make_tensor_value_info(current, float32, [*shape[:2], case.spec.directions * case.H])
    graph = helper.make_graph(nodes, "recurrent", [x], [y], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)


def _weights(case: Case, layer: int) -> tuple[Any, Any, Any]:
    """W (D, G*H, I), R (D, G*H, H) and B (D, 2*G*H) of a layer, gates in ONNX's order."""
    given = case.weights()

    def stacked(name: str) -> Any:
        ways = ("", "_reverse")[: case.spec.directions]
        return np.stack([reorder(given[f"{name}_l{layer}{way}"], case.cell, "torch", "onnx") for way in ways])

    biases = np.concatenate([stacked("bias_ih"), stacked("bias_hh")], axis=1)
    return stacked("weight_ih"), stacked("weight_hh"), biases
