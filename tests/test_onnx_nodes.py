"""Recurrent ONNX nodes with every attribute and input: onnx's own tests, the standard's words, and ONNX Runtime."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx", reason="the extra onnx is not installed")

import fastrnn.onnx
from onnx_cases import READS_ALPHA, READS_BETA, USUAL, Node, random_node

SEEDS = range(240)
CLOSE: dict[str, Any] = {"rtol": 2e-4, "atol": 2e-5}


def own_tests() -> list[Any]:
    """The node tests of the installed onnx for these operators."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the making of other operators' data
        from onnx.backend.test.loader import load_model_tests

        cases = load_model_tests(kind="node")
    return [case for case in cases if case.model and any(n.op_type in USUAL for n in case.model.graph.node)]


@pytest.mark.parametrize("case", own_tests(), ids=lambda case: case.name)
def test_onnx_own_node_tests(case: Any) -> None:
    assert fastrnn.onnx.Backend.is_compatible(case.model)
    prepared = fastrnn.onnx.Backend.prepare(case.model)
    for inputs, outputs in case.data_sets:
        for got, want in zip(prepared.run(list(inputs)), outputs, strict=True):
            assert (got.dtype, got.shape) == (want.dtype, want.shape)
            np.testing.assert_allclose(got, want, rtol=case.rtol, atol=case.atol)


def test_there_are_onnx_own_node_tests() -> None:
    assert len(own_tests()) >= 18


@pytest.mark.parametrize("seed", SEEDS)
def test_any_node(seed: int) -> None:
    node = random_node(np.random.default_rng(seed), np.float64)
    got, want = fastrnn.onnx.run(node.model(), node.feed()), node.expected()
    for mine, true in zip(got, want, strict=True):
        assert mine.dtype == np.float64
        np.testing.assert_allclose(mine, true, rtol=1e-9, atol=1e-11)


def defaults_differ(node: Node) -> bool:
    """ONNX Runtime takes other values than the standard's for alpha and beta of these where none are given."""
    names = node.attributes.get("activations", [])
    odd = {"Affine", "ScaledTanh", "ThresholdedRelu"}
    return bool(odd & {*names}) and not (
        len(node.attributes.get("activation_alpha", [])) == sum(n in READS_ALPHA for n in names)
        and len(node.attributes.get("activation_beta", [])) == sum(n in READS_BETA for n in names)
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_any_node_against_onnx_runtime(seed: int) -> None:
    runtime = pytest.importorskip("onnxruntime")
    node = random_node(np.random.default_rng(seed))
    if node.attributes.pop("layout", 0):  # ONNX Runtime refuses it: the same with time first
        for name in {"X", "initial_h", "initial_c"} & {*node.tensors}:
            node.tensors[name] = node.tensors[name].swapaxes(0, 1).copy()
    if "sequence_lens" in node.tensors:  # of rows without steps it gives 0 as final state, fastrnn the initial state
        node.tensors["sequence_lens"] = np.maximum(node.tensors["sequence_lens"], 1)
    if defaults_differ(node):
        del node.attributes["activations"]
        node.attributes = {k: v for k, v in node.attributes.items() if not k.startswith("activation_")}
    model = node.model()
    options = runtime.SessionOptions()
    options.log_severity_level = 4
    session = runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    for mine, theirs, true in zip(
        fastrnn.onnx.run(model, node.feed()), session.run(None, node.feed()), node.expected(), strict=True
    ):
        np.testing.assert_allclose(mine, true, **CLOSE)
        np.testing.assert_allclose(mine, theirs, **CLOSE)


@pytest.mark.parametrize("op", [*USUAL])
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
def test_rows_without_steps_keep_their_state(op: str, direction: str) -> None:
    directions, size = 1 + (direction == "bidirectional"), 3
    rng = np.random.default_rng(0)
    gates = {"RNN": 1, "GRU": 3, "LSTM": 4}[op]
    h = rng.standard_normal((directions, 2, size)).astype(np.float32)
    tensors = {
        "X": rng.standard_normal((4, 2, 2)).astype(np.float32),
        "W": rng.standard_normal((directions, gates * size, 2)).astype(np.float32),
        "R": rng.standard_normal((directions, gates * size, size)).astype(np.float32),
        "sequence_lens": np.array([0, 3], np.int32),
        "initial_h": h,
    }
    node = Node(op, tensors, {"direction": direction}, ("Y", "Y_h"))
    y, last = fastrnn.onnx.run(node.model(), node.feed())
    assert np.array_equal(last[:, 0], h[:, 0])
    assert not y[:, :, 0].any()
    assert not y[3:, :, 1].any()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("op", [*USUAL])
def test_half_precision_is_computed_in_float32(op: str, dtype: str) -> None:
    if dtype == "bfloat16":
        dtype = pytest.importorskip("ml_dtypes").bfloat16
    node = random_node(np.random.default_rng(5))
    while node.op != op or node.attributes.get("layout"):
        node = random_node(np.random.default_rng())
    node.opset = 22
    low = {k: v.astype(dtype) if v.dtype == np.float32 else v for k, v in node.tensors.items()}
    node.tensors = {k: v.astype(np.float32) if v.dtype == dtype else v for k, v in low.items()}
    wide = fastrnn.onnx.run(node.model(), node.feed())
    node.tensors = low
    for got, want in zip(fastrnn.onnx.run(node.model(), node.feed()), wide, strict=True):
        assert got.dtype == dtype
        assert np.array_equal(got, want.astype(dtype), equal_nan=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"activations": ["Tanh", "Swish", "Tanh"]}, "unknown activation 'Swish'"),
        ({"activations": ["Tanh"]}, "1 activations; it must have 3"),
        ({"direction": "sideways"}, "direction is 'sideways'"),
        ({"layout": 2}, "layout is 2"),
        ({"clip": -1.0}, "clip is -1.0"),
        ({"hidden_size": 7}, r"W has shape \(1, 12, 2\); it must be \(1, 28, 2\)"),
        ({"hidden_size": -3}, "hidden_size is -3"),
        ({"direction": "bidirectional"}, r"must be \(2, 12, 2\)"),
    ],
)
def test_bad_attributes(change: dict[str, Any], message: str) -> None:
    tensors = {name: np.ones(s, np.float32) for name, s in {"X": (4, 2, 2), "W": (1, 12, 2), "R": (1, 12, 3)}.items()}
    node = Node("LSTM", tensors, {"hidden_size": 3, **change})
    with pytest.raises(ValueError, match=message):
        fastrnn.onnx.Session(node.model())


@pytest.mark.parametrize(
    ("name", "value", "error", "message"),
    [
        ("R", np.ones((1, 12, 4), np.float32), ValueError, r"W has shape \(1, 12, 2\); it must be \(1, 16, 2\)"),
        ("R", np.ones((1, 11, 3), np.float32), ValueError, r"R has shape \(1, 11, 3\); it must be \(1, 12, 3\)"),
        ("R", np.ones((12, 3), np.float32), ValueError, r"W and R have shapes"),
        ("R", np.ones((1, 12, 3)), (TypeError, ValueError), "float64"),
        ("B", np.ones((1, 12), np.float32), ValueError, r"B has shape \(1, 12\); it must be \(1, 24\)"),
        ("P", np.ones((1, 12), np.float32), ValueError, r"P has shape \(1, 12\); it must be \(1, 9\)"),
        ("X", np.ones((4, 2, 5), np.float32), ValueError, "input_size is 2"),
        ("X", np.ones((4, 2)), TypeError, "dtype float64; it must be float32"),
        ("sequence_lens", np.array([1, -1], np.int32), ValueError, "lengths holds -1"),
        ("sequence_lens", np.array([1, 5], np.int32), ValueError, "lengths holds 5"),
        ("sequence_lens", np.array([1], np.int32), ValueError, "lengths has shape"),
        ("initial_h", np.ones((1, 3, 3), np.float32), ValueError, r"initial_h is float32 \(1, 3, 3\); it must be"),
        ("initial_c", np.ones((2, 2, 3), np.float32), ValueError, r"initial_c is float32 \(2, 2, 3\); it must be"),
    ],
)
def test_bad_tensors(name: str, value: Any, error: Any, message: str) -> None:
    sizes = {"X": (4, 2, 2), "W": (1, 12, 2), "R": (1, 12, 3)}
    tensors = {key: np.ones(shape, np.float32) for key, shape in sizes.items()}
    tensors |= {name: tensors.get(name, value)}
    node = Node("LSTM", tensors)
    if name in node.inputs:
        model = node.model()
        with pytest.raises(error, match=message):
            fastrnn.onnx.run(model, node.feed() | {name: value})
    else:
        node.tensors[name] = value
        with pytest.raises(error, match=message):
            fastrnn.onnx.Session(node.model())


@pytest.mark.parametrize("k", [0, 1, 2])
def test_a_required_input_left_out(k: int) -> None:
    sizes = {"X": (4, 2, 2), "W": (1, 12, 2), "R": (1, 12, 3), "B": (1, 24)}
    model = Node("LSTM", {key: np.ones(shape, np.float32) for key, shape in sizes.items()}).model()
    model.graph.node[0].input[k] = ""
    with pytest.raises(ValueError, match=f"no input {'XWR'[k]}|no valid ONNX model"):
        fastrnn.onnx.Session(model)
