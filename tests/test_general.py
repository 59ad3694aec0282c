"""The general path: projection, peepholes, coupled gates, clip and other activation functions, forward and backward."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastrnn
from conftest import make_layer, parts, required
from fastrnn import _validate_cells, backends, functional
from fastrnn._spec import ACTIVATIONS, Activation, Spec
from fastrnn.backends import _general, _numpy
from oracle import CELLS, OPTIONS, Option, assert_same, check_gradients, make, run

try:
    import torch
except ImportError:
    if required("torch"):
        raise
    torch = None  # type: ignore[assignment]

T, N, I, H, P = 5, 4, 3, 6, 2  # noqa: E741 - the letters of the shapes
X = np.random.default_rng(0).standard_normal((T, N, I))

# Other values of alpha and beta than the usual ones, so that one that is not used shows.
FUNCTIONS = {
    name: Activation(name, 0.0 if alpha is None else alpha * 0.7 + 0.1, 0.0 if beta is None else beta * 0.9 + 0.1)
    for name, (alpha, beta) in ACTIVATIONS.items()
}


def functions(*names: str) -> tuple[tuple[Activation, ...], ...]:
    return (tuple(FUNCTIONS[name] for name in names),)


# Every option alone and all together; with both directions, activations and clip differ from one to the other.
GENERAL = {
    "proj": (CELLS["lstm"], {"proj_size": 2}),
    "peephole": (CELLS["lstm"], {"peephole": True}),
    "coupled": (CELLS["lstm"], {"input_forget": True}),
    "coupled_peephole": (CELLS["lstm"], {"input_forget": True, "peephole": True}),
    "clip_lstm": (CELLS["lstm"], {"clip": 0.4}),
    "clip_gru": (CELLS["gru"], {"clip": 0.4}),
    "clip_gru_before": (CELLS["gru_before"], {"clip": 0.4}),
    "clip_rnn": (CELLS["tanh"], {"clip": 0.4}),
    "functions_lstm": (CELLS["lstm"], {"activations": functions("HardSigmoid", "Softsign", "Elu")}),
    "functions_gru": (CELLS["gru"], {"activations": functions("Softsign", "ScaledTanh")}),
    "functions_gru_before": (CELLS["gru_before"], {"activations": functions("HardSigmoid", "Softplus")}),
    "everything": (
        CELLS["lstm"],
        {
            "proj_size": 3, "peephole": True, "clip": 0.6,
            "activations": functions("ScaledTanh", "LeakyRelu", "Affine"),
        },
    ),
    "everything_coupled": (
        CELLS["lstm"], {"proj_size": 3, "peephole": True, "clip": 0.6, "input_forget": True},
    ),
}  # fmt: skip
ROWS = ["plain", "no_state", "no_bias", "only_dhn", "only_dcn", "everything", "bidirectional_everything", "stack"]


def problem(name: str, option: str = "plain", **sizes: int) -> Any:
    spec, own = GENERAL[name]
    own = dict(own)
    if OPTIONS[option].spec.get("bidirectional") and "activations" in own:
        own["activations"] = (own["activations"][0], own["activations"][0][::-1])
    made = make(replace(spec, **own), OPTIONS[option], **sizes)
    assert made.spec.general
    return made


# --- one step by the words of the docstring, in Python's own arithmetic -----------------------------------------------

SCALAR: dict[str, Callable[[float, float, float], float]] = {
    "Relu": lambda z, a, b: max(z, 0.0),
    "Tanh": lambda z, a, b: math.tanh(z),
    "Sigmoid": lambda z, a, b: 1 / (1 + math.exp(-z)),
    "Affine": lambda z, a, b: a * z + b,
    "LeakyRelu": lambda z, a, b: z if z >= 0 else a * z,
    "ThresholdedRelu": lambda z, a, b: z if z >= a else 0.0,
    "ScaledTanh": lambda z, a, b: a * math.tanh(b * z),
    "HardSigmoid": lambda z, a, b: min(max(a * z + b, 0.0), 1.0),
    "Elu": lambda z, a, b: z if z >= 0 else a * (math.exp(z) - 1),
    "Softsign": lambda z, a, b: z / (1 + abs(z)),
    "Softplus": lambda z, a, b: math.log(1 + math.exp(z)),
}


def by_words(spec: Spec, w: dict[str, np.ndarray], x: np.ndarray, h: np.ndarray, c: np.ndarray) -> tuple[Any, Any]:
    """One row, one step, forward direction."""

    def apply(k: int, z: np.ndarray, clipped: bool = True) -> np.ndarray:
        name, a, b = spec.functions(0)[k]
        z = z.clip(-spec.clip, spec.clip) if spec.clip is not None and clipped else z
        return np.array([SCALAR[name](value, a, b) for value in z.tolist()])

    b, bb = w["bias_ih"], w["bias_hh"]
    if spec.cell == "gru":
        wr, wz, wn = np.split(w["weight_ih"] @ x + b, 3)
        u = np.split(w["weight_hh"], 3)
        br, bz, bn = np.split(bb, 3)
        r, z = apply(0, wr + u[0] @ h + br), apply(0, wz + u[1] @ h + bz)
        n = apply(1, wn + (r * (u[2] @ h + bn) if spec.reset_after else u[2] @ (r * h) + bn))
        return (1 - z) * n + z * h, c
    z = w["weight_ih"] @ x + b + w["weight_hh"] @ h + bb
    if spec.cell == "rnn":
        return apply(0, z), c
    zi, zf, zg, zo = np.split(z, 4)
    pi, pf, po = np.split(w["weight_ph"], 3) if spec.peephole else (0.0, 0.0, 0.0)
    i = apply(0, zi + pi * c)
    f = 1 - i if spec.input_forget else apply(0, zf + pf * c)
    c = f * c + i * apply(1, zg)
    m = apply(0, zo + po * c) * apply(2, c, clipped=False)
    return (w["weight_hr"] @ m if spec.proj_size else m), c


@pytest.mark.parametrize("name", GENERAL)
def test_forward_is_the_definition(name: str) -> None:
    p = problem(name)
    tensors = p.spec.by_direction(p.weights)[0]
    out = run(_general, p, False)
    assert_same(run(_general, p, False, tape=False), out, rtol=1e-14)
    for n in range(p.x.shape[1]):
        h, c = p.h0[0, n], np.zeros(0) if p.c0 is None else p.c0[0, n]
        for t in range(p.x.shape[0]):
            h, c = by_words(p.spec, tensors, p.x[t, n], h, c)
            np.testing.assert_allclose(out.y[t, n], h, rtol=1e-12, atol=1e-14)
        if out.cn is not None:
            np.testing.assert_allclose(out.cn[0, n], c, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("option", ["plain", "stack"])
def test_the_general_path_of_a_plain_stack(cell: str, option: str) -> None:
    """With a clip that never clips the numbers are those of the other path, gradients too."""
    p = make(CELLS[cell], OPTIONS[option])
    assert not p.spec.general
    same = replace(p, spec=replace(p.spec, clip=1e9))
    for recompute in (False, True):
        assert_same(run(_general, same, recompute=recompute), run(_numpy, p), rtol=1e-9, atol=1e-12)


# --- gradients ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("save", ["all", "recompute"])
@pytest.mark.parametrize("option", ROWS)
@pytest.mark.parametrize("name", GENERAL)
def test_gradients_are_finite_differences(name: str, option: str, save: str) -> None:
    if option == "only_dcn" and GENERAL[name][0].cell != "lstm":
        option = "dropout"
    check_gradients(_general, problem(name, option), save == "recompute")


@pytest.mark.parametrize("function", ACTIVATIONS)
@pytest.mark.parametrize("cell", CELLS)
def test_gradients_of_every_function(cell: str, function: str) -> None:
    spec = CELLS[cell]
    count = len(spec.functions(0))
    for place in range(count):  # in every place, beside functions that are smooth
        chosen = tuple(FUNCTIONS[function if k == place else "Softsign"] for k in range(count))
        check_gradients(_general, make(replace(spec, activations=(chosen,)), Option()), False)


# --- against others -------------------------------------------------------------------------------------------------


@pytest.mark.skipif(torch is None, reason="PyTorch is not installed")
@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("layers", "bidirectional"), [(1, False), (2, False), (2, True)])
def test_projection_is_pytorchs(layers: int, bidirectional: bool, bias: bool, dtype: str) -> None:
    sizes = {"num_layers": layers, "bidirectional": bidirectional, "bias": bias, "proj_size": P}
    layer = fastrnn.LSTM(I, H, rng=0, dtype=dtype, **sizes)
    other = torch.nn.LSTM(I, H, dtype=getattr(torch, dtype), **sizes)
    assert list(other.state_dict()) == list(layer.state_dict())
    other.load_state_dict({name: torch.tensor(value) for name, value in layer.state_dict().items()})
    rng = np.random.default_rng(3)
    count = layers * (1 + bidirectional)
    state = rng.standard_normal((count, N, P)).astype(dtype), rng.standard_normal((count, N, H)).astype(dtype)
    flows = [
        rng.standard_normal(shape).astype(dtype) for shape in ((T, N, (1 + bidirectional) * P), *map(np.shape, state))
    ]
    inputs = [torch.tensor(value, requires_grad=True) for value in (X.astype(dtype), *state)]
    outputs = other(inputs[0], (inputs[1], inputs[2]))
    results = (outputs[0], *outputs[1])
    torch.autograd.backward(results, [torch.tensor(flow) for flow in flows])
    y, last, tape = layer.forward(X, state)
    grads = layer.backward(tape, flows[0], (flows[1], flows[2]))
    scale = {"rtol": 1e-4, "atol": 1e-5} if dtype == "float32" else {"rtol": 1e-9, "atol": 1e-11}
    for got, want in zip((y, *last), results, strict=True):
        np.testing.assert_allclose(got, want.detach().numpy(), **scale)
    for got, want in zip((grads.x, *grads.state), inputs, strict=True):
        np.testing.assert_allclose(got, want.grad.numpy(), **scale)
    for name, weight in other.named_parameters():
        np.testing.assert_allclose(grads.weights[name], weight.grad.numpy(), err_msg=name, **scale)


def session(op: str, p: Any, **attributes: Any) -> list[np.ndarray]:
    """Outputs of ONNX Runtime for a problem of one layer in float32."""
    helper = pytest.importorskip("onnx.helper")
    runtime = pytest.importorskip("onnxruntime")
    numpy_helper = pytest.importorskip("onnx.numpy_helper")
    from onnx import TensorProto

    from fastrnn import _gates

    spec = p.spec
    groups = spec.by_direction(p.weights)
    arrays = {
        "W": np.stack([_gates.reorder(g["weight_ih"], spec.cell, "torch", "onnx") for g in groups]),
        "R": np.stack([_gates.reorder(g["weight_hh"], spec.cell, "torch", "onnx") for g in groups]),
        "B": np.stack(
            [
                np.concatenate([_gates.reorder(g[name], spec.cell, "torch", "onnx") for name in ("bias_ih", "bias_hh")])
                for g in groups
            ]
        ),
        "h0": p.h0,
    }
    if spec.cell == "lstm":
        arrays["c0"] = p.c0
    if spec.peephole:  # ONNX: i o f
        arrays["P"] = np.stack([g["weight_ph"].reshape(3, -1)[[0, 2, 1]].ravel() for g in groups])
    inputs = ["x", "W", "R", "B", "", "h0", *(name for name in ("c0", "P") if name in arrays)]
    outputs = ["y", "hn", "cn"][: 3 if spec.cell == "lstm" else 2]
    chosen = [one for k in range(spec.directions) for one in spec.functions(k)]
    node = helper.make_node(
        op, inputs, outputs, hidden_size=spec.hidden_size,
        direction="bidirectional" if spec.bidirectional else "forward",
        activations=[one.name for one in chosen],
        activation_alpha=[one.alpha for one in chosen if ACTIVATIONS[one.name][0] is not None] or None,
        activation_beta=[one.beta for one in chosen if ACTIVATIONS[one.name][1] is not None] or None,
        **({} if spec.clip is None else {"clip": spec.clip}), **attributes,
    )  # fmt: skip
    graph = helper.make_graph(
        [node], "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, None)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in arrays.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    run_it = runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    out = run_it.run(None, {"x": p.x})
    y = out[0].transpose(0, 2, 1, 3)  # ONNX: (T, D, N, H)
    return [y.reshape(*y.shape[:2], -1), *out[1:]]


ONNX_CASES = {
    "peephole": ("lstm", {"peephole": True}),
    "coupled": ("lstm", {"input_forget": True}),
    "clip": ("lstm", {"clip": 0.5}),
    "everything": ("lstm", {"peephole": True, "clip": 0.5, "activations": functions("HardSigmoid", "Softsign", "Elu")}),
    "gru": ("gru", {"clip": 0.5, "activations": functions("HardSigmoid", "Softsign")}),
    "gru_before": ("gru_before", {"clip": 0.5, "activations": functions("Sigmoid", "ScaledTanh")}),
    "rnn": ("tanh", {"clip": 0.5}),
} | {f"rnn_{name}": ("tanh", {"activations": functions(name)}) for name in ACTIVATIONS}


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("case", ONNX_CASES)
def test_forward_is_onnx_runtimes(case: str, bidirectional: bool) -> None:
    cell, options = ONNX_CASES[case]
    options = dict(options)
    if bidirectional and "activations" in options:
        options["activations"] *= 2
    p = make(replace(CELLS[cell], dtype_name="float32", bidirectional=bidirectional, **options), Option())
    attributes = {"input_forget": 1} if p.spec.input_forget else {}
    if p.spec.cell == "gru":
        attributes["linear_before_reset"] = int(p.spec.reset_after)
    got = run(_general, p, False)
    for mine, want in zip((got.y, got.hn, got.cn), session(p.spec.cell.upper(), p, **attributes), strict=False):
        np.testing.assert_allclose(mine, want, rtol=2e-5, atol=2e-5)


# --- layers ---------------------------------------------------------------------------------------------------------

LAYERS: dict[str, tuple[str, dict[str, Any]]] = {
    "proj": ("lstm", {"proj_size": P}),
    "peephole": ("lstm", {"peephole": True, "clip": 2.0}),
    "coupled": ("lstm", {"input_forget": True}),
    "everything": (
        "lstm", {"proj_size": P, "peephole": True, "clip": 1.5, "activations": ["Sigmoid", ("ScaledTanh", 1.2), "elu"]},
    ),
    "gru": ("gru_after", {"clip": 1.0, "activations": [("hardsigmoid", 0.3, 0.4), "Tanh"]}),
    "gru_before": ("gru_before", {"activations": ["Softsign", "Softsign"]}),
    "rnn": ("rnn_tanh", {"activations": "Softplus"}),
}  # fmt: skip


def layer_of(name: str, layers: int = 1, **options: Any) -> Any:
    cell, own = LAYERS[name]
    return make_layer(cell, I, H, layers, **{"dtype": "float64", **own, **options})


def close(got: Any, want: Any) -> None:
    np.testing.assert_allclose(got, want, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("name", LAYERS)
def test_runs_whatever_the_backend(name: str) -> None:
    layer = layer_of(name, 2)
    want = layer(X)[0]
    assert want.shape == (T, N, layer.proj_size or H)
    for backend in backends.available():
        with fastrnn.backend(backend):
            assert layer._bind().backend == "general"
            assert np.array_equal(layer(X)[0], want)
            assert functional.pack(layer._spec, layer.weights.flat).backend == "general"
    with pytest.raises(ValueError, match="it must be one of 'cpp', 'numba', 'numpy'"):
        fastrnn.backend("general")


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("name", LAYERS)
def test_ragged_is_row_by_row(name: str, bidirectional: bool) -> None:
    layer = layer_of(name, 2, bidirectional=bidirectional)
    lengths = [3, T, 0, 1]
    x = X.copy()
    for n, length in enumerate(lengths):
        x[length:, n] = np.nan
    y, state, tape = layer.forward(x, lengths=lengths)
    dy = np.random.default_rng(1).standard_normal(y.shape)
    grads = layer.backward(tape, dy, None)
    total = np.zeros_like(grads.flat)
    for n, length in enumerate(lengths):
        alone, last, tape = layer.forward(X[:length, n : n + 1])
        close(y[:length, n], alone[:, 0])
        assert not y[length:, n].any()
        for part, own in zip(parts(state), parts(last), strict=True):
            close(part[:, n], own[:, 0])
        one = layer.backward(tape, dy[:length, n : n + 1])
        close(grads.x[:length, n], one.x[:, 0])
        assert not grads.x[length:, n].any()
        total += one.flat
    np.testing.assert_allclose(grads.flat, total, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", LAYERS)
def test_reset_is_cutting_and_a_mask_leaves_steps_out(name: str) -> None:
    layer = layer_of(name)
    reset = np.zeros((T, N), bool)
    reset[2] = True
    y, _ = layer(X, reset=reset)
    close(y, np.concatenate([layer(X[:2])[0], layer(X[2:])[0]]))
    mask = np.ones((T, N), bool)
    mask[[0, 3]] = False
    y, state = layer(X, mask=mask)
    short, last = layer(X[[1, 2, 4]])
    close(y[[1, 2, 4]], short)
    assert not y[0].any()
    assert np.array_equal(y[3], y[2])
    for part, own in zip(parts(state), parts(last), strict=True):
        close(part, own)


@pytest.mark.parametrize("name", LAYERS)
def test_reverse_is_forward_in_reversed_time(name: str) -> None:
    both = layer_of(name, bidirectional=True)
    one = layer_of(name)
    for key in one.weights:
        setattr(one, key, both.weights[f"{key}_reverse"])
    y, state = both(X)
    mirrored, last = one(X[::-1])
    close(y[:, :, y.shape[2] // 2 :], mirrored[::-1])
    for part, own in zip(parts(state), parts(last), strict=True):
        close(part[1], own[0])


@pytest.mark.parametrize("name", LAYERS)
def test_streams(name: str) -> None:
    layer = layer_of(name, 2)
    y, last = layer(X)
    stream = layer.stream(N)
    out = np.empty_like(y[0])
    for t in range(T):
        assert stream.step(X[t], out=out) is out
        close(out, y[t])
    for got, want in zip(parts(stream.state), parts(last), strict=True):
        close(got, want)
    stream.state = last
    close(stream.step(X[0]), layer(X[:1], last)[0][0])


@pytest.mark.parametrize("name", LAYERS)
def test_saved_copied_and_pickled(name: str, tmp_path: Path) -> None:
    layer = layer_of(name, 2, bidirectional=True)
    layer.save(tmp_path / "layer.npz")
    other = type(layer)(I, H, 2, bidirectional=True, **{"dtype": "float64", **LAYERS[name][1]}, **own_of(name))
    other.load_state_dict(layer.state_dict())
    for same in (fastrnn.load(tmp_path / "layer.npz"), copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), other):
        assert repr(same) == repr(layer)
        assert same._spec == layer._spec
        assert np.array_equal(same(X)[0], layer(X)[0])


def own_of(name: str) -> dict[str, Any]:
    return {"reset_after": False} if name == "gru_before" else {}


def test_a_file_from_before_there_were_these_options(tmp_path: Path) -> None:
    from fastrnn import _io

    layer = fastrnn.GRU(I, H, rng=0)
    options = {key: value for key, value in layer._options.items() if key not in ("clip", "activations")}
    _io.write(tmp_path / "old.npz", layer.weights, {"layer": "GRU", "format": 1, "options": options})
    assert repr(fastrnn.load(tmp_path / "old.npz")) == repr(layer)


@pytest.mark.parametrize("name", LAYERS)
def test_functional_from_a_state_dict(name: str) -> None:
    cell, own = LAYERS[name]
    layer = layer_of(name, 2)
    options = {key: value for key, value in own.items() if key in ("input_forget", "clip", "activations")}
    function = getattr(functional, cell[:4].rstrip("_"))
    close(function(X, layer.state_dict(), **options, **own_of(name))[0], layer(X)[0])


@pytest.mark.parametrize("name", LAYERS)
def test_a_look_inside(name: str) -> None:
    layer = layer_of(name, 2)
    y, last, tape = layer.forward(X)
    seen = fastrnn.diagnostics.unroll(layer, X)
    close(seen["h_l1"], y)
    if layer._cell == "lstm":
        close(seen["c_l1"][-1], last[1][1])
        i, f, g = (seen[f"{gate}_l0"] for gate in "ifg")
        close(seen["c_l0"][1], f[1] * seen["c_l0"][0] + i[1] * g[1])
    if layer._cell == "gru":
        close(seen["h_l0"][0], (1 - seen["z_l0"][0]) * seen["n_l0"][0])
    dy = np.random.default_rng(1).standard_normal(y.shape)
    flow = fastrnn.diagnostics.gradient_flow(layer, tape, dy, retain=True)
    want = layer.backward(tape, dy)
    assert np.array_equal(flow.gradients.flat, want.flat)
    # dL/dh[1] is the gradient of the initial state of what follows
    middle = layer(X[:2])[1]
    _, _, rest = layer.forward(X[2:], middle)
    gradients = layer.backward(rest, dy[2:])
    upper = parts(gradients.state)[0][1]
    close(flow.states["h_l1"][1], upper + dy[1])
    if layer._cell == "lstm" and not layer.peephole:  # of c[1] with h[1], which follows from it
        (h1, c1), o = middle, seen["o_l1"][1]
        direction = np.random.default_rng(2).standard_normal(c1[1].shape)

        def loss(step: float) -> float:
            h, c = h1.copy(), c1.copy()
            c[1] += step * direction
            h[1] = o * np.tanh(c[1]) @ (layer.weight_hr_l1.T if layer.proj_size else np.eye(H))
            return float(np.sum(layer(X[2:], (h, c))[0] * dy[2:]) + np.sum(h[1] * dy[1]))

        want = (loss(1e-5) - loss(-1e-5)) / 2e-5
        assert np.sum(flow.states["c_l1"][1] * direction) == pytest.approx(want, rel=1e-6)


# --- bad arguments --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make_it", "error", "message"),
    [
        (lambda: fastrnn.LSTM(3, 5, proj_size=5), ValueError, "proj_size is 5; it must be less than hidden_size"),
        (lambda: fastrnn.LSTM(3, 5, proj_size=-1), ValueError, "proj_size is -1; it must not be negative"),
        (lambda: fastrnn.LSTM(3, 5, proj_size=True), TypeError, "proj_size is True"),
        (lambda: fastrnn.LSTM(3, 5, proj_size=2.0), TypeError, "proj_size is 2.0"),
        (lambda: fastrnn.GRU(3, 5, proj_size=2), ValueError, "proj_size is 2; for GRU it must be 0"),
        (lambda: fastrnn.RNN(3, 5, proj_size=2), ValueError, "proj_size is 2; for RNN it must be 0"),
        (lambda: fastrnn.LSTM(3, 5, peephole=1), TypeError, "peephole is 1"),  # type: ignore[arg-type]
        (lambda: fastrnn.LSTM(3, 5, input_forget=None), TypeError, "input_forget is None"),  # type: ignore[arg-type]
        (lambda: fastrnn.LSTM(3, 5, clip=0), ValueError, "clip is 0; it must be None or a positive finite number"),
        (lambda: fastrnn.LSTM(3, 5, clip=-1.0), ValueError, "clip is -1.0"),
        (lambda: fastrnn.LSTM(3, 5, clip=math.inf), ValueError, "clip is inf"),
        (lambda: fastrnn.LSTM(3, 5, clip=math.nan), ValueError, "clip is nan"),
        (lambda: fastrnn.LSTM(3, 5, clip="1"), TypeError, "clip is '1'"),  # type: ignore[arg-type]
        (lambda: fastrnn.LSTM(3, 5, activations=["Tanh"]), ValueError, "it must be a sequence of 3 functions"),
        (lambda: fastrnn.LSTM(3, 5, activations="Tanh"), ValueError, "it must be a sequence of 3 functions"),
        (lambda: fastrnn.LSTM(3, 5, activations=7), TypeError, "activations is 7"),  # type: ignore[arg-type]
        (
            lambda: fastrnn.GRU(3, 5, bidirectional=True, activations=["Tanh"] * 3),
            ValueError,
            "it must be a sequence of 2 or 4 functions",
        ),
        (
            lambda: fastrnn.RNN(3, 5, activations=["Swish"]),
            ValueError,
            r"activations\[0\] is 'Swish'; it must be one of",
        ),
        (lambda: fastrnn.RNN(3, 5, activations=[3]), TypeError, r"activations\[0\] is 3"),
        (lambda: fastrnn.RNN(3, 5, activations=[("Elu", "1")]), TypeError, r"alpha of activations\[0\] is '1'"),
        (lambda: fastrnn.RNN(3, 5, activations=[("Elu", math.nan)]), ValueError, "it must be finite"),
        (lambda: fastrnn.RNN(3, 5, activations=[("Tanh", 2.0)]), ValueError, "has alpha 2.0; Tanh has none"),
        (lambda: fastrnn.RNN(3, 5, activations=[("Elu", 1.0, 2.0)]), ValueError, "has beta 2.0; Elu has none"),
        (lambda: fastrnn.RNN(3, 5, activations="Elu", nonlinearity="relu"), ValueError, "only one of them"),
    ],
)
def test_bad_options(make_it: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make_it()


def test_bad_arrays() -> None:
    layer = layer_of("proj")
    h, c = np.zeros((1, N, P)), np.zeros((1, N, H))
    with pytest.raises(ValueError, match=r"state\[0\] \(h\) has shape .* it must be \(1, 4, 2\), .*proj_size"):
        layer(X, (c, c))
    with pytest.raises(ValueError, match=r"state\[1\] \(c\) has shape .* it must be \(1, 4, 6\), .*hidden_size"):
        layer(X, (h, h))
    with pytest.raises(ValueError, match=r"out has shape .*; it must be \(5, 4, 2\)"):
        layer(X, out=np.zeros((T, N, H)))
    with pytest.raises(ValueError, match="weight_hr_l0"):
        fastrnn.LSTM(I, H).load_state_dict(layer.state_dict())
    with pytest.raises(ValueError, match="missing: weight_hr_l0"):
        layer.load_state_dict({k: v for k, v in layer.state_dict().items() if k != "weight_hr_l0"})
    with pytest.raises(ValueError, match="weight_ph_l0"):
        functional.gru(X, {**fastrnn.GRU(I, H).state_dict(), "weight_ph_l0": np.zeros(3 * H)})
    with pytest.raises(ValueError, match="weight_hr_l0 has shape"):
        functional.lstm(X, {**layer.state_dict(), "weight_hr_l0": np.zeros(3)})


def test_the_usual_functions_are_no_option() -> None:
    assert not fastrnn.LSTM(I, H, activations=["Sigmoid", "tanh", "Tanh"])._spec.general
    assert not fastrnn.GRU(I, H, bidirectional=True, activations=["Sigmoid", "Tanh"] * 2)._spec.general
    assert fastrnn.RNN(I, H, activations="RELU").nonlinearity == "relu"
    mixed = fastrnn.RNN(I, H, bidirectional=True, activations=["Relu", "Tanh"], dtype="float64", rng=0)
    assert mixed._spec.general
    for half, kind in ((0, "relu"), (1, "tanh")):
        same = fastrnn.RNN(I, H, bidirectional=True, nonlinearity=kind, dtype="float64", rng=0)
        columns = slice(half * H, (half + 1) * H)
        close(mixed(X)[0][:, :, columns], same(X)[0][:, :, columns])


def test_how_activations_are_shown() -> None:
    layer = layer_of("gru", bidirectional=True)
    assert layer.activations == (("HardSigmoid", 0.3, 0.4), "Tanh")
    assert "activations=(('HardSigmoid', 0.3, 0.4), 'Tanh')" in repr(layer)
    assert fastrnn.RNN(I, H, activations=[("Elu", 0.0)]).activations == (("Elu", 0.0, 0.0),)
    assert fastrnn.LSTM(I, H).activations is None


def test_every_name_with_its_usual_parameters() -> None:
    for name, (alpha, beta) in ACTIVATIONS.items():
        want = Activation(name, alpha or 0.0, beta or 0.0)
        for given in (
            name,
            name.upper(),
            (name,),
            (name, alpha),
            (name, None, beta),
            [name, alpha or 0.0, beta or 0.0],
        ):
            assert _validate_cells.activations("rnn", [given], 1) == ((want,),)
