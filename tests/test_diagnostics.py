"""`fastrnn.diagnostics`: intermediates against the cells' definitions, dL/dh[t] against finite differences."""

from __future__ import annotations

import io
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import fastrnn
from conftest import System, make_layer, parts
from fastrnn import sequences
from fastrnn.diagnostics import (
    GradientFlow,
    gradient_flow,
    plot_gradient_flow,
    plot_spectral_radius,
    plot_unroll,
    spectral_radius,
    unroll,
)
from oracle import CELLS as SPECS
from oracle import OPTIONS, Problem, make
from problems import CELLS
from test_oracle import cell_step

T, N, I, H = 7, 5, 3, 4  # noqa: E741 - the letters of the shapes
cells = pytest.mark.parametrize("cell", list(CELLS))
ROWS = {
    "plain": {},
    "lengths": {"lengths": np.array([3, 7, 0, 1, 5])},
    "everything": {
        "lengths": np.array([3, 7, 0, 1, 5]),
        "reset": np.random.default_rng(0).random((T, N)) < 0.3,
        "mask": np.random.default_rng(1).random((T, N)) < 0.7,
    },
}
rows = pytest.mark.parametrize("rows", list(ROWS))


def draw(rng: np.random.Generator, *shape: int, dtype: str = "float64") -> Any:
    return rng.standard_normal(shape).astype(dtype)


def sigmoid(a: Any) -> Any:
    return 1 / (1 + np.exp(-a))


# -- unroll ----------------------------------------------------------------------------------------------------------


@cells
@rows
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("batch_first", [False, True])
def test_unrolled_states_are_the_outputs(cell: str, rows: str, dtype: str, batch_first: bool) -> None:
    rng = np.random.default_rng(2)
    layer = make_layer(cell, I, H, 2, bidirectional=True, batch_first=batch_first, dtype=dtype, dropout=0.5)
    x, control = draw(rng, T, N, I, dtype=dtype), dict(ROWS[rows])
    state = tuple(draw(rng, 4, N, H, dtype=dtype) for _ in range(2))
    given = state if cell == "lstm" else state[0]
    if batch_first:
        x = x.swapaxes(0, 1)
        control = {name: value.T if value.ndim == 2 else value for name, value in control.items()}
    y, last = layer(x, given, **control)
    seen = unroll(layer, x, given, **control)
    atol = 2e-6 if dtype == "float32" else 1e-13
    both = np.concatenate([seen["h_l1"], seen["h_l1_reverse"]], axis=2)
    np.testing.assert_allclose(both, y.swapaxes(0, 1) if batch_first else y, rtol=0, atol=atol)
    lengths = control.get("lengths", np.full(N, T))
    assert all(array.shape == (T, N, H) and array.dtype == dtype for array in seen.values())
    for letter, final in zip("hc", parts(last), strict=False):
        for k, suffix in enumerate(("l0", "l0_reverse", "l1", "l1_reverse")):
            array = seen[f"{letter}_{suffix}"]
            for n in np.flatnonzero(lengths):
                np.testing.assert_allclose(
                    array[0 if k % 2 else lengths[n] - 1, n], final[k, n], rtol=0, atol=atol, err_msg=suffix
                )
                assert not array[lengths[n] :, n].any()
    ran = np.arange(T)[:, None] < lengths
    if "mask" in control:
        ran &= ROWS[rows]["mask"]
    assert np.array_equal(seen.ran, ran)
    assert all(not array[~ran].any() for name, array in seen.items() if name[0] not in "ch")


@cells
@pytest.mark.smoke
def test_gates_obey_the_definition(cell: str) -> None:
    rng = np.random.default_rng(3)
    layer = make_layer(cell, I, H, dtype="float64")
    x, h0, c0 = draw(rng, T, N, I), draw(rng, 1, N, H), draw(rng, 1, N, H)
    seen = unroll(layer, x, (h0, c0) if cell == "lstm" else h0)
    letters = {"lstm": "ifgoch", "gru_after": "rznh", "gru_before": "rznh"}.get(cell, "h")
    assert list(seen) == [f"{letter}_l0" for letter in letters]
    h = seen["h_l0"]
    before = np.concatenate([h0, h[:-1]])
    a = x @ layer.weight_ih_l0.T + layer.bias_ih_l0
    u = before @ layer.weight_hh_l0.T + layer.bias_hh_l0
    if cell == "lstm":
        pre = np.split(a + u, 4, axis=2)
        for letter, value in zip("ifgo", pre, strict=True):
            want = np.tanh(value) if letter == "g" else sigmoid(value)
            np.testing.assert_allclose(seen[f"{letter}_l0"], want, rtol=0, atol=1e-13)
        c = seen["c_l0"]
        i, f, g, o = (seen[f"{letter}_l0"] for letter in "ifgo")
        np.testing.assert_allclose(c, f * np.concatenate([c0, c[:-1]]) + i * g, rtol=0, atol=1e-13)
        np.testing.assert_allclose(h, o * np.tanh(c), rtol=0, atol=1e-13)
    elif cell.startswith("gru"):
        (a_r, a_z, a_n), (u_r, u_z, u_n) = np.split(a, 3, axis=2), np.split(u, 3, axis=2)
        r, z, n = (seen[f"{letter}_l0"] for letter in "rzn")
        if cell == "gru_before":
            inner = (r * before) @ layer.weight_hh_l0[2 * H :].T + layer.bias_hh_l0[2 * H :]
        else:
            inner = r * u_n
        np.testing.assert_allclose(r, sigmoid(a_r + u_r), rtol=0, atol=1e-13)
        np.testing.assert_allclose(z, sigmoid(a_z + u_z), rtol=0, atol=1e-13)
        np.testing.assert_allclose(n, np.tanh(a_n + inner), rtol=0, atol=1e-13)
        np.testing.assert_allclose(h, (1 - z) * n + z * before, rtol=0, atol=1e-13)
    else:
        np.testing.assert_allclose(h, np.tanh(a + u) if cell == "rnn_tanh" else np.maximum(a + u, 0), atol=1e-13)


def test_unrolled_without_a_batch() -> None:
    layer = make_layer("lstm", I, H, 2)
    x = draw(np.random.default_rng(4), T, I, dtype="float32")
    seen = unroll(layer, x, lengths=5)
    assert seen["f_l1"].shape == (T, H)
    assert seen.ran.tolist() == [True] * 5 + [False] * 2
    np.testing.assert_allclose(seen["h_l1"], layer(x, lengths=5)[0], rtol=0, atol=1e-6)


# -- gradient_flow ---------------------------------------------------------------------------------------------------


def loss(p: Problem, k: int = -1, t: int = -1, dh: Any = None, dc: Any = None) -> float:
    """sum of dy y + dhn hn + dcn cn, row by row and step by step, where h or c of direction k is changed after step t.

    A change of c reaches h of the same step through h = o tanh(c), unless the step is masked.
    """
    spec, weights = p.spec, list(p.spec.views(p.weights).values())
    per, size = (4 if spec.bias else 2), spec.hidden_size
    steps, batch = p.x.shape[:2]
    lengths = np.full(batch, steps) if p.lengths is None else p.lengths
    source, total = p.x, 0.0
    for j in range(spec.num_layers * spec.directions):
        layer, reverse = divmod(j, spec.directions)
        if not reverse:
            out = np.zeros((steps, batch, spec.directions * size))
        w = weights[j * per : (j + 1) * per]
        for n in range(batch):
            h = np.zeros(size) if p.h0 is None else p.h0[j, n]
            c = np.zeros(size) if p.c0 is None else p.c0[j, n]
            for s in range(lengths[n])[:: -1 if reverse else 1]:
                cut = s + reverse
                if p.reset is not None and cut < lengths[n] and p.reset[cut, n]:
                    h, c = np.zeros(size), np.zeros(size)
                runs = p.mask is None or p.mask[s, n]
                if runs:
                    h, c = cell_step(spec, w, source[s, n], h, c)
                if (j, s) == (k, t):
                    h = h if dh is None else h + dh[n]
                    if dc is not None:
                        h = h / np.tanh(c) * np.tanh(c + dc[n]) if runs else h
                        c = c + dc[n]
                out[s, n, reverse * size : (reverse + 1) * size] = h
            total += 0 if p.dhn is None else h @ p.dhn[j, n]
            total += 0 if p.dcn is None else c @ p.dcn[j, n]
        if reverse == spec.directions - 1:
            source = out if p.dropout is None or layer == spec.num_layers - 1 else out * p.dropout[layer]
    return total + (0 if p.dy is None else float((out * p.dy).sum()))


OF_ORACLE = {"rnn_tanh": "tanh", "rnn_relu": "relu", "lstm": "lstm", "gru_after": "gru", "gru_before": "gru_before"}


@cells
@pytest.mark.parametrize(
    "option",
    ["plain", "no_state", "no_bias", "only_dy", "only_dhn", "only_dcn", "everything", "bidirectional_reset", "stack"],
)
def test_every_hidden_gradient_against_finite_differences(cell: str, option: str) -> None:
    p = make(SPECS[OF_ORACLE[cell]], OPTIONS[option])
    layer = make_layer(
        cell, p.spec.input_size, p.spec.hidden_size, p.spec.num_layers, bias=p.spec.bias,
        bidirectional=p.spec.bidirectional, dtype="float64", dropout=0.5 if p.dropout is not None else 0.0,
    )  # fmt: skip
    with layer.edit() as weights:
        weights.flat = p.weights
    state = None if p.h0 is None else (p.h0, p.c0) if cell == "lstm" else p.h0
    dstate = (p.dhn, p.dcn) if cell == "lstm" else p.dhn
    y, last, tape = layer.forward(p.x, state, lengths=p.lengths, reset=p.reset, mask=p.mask)
    p = replace(p, dropout=tape.dropout)
    flow = gradient_flow(layer, tape, p.dy, dstate)
    inflow = zip((y, *parts(last)), (p.dy, p.dhn, p.dcn), strict=False)
    whole = sum(float((value * gradient).sum()) for value, gradient in inflow if gradient is not None)
    assert loss(p) == pytest.approx(whole, rel=1e-12)
    rng, step = np.random.default_rng(5), 1e-5
    suffixes = [name[2:] for name in flow.states if name.startswith("h_")]
    for k, suffix in enumerate(suffixes):
        for t in range(len(p.x)):
            for letter, word in (("h", "dh"), ("c", "dc")):
                if f"{letter}_{suffix}" not in flow.states:
                    continue
                way = rng.standard_normal((p.x.shape[1], p.spec.hidden_size))
                change = loss(p, k, t, **{word: step * way}) - loss(p, k, t, **{word: -step * way})
                got = float((flow.states[f"{letter}_{suffix}"][t] * way).sum())
                assert got == pytest.approx(change / (2 * step), rel=1e-6, abs=1e-7), (letter, suffix, t)


@cells
@rows
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("save", ["all", "recompute"])
def test_gradients_are_those_of_backward(system: System, cell: str, rows: str, dtype: str, save: str) -> None:
    rng = np.random.default_rng(6)
    layer = make_layer(cell, I, H, 2, bidirectional=True, dtype=dtype)
    x, dy = draw(rng, T, N, I, dtype=dtype), draw(rng, T, N, 2 * H, dtype=dtype)
    dstate = tuple(draw(rng, 4, N, H, dtype=dtype) for _ in range(2))
    _, _, tape = layer.forward(x, save=save, **ROWS[rows])
    dstate = dstate if cell == "lstm" else dstate[0]
    used = layer.backward(tape, dy, dstate, retain=True)
    want = [part.copy() for part in (used.flat, used.x, *parts(used.state))]
    flow = gradient_flow(layer, tape, dy, dstate, retain=True)
    assert not tape.consumed
    again = gradient_flow(layer, tape, dy, dstate, out=used)
    assert tape.consumed
    assert again.gradients is used
    for got in (flow.gradients, again.gradients):
        for one, other in zip((got.flat, got.x, *parts(got.state)), want, strict=True):
            assert np.array_equal(one, other)
    suffixes = ("l0", "l0_reverse", "l1", "l1_reverse")
    assert set(flow.states) == {f"{a}_{b}" for a in ("ch" if cell == "lstm" else "h") for b in suffixes}


REGULAR = ({}, {"recurrent_dropout": 0.4}, {"zoneout": 0.3}, {"recurrent_dropout": 0.4, "zoneout": 0.3})


@cells
@rows
@pytest.mark.parametrize("regular", REGULAR, ids=["", "dropout", "zoneout", "both"])
@pytest.mark.parametrize("save", ["all", "recompute"])
def test_states_gradients_are_those_of_the_equations(
    system: System, cell: str, rows: str, regular: dict[str, Any], save: str
) -> None:
    """The compiled time loop notes what the equations in NumPy give, with a hidden size beyond a vector."""
    flows = []
    for backend in (system.backend, "numpy"):
        layer = make_layer(cell, I, 19, 2, bidirectional=True, dtype="float64", **regular)
        x, dy = draw(np.random.default_rng(8), T, N, I), draw(np.random.default_rng(9), T, N, 38)
        with system.active() if backend == system.backend else fastrnn.backend("numpy"):
            system.module.force_segment(2)
            try:
                flows.append(gradient_flow(layer, layer.forward(x, save=save, **ROWS[rows])[2], dy))
            finally:
                system.module.force_segment(None)
    for name, value in flows[1].states.items():
        np.testing.assert_allclose(flows[0].states[name], value, rtol=1e-10, atol=1e-12, err_msg=name)


@pytest.mark.smoke
def test_norms_are_those_of_the_states() -> None:
    rng = np.random.default_rng(7)
    layer = make_layer("lstm", I, H, 2, batch_first=True)
    x, dy = draw(rng, N, T, I, dtype="float32"), draw(rng, N, T, H, dtype="float32")
    flow = gradient_flow(layer, layer.forward(x)[2], dy)
    for name, array in flow.states.items():
        assert array.shape == (T, N, H)
        np.testing.assert_allclose(flow.row_norms[name], np.linalg.norm(array, axis=2), rtol=1e-6)
        np.testing.assert_allclose(flow.norms[name], np.sqrt((array.astype(float) ** 2).sum((1, 2))), rtol=1e-6)
        assert flow.norms[name].dtype == np.float64
    np.testing.assert_allclose(flow.states["h_l1"][-1], dy[:, -1], rtol=1e-6)
    single = gradient_flow(layer, layer.forward(x[2])[2], dy[2])
    assert single.states["c_l0"].shape == (T, H)
    assert single.norms["c_l0"].shape == single.row_norms["c_l0"].shape == (T,)
    np.testing.assert_allclose(single.norms["h_l0"], flow.row_norms["h_l0"][:, 2], rtol=1e-4)


def test_a_vanishing_gradient_is_measured_not_rounded_to_zero() -> None:
    """h[t] = U h[t-1] with U = I / 16: the norm falls by 16 a step; its square would leave float32 halfway."""
    layer = fastrnn.RNN(1, H, nonlinearity="relu", bias=False)
    layer.weight_hh_l0 = np.eye(H) / 16
    layer.weight_ih_l0 = np.ones((H, 1))
    y, _, tape = layer.forward(np.ones((30, 1, 1)))
    dy = np.zeros(y.shape)
    dy[-1] = 1
    norms = gradient_flow(layer, tape, dy).norms["h_l0"]
    np.testing.assert_allclose(norms, 2.0 * 16.0 ** (np.arange(30) - 29), rtol=1e-6)


def test_a_reset_stops_the_flow_and_dropout_is_in_it() -> None:
    rng = np.random.default_rng(8)
    layer = make_layer("gru_after", I, H, 2, dropout=0.5, dtype="float64")
    x, reset = draw(rng, T, N, I), np.zeros((T, N), bool)
    reset[4] = True
    y, _, tape = layer.forward(x, reset=reset)
    dy = np.zeros(y.shape)
    dy[-1] = 1
    norms = gradient_flow(layer, tape, dy).norms
    assert (norms["h_l1"][:4] == 0).all()
    assert (norms["h_l0"][:4] == 0).all()
    assert (norms["h_l0"][4:] > 0).all()


def test_flow_without_steps_or_gradients() -> None:
    layer = make_layer("lstm", I, H)
    for shape in ((0, N, I), (T, 0, I), (T, N, I)):
        _, _, tape = layer.forward(np.zeros(shape))
        flow = gradient_flow(layer, tape)
        assert flow.norms["h_l0"].shape == (shape[0],)
        assert not flow.norms["h_l0"].any()
        assert unroll(layer, np.zeros(shape))["c_l0"].shape == (*shape[:2], H)


# -- spectral_radius -------------------------------------------------------------------------------------------------


@cells
def test_spectral_radius_of_known_matrices(cell: str) -> None:
    layer = make_layer(cell, I, H, 2, bidirectional=True)
    letters = {"lstm": "ifgo", "gru_after": "rzn", "gru_before": "rzn"}.get(cell, "h")
    rotation = np.eye(H)
    rotation[:2, :2] = [[0, -3], [3, 0]]  # eigenvalues 3i and -3i
    with layer.edit() as weights:
        weights["weight_hh_l1_reverse"] = np.concatenate([rotation * (g + 1) for g in range(len(letters))])
    found = spectral_radius(layer)
    assert list(found) == [f"{c}_{s}" for s in ("l0", "l0_reverse", "l1", "l1_reverse") for c in letters]
    for g, letter in enumerate(letters):
        assert found[f"{letter}_l1_reverse"] == pytest.approx(3 * (g + 1))
        block = layer.weight_hh_l0[g * H : (g + 1) * H].astype(float)
        power = np.linalg.matrix_power(block / found[f"{letter}_l0"], 2000)  # neither grows nor dies out
        assert 1e-6 < np.abs(power).max() < 1e6


# -- bad input -------------------------------------------------------------------------------------------------------


def test_bad_input_is_named() -> None:
    layer, other = make_layer("lstm", I, H), make_layer("gru_after", I, 2 * H)
    x = np.zeros((T, N, I))
    for call in (lambda: unroll(3, x), lambda: spectral_radius(None), lambda: gradient_flow("lstm", None)):  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="layer is a"):
            call()
    with pytest.raises(ValueError, match="x has shape"):
        unroll(layer, x[:, :, :2])
    with pytest.raises(ValueError, match="lengths holds 8"):
        unroll(layer, x, lengths=[8] * N)
    with pytest.raises(TypeError, match="mask has dtype"):
        unroll(layer, x, mask=np.ones((T, N)))
    with pytest.raises(TypeError, match="tape is a int"):
        gradient_flow(layer, 3)  # type: ignore[arg-type]
    y, _, tape = layer.forward(x)
    out = layer.backward(tape, y, retain=True)
    before = out.flat.copy()
    for wrong in (
        lambda: gradient_flow(layer, tape, y[:-1], out=out),
        lambda: gradient_flow(layer, tape, y, (y, y), out=out),
        lambda: gradient_flow(layer, other.forward(x)[2], y, out=out),
        lambda: gradient_flow(layer, tape, y, accumulate=True),
        lambda: gradient_flow(layer, tape, y, out=3),  # type: ignore[arg-type]
    ):
        with pytest.raises((TypeError, ValueError), match=r"dy|dstate|tape|out"):
            wrong()
        assert not tape.consumed
        assert np.array_equal(out.flat, before)
    gradient_flow(layer, tape, y)
    with pytest.raises(ValueError, match="tape has been used"):
        gradient_flow(layer, tape, y)
    _, _, tape = layer.forward(x)
    layer.weight_hh_l0 = np.full((4 * H, H), np.nan)
    with pytest.raises(ValueError, match="weights have changed"):
        gradient_flow(layer, tape, y)
    with pytest.raises(ValueError, match="weight_hh_l0 holds NaN"):
        spectral_radius(layer)


# -- pictures --------------------------------------------------------------------------------------------------------


def some_flow(cell: str = "lstm") -> GradientFlow:
    layer = make_layer(cell, I, H, 2, bidirectional=True)
    y, _, tape = layer.forward(np.ones((T, N, I)))
    return gradient_flow(layer, tape, np.ones(y.shape))


def drawn(figure: Any) -> int:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg")
    return len(buffer.getvalue())


def test_plots_draw_what_they_are_given() -> None:
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    flow, layer = some_flow(), make_layer("lstm", I, H, 2, bidirectional=True)
    figure = plot_gradient_flow(flow, title="flow")
    axes = figure.axes[0]
    assert axes.get_yscale() == "log"
    assert [line.get_label() for line in axes.lines] == list(flow.states)
    for line, norms in zip(axes.lines, flow.norms.values(), strict=True):
        np.testing.assert_allclose(line.get_ydata(), np.where(norms > 0, norms, np.nan))
    assert drawn(figure)
    own = Figure()
    assert plot_gradient_flow({"LSTM": flow, "GRU": some_flow("gru_after")}, figure=own) is own
    assert own.axes[0].lines[-1].get_label() == "GRU h_l1_reverse"
    assert drawn(own)

    seen = unroll(layer, np.ones((T, N, I)))
    figure = plot_unroll(seen, row=2)
    images = [axes.images[0].get_array() for axes in figure.axes if axes.images]
    assert len(images) == len(seen)
    assert drawn(figure)
    figure = plot_unroll(seen, names=["c_l1"])
    np.testing.assert_allclose(figure.axes[0].images[0].get_array(), seen["c_l1"][:, 0].T)
    assert drawn(plot_unroll(unroll(layer, np.ones((T, I)))))

    radii = spectral_radius(layer)
    figure = plot_spectral_radius(radii)
    assert [bar.get_height() for bar in figure.axes[0].patches] == list(radii.values())
    assert drawn(figure)


def test_plots_refuse_what_is_not_there() -> None:
    pytest.importorskip("matplotlib")
    seen = unroll(make_layer("lstm", I, H), np.ones((T, N, I)))
    with pytest.raises(ValueError, match="row is 5; it must be from 0 to 4"):
        plot_unroll(seen, row=5)
    with pytest.raises(TypeError, match=r"row is 0\.5"):
        plot_unroll(seen, row=0.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="names holds 'q_l0'"):
        plot_unroll(seen, names=["q_l0"])
    with pytest.raises(ValueError, match="names is empty"):
        plot_unroll(seen, names=[])


def test_plots_without_matplotlib_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("matplotlib", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r'pip install "fastrnn\[plot\]"'):
        plot_gradient_flow(some_flow())
    with pytest.raises(ImportError, match="Matplotlib"):
        plot_spectral_radius({"h_l0": 1.0})


# -- packed ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", ["rnn_tanh", "lstm", "gru_before"])
@pytest.mark.parametrize("form", [sequences.pack, sequences.ragged])
@pytest.mark.parametrize("general", [{}, {"clip": 0.5}], ids=str)
def test_packed_is_padded(cell: str, form: Any, general: dict[str, Any]) -> None:
    rng = np.random.default_rng(4)
    layer = make_layer(cell, I, H, 2, bidirectional=True, dtype="float64", **general)
    rows = [draw(rng, length, I) for length in (3, 7, 0, 1, 5)]
    x, lengths = sequences.pad(rows)
    packed = form(rows)
    reset = [rng.random(len(row)) < 0.3 for row in rows]
    padded_reset = sequences.pad(reset).data
    seen, want = unroll(layer, packed, reset=form(reset)), unroll(layer, x, lengths=lengths, reset=padded_reset)
    assert list(seen) == list(want)
    for name, array in seen.items():
        np.testing.assert_array_equal(array, want[name])
    np.testing.assert_array_equal(seen.ran, want.ran)
    dy = [draw(rng, len(row), 2 * H) for row in rows]
    flow = gradient_flow(layer, layer.forward(packed, reset=form(reset))[2], form(dy))
    tape = layer.forward(x, lengths=lengths, reset=padded_reset)[2]
    other = gradient_flow(layer, tape, sequences.pad(dy).data)
    for name, array in flow.states.items():
        np.testing.assert_allclose(array, other.states[name], rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(flow.gradients.flat, other.gradients.flat, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(sequences.pad(flow.gradients.x).data, other.gradients.x, rtol=1e-11, atol=1e-13)
