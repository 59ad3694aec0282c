"""Whole ONNX models: sessions with and without onnx's evaluator, reports, layers taken out and layers exported."""

# ruff: noqa: E402 - without onnx there is nothing to import

from __future__ import annotations

import subprocess
import sys
import threading
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="the extra onnx is not installed")

from onnx import TensorProto, helper, numpy_helper, parser

import fastrnn
import fastrnn.onnx
from conftest import make_layer, parts
from onnx_cases import Node
from problems import CELLS

CLOSE: dict[str, Any] = {"rtol": 2e-5, "atol": 2e-6}


def lstm_node(dtype: Any = np.float32) -> Node:
    rng = np.random.default_rng(0)
    sizes = {"X": (6, 2, 3), "W": (1, 16, 3), "R": (1, 16, 4), "B": (1, 32)}
    return Node(
        "LSTM", {k: rng.standard_normal(s).astype(dtype) for k, s in sizes.items()}, outputs=("Y", "Y_h", "Y_c")
    )


def torch_like(op: str = "LSTM") -> Any:
    """A model as exporters write it, ending in what only the evaluator computes."""
    node = lstm_node()
    graph = node.model().graph
    graph.node.append(helper.make_node("Squeeze", ["Y", "axis"], ["y"]))
    graph.node.append(helper.make_node("MatMul", ["y", "M"], ["z"]))
    graph.node.append(helper.make_node(op, ["z"], ["out"]))
    graph.initializer.append(numpy_helper.from_array(np.array([1]), "axis"))
    graph.initializer.append(numpy_helper.from_array(np.full((4, 2), 0.5, np.float32), "M"))
    graph.output.append(helper.make_tensor_value_info("out", TensorProto.FLOAT, ["T", "N", 2]))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


# -- running -----------------------------------------------------------------------------------------------------------


def test_path_bytes_and_proto(tmp_path: Path) -> None:
    node = lstm_node()
    model, want = node.model(), node.expected()
    onnx.save(model, tmp_path / "model.onnx")
    for given in (model, model.SerializeToString(), tmp_path / "model.onnx", str(tmp_path / "model.onnx")):
        for got, true in zip(fastrnn.onnx.run(given, node.feed()), want, strict=True):
            np.testing.assert_allclose(got, true, **CLOSE)


def test_outputs_and_inputs_in_every_form() -> None:
    node = lstm_node()
    session = fastrnn.onnx.Session(node.model())
    assert session.input_names == ("X",)
    assert session.output_names == ("Y", "Y_h", "Y_c")
    x = node.tensors["X"]
    want = session.run({"X": x})
    assert want[1] is want["Y_h"]  # type: ignore[call-overload]
    for form in (x, [x], (x,), [x.tolist()], {"X": x.tolist()}, {"X": x[:, :, ::-1].copy()[:, :, ::-1]}):
        for a, b in zip(session.run(form), want, strict=True):
            assert np.array_equal(a, b)
            assert a.flags.c_contiguous
            assert a.flags.writeable
            assert a.flags.owndata or a.base is not None


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        ({}, ValueError, "inputs has no 'X'"),
        ({"X": np.ones((6, 2, 3), np.float32), "Z": 1}, ValueError, "inputs has 'Z'"),
        ([], ValueError, "0 entries"),
        (7, TypeError, "inputs is a int"),
        ({"X": np.ones((6, 2, 3))}, TypeError, "dtype float64; it must be float32"),
        ({"X": np.ones((6, 3), np.float32)}, ValueError, r"shape \(6, 3\); it must be \(any, any, any\)"),
        ({"X": object()}, TypeError, "input 'X'"),
        ({"X": [["a"]]}, TypeError, "input 'X'"),
        ({"X": None}, TypeError, "input 'X'"),
    ],
)
def test_bad_inputs(inputs: Any, error: Any, message: str) -> None:
    session = fastrnn.onnx.Session(lstm_node().model())
    with pytest.raises(error, match=message):
        session.run(inputs)


def test_declared_sizes_are_kept() -> None:
    model = lstm_node().model()
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 5
    with pytest.raises(ValueError, match=r"must be \(any, 5, any\)"):
        fastrnn.onnx.run(model, np.ones((6, 2, 3), np.float32))


@pytest.mark.parametrize(
    "model",
    [b"no model", b"", b"\x00" * 100, 7, None, onnx.ModelProto()],
    ids=["text", "empty", "zeros", "number", "none", "blank"],
)
def test_what_is_no_model(model: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="model"):
        fastrnn.onnx.Session(model)


def test_damaged_models_give_one_kind_of_error() -> None:
    good, rng = lstm_node().model().SerializeToString(), np.random.default_rng(0)
    x = np.ones((6, 2, 3), np.float32)
    for k in range(300):
        bad = bytearray(good)
        if k % 2:
            bad[rng.integers(len(bad))] ^= 1 << int(rng.integers(8))
        else:
            del bad[rng.integers(len(bad)) :]
        try:
            fastrnn.onnx.run(bytes(bad), x)
        except (TypeError, ValueError):
            continue


def test_weights_in_files_beside_the_model(tmp_path: Path) -> None:
    node = lstm_node()
    path = tmp_path / "model.onnx"
    onnx.save(node.model(), path, save_as_external_data=True, size_threshold=0, location="weights.bin")
    assert (tmp_path / "weights.bin").exists()
    np.testing.assert_allclose(fastrnn.onnx.run(path, node.feed())[0], node.expected()[0], **CLOSE)
    with pytest.raises(ValueError, match="files beside it"):
        fastrnn.onnx.run(path.read_bytes(), node.feed())
    (tmp_path / "weights.bin").write_bytes(b"short")
    with pytest.raises(ValueError, match=r"model\.onnx.* is damaged"):
        fastrnn.onnx.Session(path)


def test_constant_nodes_name_no_files_of_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret.bin").write_bytes(bytes(8))
    tensor = numpy_helper.from_array(np.zeros(2, np.float32), "k")
    onnx.external_data_helper.set_external_data(tensor, "secret.bin", 0, 8)
    tensor.ClearField("raw_data")
    node = helper.make_node("Constant", [], ["y"], value=tensor)
    graph = helper.make_graph([node], "one", [], [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    for given in (model, model.SerializeToString()):
        with pytest.raises(ValueError, match="files beside it"):
            fastrnn.onnx.Session(given)


def test_tensors_inside_nodes_are_checked() -> None:
    tensor = numpy_helper.from_array(np.zeros(2, np.float32), "k")
    tensor.data_type = 99
    node = helper.make_node("Constant", [], ["y"], value=tensor)
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in "yxz"]
    for more in ([], [helper.make_node("Relu", ["x"], ["z"])]):
        graph = helper.make_graph([node, *more], "one", values[1:2] if more else [], values[:1])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        with pytest.raises(ValueError, match="tensor 'k' is damaged"):
            fastrnn.onnx.Session(model)


@pytest.mark.parametrize("name", ["m.onnx", "m.json", "m.textproto", "m.onnxtxt"])
@pytest.mark.filterwarnings("ignore:The onnxtxt format")
def test_damaged_files_in_every_form(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"\x00 no {model")
    with pytest.raises(ValueError, match=f"{name}' is damaged"):
        fastrnn.onnx.Session(tmp_path / name)


def test_the_rest_of_a_model_runs_in_the_evaluator() -> None:
    node = lstm_node()
    y = node.expected()[0][:, 0]
    got = fastrnn.onnx.run(torch_like("Relu"), node.feed())
    np.testing.assert_allclose(got[-1], np.maximum(y @ np.full((4, 2), 0.5), 0), **CLOSE)
    report = fastrnn.onnx.report(torch_like("Relu"))
    assert [place.where for place in report] == [fastrnn.backends.current().NAME, "onnx", "onnx", "onnx"]
    assert "fast kernels" in str(report)


def test_an_operator_that_nobody_has() -> None:
    model = torch_like("Frobnicate")
    with pytest.raises(ValueError, match="Frobnicate"):
        fastrnn.onnx.Session(model)


def test_inside_if_and_functions() -> None:
    node = lstm_node()
    text = """
        <ir_version: 9, opset_import: ["" : 17, "own" : 1]>
        whole (bool[1] flag, float[T, N, I] X, float[D, G, I] W, float[D, G, H] R) => (float[T, D, N, H] Y) {
            twice = own.doubled (X)
            Y = If (flag) <then_branch = yes () => (float[T, D, N, H] a) { a, h, c = LSTM (twice, W, R) },
                           else_branch = no () => (float[T, D, N, H] b) { b, h2, c2 = LSTM (X, W, R) }>
        }
        <domain: "own", opset_import: ["" : 17]>
        doubled (v) => (w) { w = Add (v, v) }
    """
    model = parser.parse_model(text)
    del node.tensors["B"]
    feed = {k: node.tensors[k] for k in "XWR"}
    plain = node.expected()[0]
    np.testing.assert_allclose(fastrnn.onnx.run(model, feed | {"flag": np.array([False])})[0], plain, **CLOSE)
    node.tensors["X"] = 2 * node.tensors["X"]
    np.testing.assert_allclose(
        fastrnn.onnx.run(model, feed | {"flag": np.array([True])})[0], node.expected()[0], **CLOSE
    )
    assert sum(place.op_type == "LSTM" for place in fastrnn.onnx.report(model)) == 2


def test_a_function_around_a_recurrent_node() -> None:
    text = """
        <ir_version: 9, opset_import: ["" : 17, "own" : 1]>
        whole (float[T, N, I] X, float[D, G, I] W, float[D, G, H] R) => (float[T, D, N, H] Y) { Y = own.cell (X, W, R) }
        <domain: "own", opset_import: ["" : 17]>
        cell (x, w, r) => (y) { y, h, c = LSTM <hidden_size = 4> (x, w, r) }
    """
    node = lstm_node()
    del node.tensors["B"]
    got = fastrnn.onnx.run(parser.parse_model(text), {k: node.tensors[k] for k in "XWR"})
    np.testing.assert_allclose(got[0], node.expected()[0], **CLOSE)


def test_every_move_against_the_evaluator() -> None:
    from onnx.reference import ReferenceEvaluator

    text = """
        <ir_version: 9, opset_import: ["" : 17]>
        moves (float[2, 3, 4] x) => (float[N] a, float[N] b, float[N] c, float[N] d, float[N] e, float[N] f, float[N] g,
                                     float[N] h, float[N] i, float[N] j)
        <int64[3] wanted = {0, -1, 2}, int64[1] one = {1}, int64[2] halves = {1, 3}, int64[1] start = {3},
         int64[1] stop = {-9223372036854775808}, int64[1] axis = {2}, int64[1] back = {-2}, int64[2] pick = {0, -1},
         int64[4] wide = {5, 1, 1, 4}>
        {
            a = Transpose <perm = [2, 0, 1]> (x)
            b = Reshape (x, wanted)
            u = Unsqueeze (x, one)
            c = Squeeze (u, one)
            d = Concat <axis = -1> (x, x)
            e, e2 = Split <axis = 2> (x, halves)
            f = Slice (x, start, stop, axis, back)
            g = Gather <axis = 1> (x, pick)
            h = Shape <start = 1> (x)
            i = Expand (x, wide)
            k = Constant <value_ints = [2, 3]> ()
            j = ConstantOfShape <value = float[1] {1.5}> (k)
        }
    """
    text = text.replace("(x, wide)", "(s, wide)").replace("i = Expand", "s = Slice (x, zero, one, zero)\n i = Expand")
    text = text.replace("int64[4] wide", "int64[1] zero = {0}, int64[4] wide")
    model = parser.parse_model(text.replace("int64[4] wide = {5, 1, 1, 4}", "int64[4] wide = {5, 1, 3, 4}"))
    x = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    session = fastrnn.onnx.Session(model)
    assert {place.where for place in fastrnn.onnx.report(model)} == {"view"}
    for name, got, want in zip(
        session.output_names, session.run(x), ReferenceEvaluator(model).run(None, {"x": x}), strict=True
    ):
        assert got.dtype == want.dtype, name
        assert np.array_equal(got, want), name
        assert not np.shares_memory(got, x), name


FIXED = "int64[1] zero = {0}, int64[1] one = {1}, int64[1] nine = {9}, int64[2] odd = {-1, 3}, int64[2] two = {2, 9}"


@pytest.mark.parametrize(
    "text",
    [
        "y = Gather (x, nine)", "y = Gather <axis = 7> (x, zero)", "y = Slice (x, zero, one, nine)",
        "y, z = Split (x, odd)",
        "y, z = Split <axis = 9> (x)", "y = Reshape (x, two)", "y = Concat <axis = 0> (x, d)", "y = Squeeze (x, one)",
        "y = Transpose <perm = [0, 0, 1]> (x)", "y = Expand (x, nine)", "z = Relu (x) y = Gather (z, nine)",
    ],
)  # fmt: skip
def test_moves_that_do_not_fit(text: str) -> None:
    model = parser.parse_model(
        f'<ir_version: 9, opset_import: ["" : 17]> bad (float[2, 3, 4] x) => (float[N] y) '
        f"<{FIXED}, double[1, 3, 4] d = {{{', '.join(['0'] * 12)}}}> {{ {text} }}"
    )
    with pytest.raises(ValueError, match="evaluator: IndexError" if "Relu" in text else r"^\w+ node 'y"):
        fastrnn.onnx.run(model, np.zeros((2, 3, 4), np.float32))


def test_reshape_of_nothing() -> None:
    text = """
        <ir_version: 9, opset_import: ["" : 17]>
        none (float[T, N, 4] x) => (float[N] y, float[N] z) <int64[3] keep = {0, 0, -1}, int64[3] two = {0, -1, 2}>
        { y = Reshape (x, keep) z = Reshape (x, two) }
    """
    session = fastrnn.onnx.Session(parser.parse_model(text))
    for shape in ((0, 3), (2, 0), (0, 0), (2, 3)):
        y, z = session.run(np.zeros((*shape, 4), np.float32))
        assert (y.shape, z.shape) == ((*shape, 4), (shape[0], 2 * shape[1], 2))


def test_concat_of_the_first_operator_set() -> None:
    node = helper.make_node("Concat", ["x", "x"], ["y"])
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 3]) for name in "xy"]
    graph = helper.make_graph([node], "one", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 1)], ir_version=3)
    assert fastrnn.onnx.run(model, np.zeros((2, 3), np.float32))[0].shape == (2, 6)


def test_outputs_are_arrays_of_their_own() -> None:
    text = """
        <ir_version: 9, opset_import: ["" : 17]>
        views (float[T, N, I] X, float[D, G, I] W, float[D, G, H] R) => (float[N] Y, float[N] a, float[N] b, float[N] Y)
        <int64[1] one = {1}> { Y = RNN (X, W, R) a = Squeeze (Y, one) b = Expand (Y, one) }
    """
    feed = {"X": (3, 2, 4), "W": (1, 5, 4), "R": (1, 5, 5)}
    outputs = fastrnn.onnx.run(parser.parse_model(text), {k: np.ones(v, np.float32) for k, v in feed.items()})
    for k, output in enumerate(outputs):
        assert output.flags.writeable
        assert not any(np.shares_memory(output, other) for other in outputs[:k])


@pytest.mark.parametrize("more", ["", "r = Relu (x)"], ids=["alone", "evaluator"])
def test_constants_cannot_be_changed_through_outputs(more: str) -> None:
    text = """
        <ir_version: 9, opset_import: ["" : 17]>
        same (float[2] x) => (float[2] y, float[2] z) <float[2] kept = {1, 2}, int64[1] two = {2}>
        { y = Reshape (kept, two) z = Reshape (x, two) MORE }
    """
    session = fastrnn.onnx.Session(parser.parse_model(text.replace("MORE", more)))
    x = np.zeros(2, np.float32)
    for _ in range(2):
        y, z = session.run(x)
        assert y.tolist() == [1, 2]
        y[:] = 7
        z[:] = 7
        assert not x.any()


@pytest.mark.parametrize("mixed", [False, True], ids=["alone", "evaluator"])
def test_weights_as_inputs_are_packed_when_they_change(mixed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    node = lstm_node()
    node.inputs = node.inputs | {"W", "R", "B"}
    graph = node.model().graph
    if mixed:
        graph.node.append(helper.make_node("Relu", ["Y"], ["Z"]))
        graph.output.append(helper.make_tensor_value_info("Z", TensorProto.FLOAT, None))
    session = fastrnn.onnx.Session(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9))
    packed = []
    pack = fastrnn.functional.pack
    monkeypatch.setattr(fastrnn.functional, "pack", lambda *a: packed.append(1) or pack(*a))
    feed = node.feed()
    for _ in range(3):
        np.testing.assert_allclose(session.run(feed)[0], node.expected()[0], **CLOSE)
    assert len(packed) == 1
    feed["R"] *= 0.5  # in place: the same array with other values
    np.testing.assert_allclose(session.run(feed)[0], node.expected()[0], **CLOSE)
    assert len(packed) == 2


def test_weights_with_a_default_may_be_given() -> None:
    node = lstm_node()
    model = node.model()
    model.graph.input.append(helper.make_tensor_value_info("R", TensorProto.FLOAT, [1, 16, 4]))
    session = fastrnn.onnx.Session(model)
    assert session.input_names == ("X",)
    np.testing.assert_allclose(session.run(node.feed())[0], node.expected()[0], **CLOSE)
    node.tensors["R"] = node.tensors["R"] * 0.5
    got = session.run(node.feed() | {"R": node.tensors["R"]})
    np.testing.assert_allclose(got[0], node.expected()[0], **CLOSE)


@pytest.mark.parametrize("backend", fastrnn.backends.available())
def test_a_session_follows_the_choice_of_a_backend(backend: str) -> None:
    node = lstm_node()
    session = fastrnn.onnx.Session(node.model())
    session.run(node.feed())
    with fastrnn.backend(backend):
        np.testing.assert_allclose(session.run(node.feed())[0], node.expected()[0], **CLOSE)
        assert fastrnn.onnx.report(node.model())[0].where == backend


def test_threads_share_a_session() -> None:
    node = lstm_node()
    session = fastrnn.onnx.Session(node.model())
    want = session.run(node.feed())[0]
    results: list[bool] = []

    def work() -> None:
        results.extend(np.array_equal(session.run(node.feed())[0], want) for _ in range(50))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 200
    assert all(results)


@pytest.mark.parametrize("steps", [0, 1])
@pytest.mark.parametrize("batch", [0, 1])
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
def test_nothing_to_do(steps: int, batch: int, direction: str) -> None:
    ways = 1 + (direction == "bidirectional")
    shapes = {"X": (steps, batch, 3), "W": (ways, 16, 3), "R": (ways, 16, 4)}
    node = Node("LSTM", {k: np.ones(s, np.float32) for k, s in shapes.items()}, {"direction": direction})
    y, h, c = fastrnn.onnx.run(node.model(), node.feed())
    assert y.shape == (steps, ways, batch, 4)
    assert h.shape == c.shape == (ways, batch, 4)


# -- reports -----------------------------------------------------------------------------------------------------------


def test_report_of_the_general_path() -> None:
    node = lstm_node()
    node.tensors["P"] = np.ones((1, 12), np.float32)
    node.attributes |= {"clip": 3.0, "activations": ["HardSigmoid", "Tanh", "Tanh"]}
    (place,) = fastrnn.onnx.report(node.model())
    assert (place.where, place.op_type) == ("general", "LSTM")
    assert place.why == "clip, activations HardSigmoid Tanh Tanh, peepholes"


# -- export ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", list(CELLS))
@pytest.mark.parametrize(
    ("layers", "both", "first", "bias"), [*product((1, 2), (False, True), (False, True), (True, False))]
)
def test_exported_layers(cell: str, layers: int, both: bool, first: bool, bias: bool) -> None:
    runtime = pytest.importorskip("onnxruntime")
    options = runtime.SessionOptions()
    options.log_severity_level = 3  # it tells that inputs with a default are not treated as constants
    layer = make_layer(cell, 3, 5, layers, bidirectional=both, batch_first=first, bias=bias)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4, 6, 3) if first else (6, 4, 3)).astype(np.float32)
    state = tuple(rng.standard_normal(a.shape).astype(np.float32) for a in parts(layer(x)[1]))
    rows = np.array([1, 6, 3, 2], np.int32)
    given = dict(zip("hc", state, strict=False))
    for states, lengths, feed in (
        (False, False, {}), (True, False, {}), (True, False, given), (False, True, {"lengths": rows}),
        (True, True, {**given, "lengths": rows}),
    ):  # fmt: skip
        model = fastrnn.onnx.export(layer, states=states, lengths=lengths)
        start = None if "h" not in feed else state if len(state) == 2 else state[0]
        y, last = layer(x, start, lengths=feed.get("lengths"))
        session = runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        assert {place.where for place in fastrnn.onnx.report(model)} <= {fastrnn.backends.current().NAME, "view"}
        for got in (session.run(None, {"x": x, **feed}), fastrnn.onnx.run(model, {"x": x, **feed})):
            for mine, want in zip(got, (y, *parts(last)), strict=True):
                assert mine.shape == want.shape
                np.testing.assert_allclose(mine, want, **CLOSE)


@pytest.mark.parametrize(
    "options",
    [
        {"peephole": True}, {"clip": 0.5}, {"input_forget": True}, {"activations": ["Sigmoid", "Tanh", "Relu"]},
        {"activations": [("HardSigmoid", 0.3, 0.4), "Tanh", ("Elu", 0.2)], "peephole": True, "bidirectional": True},
    ],
    ids=["peephole", "clip", "input_forget", "activations", "all"],
)  # fmt: skip
def test_exported_options(options: dict[str, Any]) -> None:
    runtime = pytest.importorskip("onnxruntime")
    layer = fastrnn.LSTM(3, 5, 2, rng=0, **options)
    x = np.random.default_rng(0).standard_normal((6, 4, 3)).astype(np.float32)
    model = fastrnn.onnx.export(layer)
    session = runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for got in (session.run(None, {"x": x}), fastrnn.onnx.run(model, x)):
        np.testing.assert_allclose(got[0], layer(x)[0], **CLOSE)
    for layer_again, k in zip(fastrnn.onnx.layers(model), range(2), strict=True):
        for name, value in layer_again.weights.items():
            assert np.array_equal(value, layer.weights[name.replace("_l0", f"_l{k}")])


@pytest.mark.parametrize(("steps", "batch"), [(0, 2), (3, 0), (0, 0)])
def test_exported_layers_of_nothing(steps: int, batch: int) -> None:
    layer = fastrnn.LSTM(3, 5, 2, bidirectional=True, rng=0)
    x = np.zeros((steps, batch, 3), np.float32)
    y, (h, c) = layer(x)
    for got, want in zip(fastrnn.onnx.run(fastrnn.onnx.export(layer), x), (y, h, c), strict=True):
        assert np.array_equal(got, want)


def test_export_of_float64_and_of_what_is_no_layer() -> None:
    layer = fastrnn.GRU(3, 5, dtype=np.float64, reset_after=False, rng=0)
    x = np.random.default_rng(0).standard_normal((6, 4, 3))
    np.testing.assert_allclose(fastrnn.onnx.run(fastrnn.onnx.export(layer), x)[0], layer(x)[0], rtol=1e-14)
    with pytest.raises(TypeError, match="layer is a dict"):
        fastrnn.onnx.export({})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="proj_size 2"):
        fastrnn.onnx.export(fastrnn.LSTM(3, 5, proj_size=2))
    with pytest.raises(ValueError, match=r"zoneout 0\.2"):
        fastrnn.onnx.export(fastrnn.GRU(3, 5, zoneout=0.2))


# -- the backend and the package ---------------------------------------------------------------------------------------


def test_backend() -> None:
    backend = fastrnn.onnx.Backend
    assert issubclass(backend, onnx.backend.base.Backend)
    assert backend.supports_device("CPU")
    assert not backend.supports_device("CUDA")
    node = lstm_node()
    want = node.expected()
    for got in (
        backend.run_model(node.model(), node.feed()),
        backend.run_node(node.model().graph.node[0], [node.tensors[k] for k in "XWRB"]),
    ):
        np.testing.assert_allclose(got[0], want[0], **CLOSE)
    with pytest.raises(ValueError, match="device is 'CUDA'"):
        backend.prepare(node.model(), "CUDA")


def test_without_the_package() -> None:
    code = (
        "import sys; sys.modules['onnx'] = None; import fastrnn\n"
        "try: import fastrnn.onnx\n"
        "except ImportError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 'pip install "fastrnn[onnx]"' in done.stdout
