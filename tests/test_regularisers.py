"""Recurrent dropout and zoneout: against definitions in PyTorch's operations, against each other, against nothing.

What the factors do to every shape and option is in `problems.py` and `oracle.py` (finite differences, with shares
between 0 and 1); here is what a user sees of them.
"""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

import fastrnn
import oracle
from conftest import System, make_layer
from fastrnn import functional
from fastrnn._spec import Regularisers
from fastrnn.backends import _numpy
from problems import CELLS, DTYPES

T, N, I, H = 9, 6, 5, 19  # noqa: E741
ON = {"recurrent_dropout": 0.3, "zoneout": 0.4}
cells = pytest.mark.parametrize("cell", list(CELLS))


def array(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape)


def zoned(cell: str, h: Any, c: Any) -> Any:
    """The argument `zoneout` of a cell."""
    return (h, c) if CELLS[cell]["cell"] == "lstm" else h


def drawn(layers: int, steps: int = T, batch: int = N, seed: int = 3) -> tuple[Any, Any, Any]:
    """A mask of h, shares of h and of c."""
    rng = np.random.default_rng(seed)
    mask = (rng.random((layers, batch, H)) < 0.5) * 2.0
    return (mask, *((rng.random((layers, steps, batch, H)) < rate) * 1.0 for rate in (0.4, 0.6)))


def outputs(layer: Any, x: Any, **given: Any) -> dict[str, Any]:
    """Everything that a forward and a backward pass give."""
    y, state, tape = functional.forward(layer._bind(), x, **given)
    grads = layer_backward(tape, y)
    states = state if isinstance(state, tuple) else (state,)
    first = grads.state if isinstance(grads.state, tuple) else (grads.state,)
    return {"y": y, "x": grads.x, "flat": grads.flat} | {
        f"{name}{k}": value for name, values in (("hn", states), ("d", first)) for k, value in enumerate(values)
    }


def layer_backward(tape: Any, y: Any) -> Any:
    return functional.backward(tape, np.cos(np.arange(y.size)).reshape(y.shape))


# --- definitions ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("option", [name for name, option in oracle.OPTIONS.items() if option.regular])
@pytest.mark.parametrize("cell", oracle.CELLS)
@pytest.mark.parametrize("recompute", [False, True])
def test_every_system_gives_what_numpy_gives(system: System, cell: str, option: str, recompute: bool) -> None:
    """With shares that are 0, 1 and between."""
    problem = oracle.make(oracle.CELLS[cell], oracle.OPTIONS[option])
    system.module.force_segment(2)
    try:
        got = oracle.run(system.module, problem, recompute=recompute)
    finally:
        system.module.force_segment(None)
    oracle.assert_same(got, oracle.run(_numpy, problem), rtol=1e-11, atol=1e-11)


def torch_loop(
    torch: Any, cell: str, p: dict[str, Any], k: int, x: Any, h: Any, c: Any, on: list[Any]
) -> tuple[Any, ...]:
    """One direction forward in time, a step at a time, in PyTorch's operations; on: mask, z of h, z of c."""
    w, u, b, d = (p[f"{name}_l{k}"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
    mask, zone_h, zone_c = (a[k] for a in on)
    out = []
    for t in range(len(x)):
        a, v = x[t] @ w.T + b, (mask * h) @ u.T + d
        if cell.startswith("rnn"):
            new = (torch.tanh if cell == "rnn_tanh" else torch.relu)(a + v)
        elif cell == "lstm":
            i, f, g, o = (a + v).chunk(4, dim=1)
            made = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            new = torch.sigmoid(o) * torch.tanh(made)
            c = zone_c[t] * c + (1 - zone_c[t]) * made
        else:
            (a_r, a_z, a_n), (v_r, v_z, v_n) = a.chunk(3, dim=1), v.chunk(3, dim=1)
            r, z = torch.sigmoid(a_r + v_r), torch.sigmoid(a_z + v_z)
            if cell == "gru_after":
                n = torch.tanh(a_n + r * v_n)
            else:
                n = torch.tanh(a_n + d[2 * H :] + (r * mask * h) @ u[2 * H :].T)
            new = (1 - z) * n + z * h
        h = zone_h[t] * h + (1 - zone_h[t]) * new
        out.append(h)
    return torch.stack(out), h, c


@cells
def test_pytorch_differentiates_the_same(system: System, cell: str) -> None:
    """Two layers, outputs and all gradients in float64, against autograd on a loop of single steps."""
    torch = pytest.importorskip("torch")
    layer = make_layer(cell, I, H, 2, dtype=np.float64)
    x, h0, c0 = array(T, N, I), array(2, N, H, seed=1), array(2, N, H, seed=2)
    mask, zone_h, zone_c = drawn(2)
    with system.active():
        y, _, tape = functional.forward(
            layer._bind(), x, zoned(cell, h0, c0), recurrent_dropout=mask, zoneout=zoned(cell, zone_h, zone_c)
        )
        dy = array(*y.shape, seed=4)
        grads = functional.backward(tape, dy, zoned(cell, h0, c0))
    params = {name: torch.tensor(value, requires_grad=True) for name, value in layer.state_dict().items()}
    tx, th, tc = (torch.tensor(a, requires_grad=True) for a in (x, h0, c0))
    on = [torch.tensor(a) for a in (mask, zone_h, zone_c)]
    current, loss = tx, torch.tensor(0.0, dtype=torch.float64)
    for k in range(2):
        current, h, c = torch_loop(torch, cell, params, k, current, th[k], tc[k], on)
        loss = loss + (h * th[k].detach()).sum() + (c * tc[k].detach() if cell == "lstm" else 0 * h).sum()
    (loss + (current * torch.tensor(dy)).sum()).backward()
    close = {"rtol": 1e-10, "atol": 1e-11}
    np.testing.assert_allclose(y, current.detach().numpy(), **close)
    np.testing.assert_allclose(grads.x, tx.grad.numpy(), **close)
    np.testing.assert_allclose(grads.state[0] if cell == "lstm" else grads.state, th.grad.numpy(), **close)
    if cell == "lstm":
        np.testing.assert_allclose(grads.state[1], tc.grad.numpy(), **close)
    for name, param in params.items():
        np.testing.assert_allclose(grads.weights[name], param.grad.numpy(), **close, err_msg=name)


# --- nothing ----------------------------------------------------------------------------------------------------------


@cells
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("batch", [1, N])
def test_factors_that_do_nothing(system: System, cell: str, dtype: str, batch: int) -> None:
    """A mask of ones and shares of zero give the bits of the call without; but a GRU's dh adds its sum up otherwise."""
    layer = make_layer(cell, I, H, 2, bidirectional=True, dtype=dtype)
    x = array(T, batch, I)
    ones, zeros = np.ones((4, batch, H)), np.zeros((4, T, batch, H))
    with system.active():
        plain = outputs(layer, x)
        masked = outputs(layer, x, recurrent_dropout=ones)
        for name, value in outputs(layer, x, zoneout=zoned(cell, zeros, zeros)).items():
            system.same(value, plain[name])
    for name, value in masked.items():
        if name[0] in "yh" or "gru" not in cell:
            system.same(value, plain[name])
        else:
            scale = 1e-5 if dtype == "float32" else 1e-13
            np.testing.assert_allclose(value, plain[name], rtol=scale, atol=scale * np.abs(plain[name]).max())


@cells
def test_rates_of_zero_are_no_regulariser(cell: str) -> None:
    one, other = make_layer(cell, I, H, 2), make_layer(cell, I, H, 2, recurrent_dropout=0.0, zoneout=0.0)
    x = array(T, N, I)
    for layer in (one, other):
        tape = layer.forward(x)[2]
        assert tape.regular is None
    assert np.array_equal(one(x)[0], other(x)[0])
    assert repr(one) == repr(other)


@cells
def test_zoneout_of_one_keeps_the_state(system: System, cell: str) -> None:
    layer = make_layer(cell, I, H, zoneout=1.0)
    h = array(1, N, H).astype(np.float32)
    with system.active():
        for y, state in (
            layer(array(T, N, I), zoned(cell, h, h)),
            layer.forward(array(T, N, I), zoned(cell, h, h))[:2],
        ):
            assert (y == h).all()
            assert np.array_equal(state[1] if isinstance(state, tuple) else state, h)


# --- chance -----------------------------------------------------------------------------------------------------------


@cells
def test_a_seed_repeats_a_run(cell: str) -> None:
    options = {**ON, "dropout": 0.2}
    one, other = (make_layer(cell, I, H, 2, **options) for _ in range(2))
    double = make_layer(cell, I, H, 2, dtype=np.float64, **options)
    x = array(T, N, I)
    first = [one.forward(x)[2].regular for _ in range(2)]
    second = [other.forward(x)[2].regular for _ in range(2)]
    third = double.forward(x)[2].regular
    for a, b in zip(first, second, strict=True):
        assert all(p is q is None or np.array_equal(p, q) for p, q in zip(a, b, strict=True))
    assert not np.array_equal(first[0].mask, first[1].mask)
    assert not np.array_equal(first[0].zone_h, first[1].zone_h)
    np.testing.assert_allclose(third.mask, first[0].mask, rtol=1e-6)
    assert np.array_equal(third.zone_h, first[0].zone_h)


def test_what_is_drawn() -> None:
    layer = fastrnn.LSTM(I, 50, 2, bidirectional=True, recurrent_dropout=0.25, zoneout=(0.1, 0.5), rng=0)
    on = layer.forward(array(30, 40, I))[2].regular
    assert on.mask.shape == (4, 40, 50)
    assert {*np.unique(on.mask)} == {0, np.float32(4 / 3)}
    assert (on.mask == 0).mean() == pytest.approx(0.25, abs=0.02)
    for zone, rate in ((on.zone_h, 0.1), (on.zone_c, 0.5)):
        assert zone.shape == (4, 30, 40, 50)
        assert zone.dtype == np.float32
        assert {*np.unique(zone)} == {0, 1}
        assert zone.mean() == pytest.approx(rate, abs=0.01)
    assert fastrnn.LSTM(I, H, zoneout=(0.0, 0.5)).forward(array(2, 3, I))[2].regular.zone_h is None
    assert not fastrnn.RNN(I, H, recurrent_dropout=1.0).forward(array(2, 3, I))[2].regular.mask.any()


def test_the_order_of_the_draws() -> None:
    """Dropout between layers, the mask, h, c: the generator's stream, in float32."""
    layer = fastrnn.LSTM(I, H, 2, dropout=0.5, recurrent_dropout=0.5, zoneout=(0.5, 0.5), rng=8)
    rng = np.random.default_rng(8)
    rng.uniform(size=layer._spec.weight_count)
    tape = layer.forward(array(T, N, I))[2]
    for got, shape in ((tape.dropout, (1, T, N, H)), (tape.regular.mask, (2, N, H))):
        assert np.array_equal(got != 0, rng.random(shape, dtype=np.float32) >= 0.5)
    for got in tape.regular[1:]:
        assert np.array_equal(got == 1, rng.random((2, T, N, H), dtype=np.float32) < 0.5)


def test_a_refused_call_draws_nothing() -> None:
    layer, same = (fastrnn.GRU(I, H, **ON, rng=7) for _ in range(2))
    with pytest.raises(ValueError, match="save"):
        layer.forward(array(T, N, I), save="some")
    assert np.array_equal(layer.forward(array(T, N, I))[0], same.forward(array(T, N, I))[0])


@cells
def test_backward_sees_the_same_factors(system: System, cell: str) -> None:
    """The derivative along a direction by differences, with the generator wound back for each forward."""
    layer = make_layer(cell, I, H, 2, dropout=0.5, dtype=np.float64, **ON)
    state = layer._rng.bit_generator.state

    def run(x: Any) -> Any:
        layer._rng.bit_generator.state = state
        return layer.forward(x)

    x, direction, dy = array(T, N, I), array(T, N, I, seed=8), array(T, N, H, seed=4)
    with system.active():
        grads = layer.backward(run(x)[2], dy)
        slope = ((run(x + 1e-6 * direction)[0] - run(x - 1e-6 * direction)[0]) * dy).sum() / 2e-6
    assert slope == pytest.approx((grads.x * direction).sum(), rel=1e-5, abs=1e-7)


# --- inference --------------------------------------------------------------------------------------------------------


@cells
def test_inference_takes_the_expectation(system: System, cell: str) -> None:
    rates = (0.2, 0.6) if cell == "lstm" else 0.2
    layer = make_layer(cell, I, H, 2, zoneout=rates, recurrent_dropout=0.5, dtype=np.float64)
    x, shape = array(T, N, I), (2, T, N, H)
    with system.active():
        y, state = layer(x)
        shares = zoned(cell, np.full(shape, 0.2), np.full(shape, 0.6))
        given = functional.forward(layer._bind(), x, zoneout=shares)[0]
        system.same(given, functional.forward(layer._bind(), x)[0])
        np.testing.assert_allclose(y, given, rtol=1e-12, atol=1e-12)  # of a training forward the last bits may differ
        stream = layer.stream(N)
        system.same(np.stack([stream.step(x_t) for x_t in x]), y)
        system.same(np.asarray(stream.state), np.asarray(state))
        single = layer(x[:, 0])[0]
        system.same(single, y[:, 0])
        seen = fastrnn.diagnostics.unroll(layer, x)
    np.testing.assert_allclose(seen["h_l1"], y, rtol=1e-12, atol=1e-12)


@cells
def test_the_expectation_is_the_mean(cell: str) -> None:
    """Of one step, whose state is linear in z: 4000 draws, to five standard errors at most."""
    layer = make_layer(cell, I, H, zoneout=0.3, dtype=np.float64)
    x, h = np.repeat(array(1, 1, I), 4000, axis=1), np.repeat(array(1, 1, H, seed=1), 4000, axis=1)
    mean = layer.forward(x, zoned(cell, h, h))[0].mean(axis=1)
    expected = layer(x[:, :1], zoned(cell, h[:, :1], h[:, :1]))[0][:, 0]
    assert np.abs(mean - expected).max() < 5 * 0.46 * 3 / np.sqrt(4000)


# --- rows, threads ----------------------------------------------------------------------------------------------------


@cells
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_row_does_not_depend_on_the_others(system: System, cell: str, dtype: str) -> None:
    layer = make_layer(cell, I, 40, bidirectional=True, dtype=dtype)
    x, rng = array(T, 13, I), np.random.default_rng(5)
    mask, zones = rng.random((2, 13, 40)), [rng.integers(0, 2, (2, T, 13, 40)) for _ in range(2)]
    with system.active():
        y, _, tape = functional.forward(layer._bind(), x, recurrent_dropout=mask, zoneout=zoned(cell, *zones))
        dx = layer_backward(tape, y).x
        dy = np.cos(np.arange(y.size)).reshape(y.shape)
        for n in (0, 7):
            one = slice(n, n + 1)
            parts = zoned(cell, *(z[:, :, one] for z in zones))
            alone, _, tape = functional.forward(layer._bind(), x[:, one], recurrent_dropout=mask[:, one], zoneout=parts)
            system.same(alone, y[:, one])
            system.same(functional.backward(tape, dy[:, one]).x, dx[:, one])


@cells
def test_steps_by_pieces_are_the_whole(system: System, cell: str) -> None:
    """A sequence cut in two, with the state carried over: outputs bit for bit."""
    layer = make_layer(cell, I, H)
    mask, zone_h, zone_c = drawn(1)
    x = array(T, N, I)
    with system.active():
        packed = layer._bind()
        whole = functional.forward(packed, x, recurrent_dropout=mask, zoneout=zoned(cell, zone_h, zone_c))[0]
        pieces, state = [], None
        for part in (slice(0, 4), slice(4, T)):
            y, state, _ = functional.forward(
                packed, x[part], state, recurrent_dropout=mask, zoneout=zoned(cell, zone_h[:, part], zone_c[:, part])
            )
            pieces.append(y)
        system.same(np.concatenate(pieces), whole)


@cells
def test_without_a_batch_and_batch_first(system: System, cell: str) -> None:
    layer = make_layer(cell, I, H, 2)
    mask, zone_h, zone_c = drawn(2)
    x = array(T, N, I)
    given = {"recurrent_dropout": mask, "zoneout": zoned(cell, zone_h, zone_c)}
    row = {"recurrent_dropout": mask[:, 0], "zoneout": zoned(cell, zone_h[:, :, 0], zone_c[:, :, 0])}
    with system.active():
        y = functional.forward(layer._bind(), x, **given)[0]
        swapped = functional.forward(layer._bind(), x.swapaxes(0, 1), batch_first=True, **given)[0]
        system.same(np.ascontiguousarray(swapped.swapaxes(0, 1)), y)
        system.same(functional.forward(layer._bind(), x[:, 0], **row)[0], y[:, 0])


def test_packed_rows(system: System) -> None:
    """The factors of packed rows are those of padded ones: by step and row."""
    layer = make_layer("lstm", I, H, 2, bidirectional=True)
    mask, zone_h, zone_c = drawn(4)
    given = {"recurrent_dropout": mask, "zoneout": (zone_h, zone_c)}
    x, lengths = array(T, N, I).astype(np.float32), [3, T, 0, 5, 1, 5]
    with system.active():
        y, state, tape = functional.forward(layer._bind(), x, lengths=lengths, **given)
        want = layer_backward(tape, np.ones_like(y))
        packed = fastrnn.sequences.pack(x, lengths)
        py, pstate, ptape = functional.forward(layer._bind(), packed, **given)
        got = functional.backward(ptape, fastrnn.sequences.pack(np.cos(np.arange(y.size)).reshape(y.shape), lengths))
    system.same(py.data, fastrnn.sequences.pack(np.array(y), lengths).data)
    system.same(np.asarray(pstate), np.asarray(state))
    system.same(got.flat, want.flat)


# --- options and errors -----------------------------------------------------------------------------------------------


def test_options_are_kept(tmp_path: Any) -> None:
    lstm = fastrnn.LSTM(I, H, recurrent_dropout=0.25, zoneout=(0.05, 0.5), rng=0)
    assert (lstm.recurrent_dropout, lstm.zoneout) == (0.25, (0.05, 0.5))
    assert repr(lstm) == "LSTM(5, 19, recurrent_dropout=0.25, zoneout=(0.05, 0.5))"
    assert fastrnn.LSTM(I, H, zoneout=0.5).zoneout == 0.5
    assert fastrnn.GRU(I, H, zoneout=1).zoneout == 1.0
    lstm.save(tmp_path / "layer.npz")
    for twin in (fastrnn.load(tmp_path / "layer.npz"), pickle.loads(pickle.dumps(lstm))):
        assert repr(twin) == repr(lstm)
        assert np.array_equal(twin(array(T, N, I))[0], lstm(array(T, N, I))[0])
    with pytest.raises(AttributeError, match="zoneout is fixed"):
        lstm.zoneout = 0.1


def test_a_layer_from_a_file_without_these_options(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    gru = fastrnn.GRU(I, H, rng=0)
    for name in ("recurrent_dropout", "zoneout"):
        monkeypatch.delitem(gru._options, name)
    gru.save(tmp_path / "old.npz")
    made = fastrnn.load(tmp_path / "old.npz")
    assert (made.recurrent_dropout, made.zoneout) == (0.0, 0.0)
    assert np.array_equal(made.weights.flat, gru.weights.flat)


@pytest.mark.parametrize(
    ("kind", "options", "error", "match"),
    [
        (
            fastrnn.LSTM,
            {"recurrent_dropout": 1.5},
            ValueError,
            "recurrent_dropout is 1.5; it must be a number from 0 to 1",
        ),
        (fastrnn.LSTM, {"recurrent_dropout": "half"}, TypeError, "recurrent_dropout is 'half'"),
        (fastrnn.RNN, {"zoneout": -0.1}, ValueError, "zoneout is -0.1"),
        (fastrnn.RNN, {"zoneout": float("nan")}, ValueError, "zoneout is nan"),
        (fastrnn.GRU, {"zoneout": True}, TypeError, "zoneout is True"),
        (fastrnn.GRU, {"zoneout": (0.1, 0.2)}, TypeError, "only an LSTM has a second state"),
        (fastrnn.LSTM, {"zoneout": (0.1,)}, ValueError, "zoneout holds 1 values"),
        (fastrnn.LSTM, {"zoneout": (0.1, 2)}, ValueError, r"zoneout\[1\] \(c\) is 2"),
        (fastrnn.LSTM, {"zoneout": (None, 0.2)}, TypeError, r"zoneout\[0\] \(h\) is None"),
    ],
)
def test_wrong_rates(kind: Any, options: dict[str, Any], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        kind(I, H, **options)


@pytest.mark.parametrize(
    ("cell", "given", "error", "match"),
    [
        (
            "lstm",
            {"recurrent_dropout": np.ones((N, H))},
            ValueError,
            r"recurrent_dropout has shape \(6, 19\); it must be",
        ),
        ("lstm", {"recurrent_dropout": "no"}, TypeError, "recurrent_dropout has dtype"),
        ("lstm", {"recurrent_dropout": lambda shape: np.ones(shape[1:])}, ValueError, "recurrent_dropout has shape"),
        ("lstm", {"zoneout": np.ones((1, T, N, H))}, TypeError, "zoneout is a ndarray; for an LSTM it must be a pair"),
        ("lstm", {"zoneout": (np.zeros((T, N, H)), None)}, ValueError, r"zoneout\[0\] \(h\) has shape"),
        ("lstm", {"zoneout": (None, np.full((1, T, N, H), 2.0))}, ValueError, r"zoneout\[1\] \(c\) holds values from"),
        ("gru_after", {"zoneout": np.full((1, T, N, H), np.nan)}, ValueError, "zoneout holds values from nan"),
        ("gru_after", {"zoneout": (None, None)}, TypeError, "zoneout has dtype object"),
        ("rnn_tanh", {"zoneout": np.zeros((1, T + 1, N, H))}, ValueError, "zoneout has shape"),
    ],
)
def test_wrong_factors(cell: str, given: dict[str, Any], error: type[Exception], match: str) -> None:
    layer = make_layer(cell, I, H)
    with pytest.raises(error, match=match):
        functional.forward(layer._bind(), array(T, N, I), **given)


def test_only_the_calls_that_regularise_pay() -> None:
    """The workspace of a plain call has no room for it, and the core says so."""
    core = pytest.importorskip("fastrnn.backends._core")
    layer = fastrnn.LSTM(I, H)
    packed = layer._bind()
    x, y, h = (np.zeros(shape, np.float32) for shape in ((2, 3, I), (2, 3, H), (1, 3, H)))
    on = Regularisers(np.ones((1, 3, H), np.float32), None, None)
    core.forward(packed, x, y, None, None, h, h.copy(), None, None, None, None, None, regular=on)
    assert np.array_equal(y, layer(x)[0])
