"""Layers taken out of ONNX models: nodes one by one, nodes that run in reverse only, nodes that are one stack."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx", reason="the extra onnx is not installed")

from onnx import helper, parser

import fastrnn
import fastrnn.onnx
from conftest import make_layer
from fastrnn.sequences import reverse
from onnx_cases import random_node
from problems import CELLS
from test_onnx_models import lstm_node


@pytest.mark.parametrize("seed", range(60))
def test_layers_compute_what_nodes_compute(seed: int) -> None:
    node = random_node(np.random.default_rng(seed), np.float64)
    node.outputs = ("Y", "Y_h", "Y_c")
    node.inputs = frozenset({"X", "sequence_lens", "initial_h", "initial_c"})
    turned = node.attributes["direction"] == "reverse"
    if turned:
        with pytest.raises(ValueError, match="reverse only"):
            fastrnn.onnx.layers(node.model())
    (layer,) = fastrnn.onnx.layers(node.model(), reverse=True)
    want = fastrnn.onnx.run(node.model(), node.feed())[0]
    given = {key: node.tensors.get(f"initial_{key}") for key in "hc"}
    if layer.batch_first:
        given = {key: None if a is None else a.swapaxes(0, 1) for key, a in given.items()}
    zero = np.zeros((1 + layer.bidirectional, want.shape[0 if layer.batch_first else 2], layer.hidden_size))
    h, c = (zero if a is None else a for a in given.values())
    lengths = node.tensors.get("sequence_lens")

    def way(array: Any) -> Any:
        return reverse(array, lengths, batch_first=layer.batch_first) if turned else array

    y = way(layer(way(node.tensors["X"]), (h, c) if node.op == "LSTM" else h, lengths=lengths)[0])
    y = y.reshape(*y.shape[:2], 1 + layer.bidirectional, -1)
    np.testing.assert_allclose(y if layer.batch_first else y.transpose(0, 2, 1, 3), want, rtol=1e-12)


@pytest.mark.parametrize("cell", list(CELLS))
@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("options", [{}, {"lengths": True}, {"states": True}], ids=["plain", "lengths", "states"])
def test_stacks_are_put_together(cell: str, both: bool, options: dict[str, bool]) -> None:
    layer = make_layer(cell, 3, 4, 3, bidirectional=both)
    model = fastrnn.onnx.export(layer, **options)
    (found,) = fastrnn.onnx.layers(model, stacks=True)
    assert repr(found) == repr(layer)
    assert all(np.array_equal(found.weights[name], layer.weights[name]) for name in layer.weights)
    assert len(fastrnn.onnx.layers(model)) == 3


CHAIN = """
    <ir_version: 9, opset_import: ["" : 17]>
    two (float[SIZES, 3] x) => (float[a] y, float[b] last) <WEIGHTS>
    { first, last = GRU <hidden_size = 4> (x, W0, R0) BETWEEN second = GRU <hidden_size = 4> (z, W1, R1)
      y = Identity (second) }
"""


@pytest.mark.parametrize(
    ("between", "count"),
    [
        ("z = Squeeze (first, one)", 1),
        ("t = Transpose <perm = [0, 2, 1, 3]> (first) z = Reshape (t, keep)", 1),
        ("z = Gather <axis = 1> (first, k)", 1),
        ("z = Reshape (first, fixed)", 1),
        ("s = Shape <start = 2> (first) m = Constant <value_ints = [-1]> () j = Concat <axis = 0> (m, s) "
         "z = Reshape (first, j)", 1),
        ("z = Slice (x, zero, three, two) r = Relu (first)", 2),  # of the input, not of the node before
        ("q = Squeeze (first, one) z = Slice (q, minus, low, zero, minus)", 2),  # back in time
        ("q = Squeeze (first, one) z = Transpose <perm = [1, 0, 2]> (q)", 2),
        ("q = Squeeze (first, one) z = Relu (q)", 2),
        ("z = Identity (last)", 2),
    ],
)  # fmt: skip
@pytest.mark.parametrize("sizes", ["T, N", "5, 7"])
def test_what_lies_between_layers_of_a_stack(between: str, count: int, sizes: str) -> None:
    if "fixed" in between and sizes == "T, N":
        count = 2  # the model says nothing of 5 and 7
    numbers = ", ".join(["0.5"] * 48)
    weights = ", ".join(f"float[1, 12, {n}] {name} = {{{numbers[: 5 * 12 * n - 2]}}}" for name, n in SHAPES.items())
    consts = (
        "int64[1] zero = {0}, int64[1] one = {1}, int64[1] two = {2}, int64[1] three = {3}, int64[1] minus = {-1}, "
        "int64[1] low = {-99}, int64 k = {0}, int64[3] keep = {0, 0, -1}, int64[3] fixed = {5, 7, 4}, "
    )
    text = CHAIN.replace("SIZES", sizes).replace("BETWEEN", between).replace("WEIGHTS", consts + weights)
    assert len(fastrnn.onnx.layers(parser.parse_model(text), stacks=True)) == count


SHAPES = {"W0": 3, "R0": 4, "W1": 4, "R1": 4}


def test_unlike_layers_are_no_stack() -> None:
    for change in ({"activations": ["Sigmoid", "Relu"]}, {"direction": "reverse"}, {"clip": 1.0}):
        model = fastrnn.onnx.export(fastrnn.GRU(3, 4, 2, rng=0))
        model.graph.node[3].attribute.extend(helper.make_node("GRU", [], [], **change).attribute)
        assert len(fastrnn.onnx.layers(model, reverse=True, stacks=True)) == 2


def test_layers_need_constant_weights() -> None:
    node = lstm_node()
    node.inputs = node.inputs | {"R"}
    with pytest.raises(ValueError, match="R is computed by the model or is an input"):
        fastrnn.onnx.layers(node.model())
