"""Wrong and unusual arguments: one clear error that names the argument, or the right answer; the layer is unchanged."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import fastrnn
from conftest import System, make_layer, parts
from fastrnn import functional
from problems import CELLS

T, N, I, H = 4, 3, 5, 6  # noqa: E741 - the letters of the shapes
ERRORS = (ValueError, TypeError)


def array(*shape: int, dtype: Any = "float32") -> Any:
    return (np.arange(np.prod(shape, dtype=int)) % 7 / 7 - 0.4).reshape(shape).astype(dtype)


X = array(T, N, I)


@pytest.fixture(params=list(CELLS))
def layer(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A layer that after the test has the weights and gives the outputs it had before."""
    made = make_layer(request.param, I, H, 2, bidirectional=True)
    weights, y = {name: w.copy() for name, w in made.state_dict().items()}, made(X)[0].copy()
    yield made
    for name, value in made.state_dict().items():
        assert np.array_equal(value, weights[name]), f"{name} changed"
    assert np.array_equal(made(X)[0], y)


# -- making a layer --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [fastrnn.RNN, fastrnn.LSTM, fastrnn.GRU])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, value) for name in ("input_size", "hidden_size", "num_layers") for value in (-1, 2.5, "3", None, [4])),
        ("hidden_size", 0),
        ("num_layers", 0),
        ("input_size", np.nan),
        ("dropout", -0.1),
        ("dropout", 1.5),
        ("dropout", np.nan),
        ("dropout", "much"),
        ("dtype", np.int32),
        ("dtype", np.complex64),
        ("dtype", "nonsense"),
        ("rng", "seed"),
        ("rng", -1),
    ],
)
def test_constructor(kind: Any, name: str, value: Any) -> None:
    arguments = {"input_size": I, "hidden_size": H, name: value}
    with pytest.raises(ERRORS, match=name):
        kind(**arguments)


def test_constructor_of_one_cell() -> None:
    with pytest.raises(ERRORS, match="nonlinearity"):
        fastrnn.RNN(I, H, nonlinearity="sigmoid")
    with pytest.raises(TypeError, match="unexpected keyword"):
        fastrnn.LSTM(I, H, hiden_size=3)  # type: ignore[call-arg]


@pytest.mark.parametrize("sizes", [(2**31, 2**31), (1, 2**40), (2**62, 2**62), (2**70, 4), (4, 2**63 - 1)])
@pytest.mark.parametrize("kind", [fastrnn.RNN, fastrnn.LSTM, fastrnn.GRU])
def test_sizes_whose_product_overflows(kind: Any, sizes: tuple[int, int]) -> None:
    with pytest.raises((ValueError, MemoryError, OverflowError), match=r"size|allocate"):
        kind(*sizes)


def test_integer_like_sizes_are_sizes() -> None:
    assert fastrnn.GRU(np.int64(I), np.uint8(H))(X)[0].shape == (T, N, H)


# -- calling it ------------------------------------------------------------------------------------------------------

STATES = (4, N, H)
CALLS: list[tuple[str, dict[str, Any]]] = [
    ("x", {"x": array(I)}),
    ("x", {"x": array(2, 2, 2, I)}),
    ("x", {"x": np.float32(3)}),
    ("x", {"x": None}),
    ("x", {"x": array(T, N, I + 1)}),
    ("x", {"x": array(T, N, 0)}),
    ("x", {"x": array(T, N, I, dtype=complex)}),
    ("x", {"x": X.astype(object)}),
    ("x", {"x": X.astype(str)}),
    ("x", {"x": "text"}),
    ("x", {"x": [[1.0, 2.0], [3.0]]}),
    ("state", {"state": array(4, N, H + 1)}),
    ("state", {"state": array(3, N, H)}),
    ("state", {"state": array(4, N + 1, H)}),
    ("state", {"state": array(4, H)}),
    ("state", {"state": "zero"}),
    ("state", {"state": array(*STATES, dtype=complex)}),
    ("state", {"state": (array(*STATES),) * 3}),
    ("lengths", {"lengths": [1, 2]}),
    ("lengths", {"lengths": [1, 2, 3, 4]}),
    ("lengths", {"lengths": 3}),
    ("lengths", {"lengths": [[1, 2, 3]]}),
    ("lengths", {"lengths": [1, -1, 2]}),
    ("lengths", {"lengths": [1, T + 1, 2]}),
    ("lengths", {"lengths": [1, 2.5, 2]}),
    ("lengths", {"lengths": [1, np.nan, 2]}),
    ("lengths", {"lengths": [1, 2**70, 2]}),
    ("lengths", {"lengths": ["1", "2", "3"]}),
    ("reset", {"reset": np.zeros((T, N + 1), bool)}),
    ("reset", {"reset": np.zeros((N, T), bool)}),
    ("reset", {"reset": np.zeros(T, bool)}),
    ("reset", {"reset": "never"}),
    ("mask", {"mask": np.zeros((T + 1, N), bool)}),
    ("mask", {"mask": np.zeros((T, N, 1), bool)}),
    ("mask", {"mask": array(T, N)}),
]


@pytest.mark.parametrize(("name", "arguments"), CALLS, ids=[f"{name}{k}" for k, (name, _) in enumerate(CALLS)])
def test_call(layer: Any, name: str, arguments: dict[str, Any]) -> None:
    given = {"x": X, **arguments}
    if name == "state" and isinstance(layer, fastrnn.LSTM) and not isinstance(given["state"], tuple):
        given["state"] = (array(*STATES), given["state"])
    for call in (layer, layer.forward):
        with pytest.raises(ERRORS, match=rf"\b({name}|h|c|h0|c0)\b" if name == "state" else rf"\b{name}\b"):
            call(**given)


def test_state_of_another_cell() -> None:
    with pytest.raises(ERRORS, match="state"):
        make_layer("lstm", I, H)(X, array(1, N, H))
    with pytest.raises(ERRORS, match="state"):
        make_layer("gru_after", I, H)(X, (array(1, N, H), array(1, N, H)))


@pytest.mark.parametrize(
    "out",
    [
        np.empty((T, N, 2 * H + 1), np.float32),
        np.empty((N, T, 2 * H), np.float32),
        np.empty((T, N, 2 * H)),
        np.broadcast_to(np.float32(0), (T, N, 2 * H)),
        [0.0],
        "here",
    ],
    ids=["width", "order", "dtype", "readonly", "list", "text"],
)
def test_out(layer: Any, out: Any) -> None:
    with pytest.raises(ERRORS, match=r"\bout\b"):
        layer(X, out=out)


def test_nothing_is_written_before_an_error(layer: Any) -> None:
    out = np.full((T, N, 2 * H), 7, np.float32)
    with pytest.raises(ERRORS):
        layer(X, out=out, lengths=[1, 2, 99])
    assert (out == 7).all()


def test_more_than_memory_holds(system: System) -> None:
    layer = make_layer("lstm", I, H)
    x = np.broadcast_to(np.float32(0), (2**40, 2**10, I))
    for call in (layer, layer.forward):
        with pytest.raises((ValueError, MemoryError, OverflowError)):
            call(x)
    assert layer(X)[0].shape == (T, N, H)


# -- unusual arrays --------------------------------------------------------------------------------------------------


def unaligned(a: Any) -> Any:
    raw = np.zeros(a.nbytes + 1, np.uint8)
    view = raw[1:].view(a.dtype).reshape(a.shape)
    view[...] = a
    return view


def readonly(a: Any) -> Any:
    a = a.copy()
    a.setflags(write=False)
    return a


UNUSUAL = {
    "fortran": np.asfortranarray,
    "readonly": readonly,
    "every_other": lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
    "negative": lambda a: np.ascontiguousarray(a[::-1, :, ::-1])[::-1, :, ::-1],
    "transposed": lambda a: np.ascontiguousarray(a.T).T,
    "unaligned": unaligned,
    "big_endian": lambda a: a.astype(a.dtype.newbyteorder(">")),
    "float64": lambda a: a.astype(np.float64),
    "list": lambda a: a.tolist(),
    "masked_array_subclass": lambda a: a.view(np.matrix) if a.ndim == 2 else a.view(np.recarray),
}


@pytest.mark.parametrize("kind", list(UNUSUAL))
@pytest.mark.parametrize("cell", list(CELLS))
def test_unusual_arrays_give_the_right_answer(system: System, cell: str, kind: str) -> None:
    layer = make_layer(cell, I, H, 2, bidirectional=True)
    change = UNUSUAL[kind]
    x, dy = X, array(T, N, 2 * H)
    state = tuple(array(4, N, H) + k for k in range(2 if cell == "lstm" else 1))
    odd = tuple(change(part) for part in state)
    plain, odd_plain = (s if cell == "lstm" else s[0] for s in (state, odd))
    y, last, tape = layer.forward(x, plain)
    want = layer.backward(tape, dy, plain)
    got_y, got_last, tape = layer.forward(change(x), odd_plain)
    got = layer.backward(tape, change(dy), odd_plain)
    assert type(got_y) is np.ndarray
    system.same(got_y, y)
    system.same(parts(got_last)[-1], parts(last)[-1])
    system.same(got.x, want.x)
    system.same(got.weights["weight_hh_l1"], want.weights["weight_hh_l1"])
    system.same(layer(change(x), odd_plain)[0], layer(x, plain)[0])


@pytest.mark.parametrize("dtype", ["float16", "int8", "uint64", "bool", "longdouble"])
def test_real_numbers_of_another_dtype_are_converted(layer: Any, dtype: str) -> None:
    x = (X > 0).astype(dtype)
    assert np.array_equal(layer(x)[0], layer(x.astype(np.float32))[0])


@pytest.mark.parametrize("dtype", ["int8", "uint16", "int64", "float64"])
def test_lengths_of_any_integer_kind(layer: Any, dtype: str) -> None:
    lengths = np.array([2, 0, 4])
    want = layer(X, lengths=lengths)[0]
    if dtype == "float64":
        with pytest.raises(ERRORS, match="lengths"):
            layer(X, lengths=lengths.astype(dtype))
    else:
        assert np.array_equal(layer(X, lengths=lengths.astype(dtype))[0], want)
        assert np.array_equal(layer(X, lengths=list(lengths))[0], want)


def test_out_of_any_strides(system: System) -> None:
    layer = make_layer("lstm", I, H)
    want = layer(X)[0]
    for out in (
        np.zeros((T, N, 2 * H), np.float32)[..., ::2],
        np.zeros((T, N, H), np.float32, order="F"),
        np.zeros((T, N, H), np.float32)[::-1, :, ::-1],
        np.zeros((N, T, H), np.float32).swapaxes(0, 1),
    ):
        assert layer(X, out=out)[0] is out
        assert np.array_equal(out, want)


@pytest.mark.parametrize("cell", list(CELLS))
@pytest.mark.parametrize("shift", [0, 1, 3])
def test_out_that_overlaps_x(system: System, cell: str, shift: int) -> None:
    """The right answer, or an error before anything is written."""
    layer = make_layer(cell, H, H, 2)
    buffer = array(T + shift, N, H)
    x, out = buffer[shift:], buffer[:T]
    before = buffer.copy()
    want = layer(x.copy())[0]
    try:
        layer(x, out=out)
    except ValueError as error:
        assert "out" in str(error)  # noqa: PT017 - both outcomes are right
        assert np.array_equal(buffer, before)
    else:
        system.same(out, want)


def test_a_state_is_not_changed_by_the_call(system: System) -> None:
    layer = make_layer("lstm", I, H)
    h, c = array(1, N, H), array(1, N, H) + 1
    before = h.copy(), c.copy()
    _, last = layer(X, (h, c))
    assert not np.shares_memory(last[0], h)
    for got, want in zip((h, c), before, strict=True):
        assert np.array_equal(got, want)


# -- tapes -----------------------------------------------------------------------------------------------------------


def test_a_tape_is_used_once(layer: Any) -> None:
    y, _, tape = layer.forward(X)
    want = layer.backward(tape, np.ones_like(y), retain=True).x
    assert np.array_equal(layer.backward(tape, np.ones_like(y)).x, want)
    with pytest.raises((*ERRORS, RuntimeError), match="tape"):
        layer.backward(tape, np.ones_like(y))


def test_a_tape_of_another_layer(layer: Any) -> None:
    other = make_layer("lstm", I, H, 2, bidirectional=True)
    y, _, tape = other.forward(X)
    with pytest.raises((*ERRORS, RuntimeError), match="tape"):
        layer.backward(tape, np.ones_like(y))
    assert other.backward(tape, np.ones_like(y)).x.shape == X.shape
    for wrong in (None, 3, y):
        with pytest.raises(ERRORS, match="tape"):
            layer.backward(wrong, np.ones_like(y))


@pytest.mark.parametrize("how", ["edit", "load", "assign"])
@pytest.mark.parametrize("cell", list(CELLS))
def test_a_tape_after_the_weights_changed(system: System, cell: str, how: str) -> None:
    layer = make_layer(cell, I, H)
    y, _, tape = layer.forward(X)
    if how == "edit":
        with layer.edit() as weights:
            weights["weight_hh_l0"] += 1
    elif how == "load":
        layer.load_state_dict({name: w + 1 for name, w in layer.state_dict().items()})
    else:
        layer.weight_hh_l0 = np.asarray(layer.weight_hh_l0) + 1
    with pytest.raises((*ERRORS, RuntimeError), match=r"tape|weights"):
        layer.backward(tape, np.ones_like(y))
    fresh = make_layer(cell, I, H)
    fresh.load_state_dict(layer.state_dict())
    assert np.array_equal(layer(X)[0], fresh(X)[0])


def test_writing_to_y_after_forward(layer: Any) -> None:
    y, _, tape = layer.forward(X)
    with pytest.raises(ValueError, match="read-only"):
        y[0] = 0
    with pytest.raises(ValueError, match=r"read-only|\bout\b"):
        layer(X, out=y)
    layer.backward(tape, np.ones_like(y))


BACKWARD: list[tuple[str, dict[str, Any]]] = [
    ("dy", {"dy": array(T, N, H)}),
    ("dy", {"dy": array(N, T, 2 * H)}),
    ("dy", {"dy": array(T, N, 2 * H, dtype=complex)}),
    ("dy", {"dy": "one"}),
    ("dstate", {"dstate": array(4, N, H + 1)}),
    ("dstate", {"dstate": array(1, N, H)}),
    ("dstate", {"dstate": "one"}),
]


@pytest.mark.parametrize(("name", "arguments"), BACKWARD, ids=[f"{n}{k}" for k, (n, _) in enumerate(BACKWARD)])
def test_backward(layer: Any, name: str, arguments: dict[str, Any]) -> None:
    """A refused call leaves the tape usable."""
    y, _, tape = layer.forward(X)
    given = dict(arguments)
    if name == "dstate" and isinstance(layer, fastrnn.LSTM):
        given["dstate"] = (given["dstate"],) * 2
    with pytest.raises(ERRORS, match=rf"\b{name}\b|\bdh\w*\b" if name == "dstate" else rf"\b{name}\b"):
        layer.backward(tape, **given)
    assert np.isfinite(layer.backward(tape, np.ones_like(y)).x).all()


def test_accumulated_gradients_are_a_sum(system: System) -> None:
    layer = make_layer("gru_after", I, H, 2)
    dy = array(T, N, H)
    once = layer.backward(layer.forward(X)[2], dy)
    total = layer.backward(layer.forward(X)[2], dy)
    again = layer.backward(layer.forward(X)[2], dy, out=total, accumulate=True)
    for name, gradient in once.weights.items():
        np.testing.assert_allclose(again.weights[name], 2 * gradient, rtol=1e-5, atol=1e-6)
        assert np.shares_memory(again.weights[name], total.weights[name])
    system.same(again.x, once.x)


# -- weights ---------------------------------------------------------------------------------------------------------


def test_weights_are_read_only(layer: Any) -> None:
    for name in layer.state_dict():
        with pytest.raises(ValueError, match="read-only"):
            getattr(layer, name)[0] = 0
    taken = layer.state_dict()
    for value in taken.values():
        if value.flags.writeable:  # a copy is the caller's own
            value[...] = 9


@pytest.mark.parametrize("fault", ["missing", "unknown", "shape", "rank", "complex", "text"])
def test_load_state_dict_is_strict(layer: Any, fault: str) -> None:
    weights = {name: np.zeros(w.shape, np.float32) for name, w in layer.state_dict().items()}
    name = "bias_hh_l1"
    if fault == "missing":
        del weights[name]
    elif fault == "unknown":
        name = "weight_xx_l0"
        weights[name] = array(3)
    else:
        like = weights[name]
        weights[name] = {
            "shape": like[1:],
            "rank": like[None],
            "complex": like.astype(complex),
            "text": like.astype(str),
        }[fault]
    with pytest.raises((*ERRORS, KeyError), match=name):
        layer.load_state_dict(weights)


@pytest.mark.parametrize("value", [np.zeros(3), np.zeros((2, 2), complex), "zero", None])
def test_assigning_a_wrong_weight(layer: Any, value: Any) -> None:
    with pytest.raises(ERRORS, match="weight_hh_l0"):
        layer.weight_hh_l0 = value


def test_an_edit_that_fails_is_discarded(layer: Any) -> None:
    with pytest.raises(ZeroDivisionError), layer.edit() as weights:  # noqa: PT012
        weights["weight_ih_l0"] *= 0
        raise ZeroDivisionError
    with pytest.raises(ERRORS, match="weight_ih_l0"), layer.edit() as weights:
        weights["weight_ih_l0"] = np.zeros((1, 2, 3))
    with pytest.raises((*ERRORS, KeyError), match="weight_nowhere"), layer.edit() as weights:  # noqa: PT012
        weights["bias_hh_l0"] += 1
        weights["weight_nowhere"] = np.zeros(1)


@pytest.mark.parametrize("cell", list(CELLS))
def test_nan_weights_give_nan(system: System, cell: str) -> None:
    layer = make_layer(cell, I, H)
    with layer.edit() as weights:
        weights["weight_hh_l0"] *= np.nan
    y, _, tape = layer.forward(X)
    assert np.isnan(y[1:]).all()
    assert np.isnan(layer(X)[0][1:]).all()
    assert np.isnan(layer.backward(tape, np.ones_like(y)).x[0]).any()


# -- streams, functions, switches ------------------------------------------------------------------------------------


def test_stream() -> None:
    layer = make_layer("lstm", I, H)
    for size in (-1, 1.5, "2", None):
        with pytest.raises(ERRORS, match="batch_size"):
            layer.stream(batch_size=size)
    stream = layer.stream(batch_size=2)
    first = stream.step(array(2, I)).copy()
    for x in (array(3, I), array(I), array(2, I + 1), array(1, 2, I), array(2, I, dtype=complex), None):
        with pytest.raises(ERRORS, match=r"\bx(_t)?\b"):
            stream.step(x)
    with pytest.raises(ERRORS, match=r"\bout\b"):
        stream.step(array(2, I), out=np.empty((2, H + 1), np.float32))
    for rows in ([2], [-3], [0.5], "all"):
        with pytest.raises((*ERRORS, IndexError), match="row"):
            stream.reset(rows=rows)
    both = make_layer("lstm", I, H, bidirectional=True)
    with pytest.raises((*ERRORS, RuntimeError), match="bidirectional"):
        both.stream()
    stream.reset()
    assert np.array_equal(stream.step(array(2, I)), first), "a refused step changed the state"


def test_functions_of_weights() -> None:
    weights = dict(make_layer("gru_after", I, H).state_dict())
    assert functional.gru(X, weights)[0].shape == (T, N, H)
    with pytest.raises((*ERRORS, KeyError), match="weight_hh_l0"):
        functional.gru(X, {name: w for name, w in weights.items() if name != "weight_hh_l0"})
    with pytest.raises(ERRORS, match="weight_hh_l0"):
        functional.gru(X, {**weights, "weight_hh_l0": array(3 * H, H + 1)})
    with pytest.raises(ERRORS, match=r"weight|gates"):
        functional.lstm(X, weights)
    with pytest.raises(ERRORS, match=r"\bx\b"):
        functional.gru(X[..., 1:], weights)


@pytest.mark.parametrize("count", [0, -1, 1.5, "2", None])
def test_thread_count(count: Any) -> None:
    before = fastrnn.get_num_threads()
    with pytest.raises(ERRORS, match=r"\bn\b|threads"):
        fastrnn.set_num_threads(count)
    assert fastrnn.get_num_threads() == before


def test_unknown_names() -> None:
    with pytest.raises(ERRORS, match="cuda"), fastrnn.backend("cuda"):
        pass
    core = pytest.importorskip("fastrnn.backends._core")
    with pytest.raises(ValueError, match="sse9"):
        core.force_isa("sse9")


@pytest.mark.parametrize(("variable", "value"), [("FASTRNN_BACKEND", "cuda"), ("FASTRNN_ISA", "sse9")])
def test_unknown_names_in_the_environment(variable: str, value: str) -> None:
    """An error that names the variable, not another choice made in silence."""
    if variable == "FASTRNN_ISA":
        pytest.importorskip("fastrnn.backends._core")
    code = "import fastrnn, numpy as np; fastrnn.GRU(2, 2)(np.zeros((1, 1, 2)))"
    environment = {**os.environ, variable: value}
    environment.pop("FASTRNN_BACKEND" if variable == "FASTRNN_ISA" else "FASTRNN_ISA", None)
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 1
    assert variable in done.stderr
    assert value in done.stderr.splitlines()[-1]


# -- sizes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [(10**9, 10**9), (10**30, 1), (1, 2 * 10**8, 10), (1, 1, 10**9), (1, 1, 10**30)])
def test_sizes_beyond_the_machine(sizes: tuple[int, ...]) -> None:
    """One error at once: nothing of that size is made or counted through."""
    with pytest.raises(ValueError, match=r"more than this machine can address|num_layers"):
        fastrnn.LSTM(*sizes)


def test_a_stream_of_too_many_rows() -> None:
    with pytest.raises(ValueError, match="batch_size"):
        make_layer("gru_after", I, H).stream(10**30)


@pytest.mark.parametrize("dtype", ["f4,f4,(", "{", [1], {"names": 1}, b"", object()])
def test_what_is_no_dtype(dtype: Any) -> None:
    with pytest.raises(TypeError, match="dtype"):
        fastrnn.GRU(2, 2, dtype=dtype)


def test_lengths_that_change_during_a_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels see a copy: another thread cannot make them run past the end."""
    layer = make_layer("lstm", I, H)
    seen = []
    module = fastrnn.backends.current()
    forward = module.forward
    spy = lambda *args: (seen.append(args[7]), forward(*args))[1]  # noqa: E731
    monkeypatch.setattr(module, "forward", spy)
    lengths = np.array([1, 2, 3])
    layer(X, lengths=lengths)
    assert np.array_equal(seen[0], lengths)
    assert not np.shares_memory(seen[0], lengths)


@pytest.mark.parametrize("part", ["x", "state", "flat"])
def test_x_in_the_memory_of_the_gradients_to_fill(system: System, part: str) -> None:
    layer = make_layer("rnn_tanh", H, H)
    x = array(1, N, H)
    y, _, tape = layer.forward(x)
    want = layer.backward(tape, np.ones_like(y))
    grads = layer.backward(layer.forward(x)[2], np.ones_like(y))
    place = grads.flat[: x.size].reshape(x.shape) if part == "flat" else getattr(grads, part)
    place[...] = x
    got = layer.backward(layer.forward(place)[2], np.ones_like(y), out=grads)
    system.same(got.flat, want.flat)
    system.same(got.x, want.x)


def test_a_tape_whose_memory_is_gone(layer: Any) -> None:
    tape = layer.forward(X)[2]
    layer.forward(X, tape=tape)
    with pytest.raises(ValueError, match="already given"):
        layer.forward(X, tape=tape)
