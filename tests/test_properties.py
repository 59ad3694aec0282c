"""Properties that hold for any weights and data, through the public layers.

`system.same` asks for equality bit for bit where the arithmetic of a row is promised not to depend on the shape of the
call (the compiled kernels), and for equality to rounding on the twins, whose BLAS orders sums by shape.
"""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

import fastrnn
from conftest import System, make_layer, parts
from problems import CELLS, DTYPES

cells = pytest.mark.parametrize("cell", list(CELLS))
dtypes = pytest.mark.parametrize("dtype", DTYPES)
T, N, I, H = 11, 7, 5, 17  # noqa: E741 - the letters of the shapes
LENGTHS = np.array([3, 11, 0, 7, 1, 10, 4])


def draw(rng: np.random.Generator, *shape: int, dtype: str = "float32") -> Any:
    return rng.standard_normal(shape).astype(dtype)


def train(layer: Any, x: Any, dy: Any, state: Any = None, **control: Any) -> tuple[Any, ...]:
    """y, state and gradients of one training call."""
    y, last, tape = layer.forward(x, state, **control)
    return y, last, layer.backward(tape, dy)


# -- one call or several ---------------------------------------------------------------------------------------------


@cells
@dtypes
def test_pieces_equal_the_whole(system: System, cell: str, dtype: str, rng: np.random.Generator) -> None:
    layer = make_layer(cell, I, H, 2, dtype=dtype)
    x = draw(rng, 300, N, I, dtype=dtype)
    y, last = layer(x)
    state = None
    start = 0
    for stop in (1, 3, 8, 40, 40, 300):
        piece, state = layer(x[start:stop], state)
        system.same(piece, y[start:stop])
        start = stop
    for got, want in zip(parts(state), parts(last), strict=True):
        system.same(got, want)


@cells
@pytest.mark.smoke
def test_stream_equals_the_whole(system: System, cell: str, rng: np.random.Generator) -> None:
    layer = make_layer(cell, I, H, 2)
    x = draw(rng, T, N, I)
    y, last = layer(x)
    stream = layer.stream(batch_size=N)
    out = np.empty((N, H), np.float32)
    for t in range(T):
        got = stream.step(x[t], out=out if t % 2 else None)
        assert got is out or not t % 2
        system.same(got, y[t])
    for got, want in zip(parts(stream.state), parts(last), strict=True):
        system.same(got, want)
    stream.reset(rows=[1, 4])
    fresh = layer(x[:1])[0][0]
    carried = layer(x[:1], last)[0][0]
    got = stream.step(x[0])
    system.same(got[[1, 4]], fresh[[1, 4]])
    system.same(got[[0, 2, 3]], carried[[0, 2, 3]])
    stream.reset()
    system.same(stream.step(x[0]), fresh)


def test_stream_follows_changed_weights(system: System, rng: np.random.Generator) -> None:
    layer = make_layer("gru_after", I, H)
    stream = layer.stream(batch_size=2)
    x = draw(rng, 2, 2, I)
    first = stream.step(x[0])
    before = [part.copy() for part in parts(stream.state)]
    with layer.edit() as weights:
        weights["weight_hh_l0"] *= 2
    second = stream.step(x[1])
    want = layer(x[1:], before[0])[0][0]
    system.same(second, want)
    assert not np.array_equal(first, second)


@cells
def test_training_and_inference_agree(system: System, cell: str, rng: np.random.Generator) -> None:
    """y of `forward` may differ from y of a plain call in the last bits, not more."""
    layer = make_layer(cell, I, H, 2, bidirectional=True)
    x = draw(rng, T, N, I)
    y, last = layer(x, lengths=LENGTHS)
    trained, trained_last, _ = layer.forward(x, lengths=LENGTHS)
    np.testing.assert_allclose(trained, y, rtol=0, atol=1e-6)
    for got, want in zip(parts(trained_last), parts(last), strict=True):
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-6)


@cells
def test_given_memory_changes_nothing(system: System, cell: str, rng: np.random.Generator) -> None:
    """`out=` and a reused tape give what new memory gives."""
    layer = make_layer(cell, I, H)
    x, dy = draw(rng, T, N, I), draw(rng, T, N, H)
    y, _ = layer(x)
    out = np.full_like(y, np.nan)
    assert layer(x, out=out)[0] is out
    system.same(out, y)
    y, _, tape = layer.forward(x)
    want, wanted = y.copy(), layer.backward(tape, dy)
    y, _, tape = layer.forward(x, tape=tape)
    got = layer.backward(tape, dy)
    system.same(y, want)
    system.same(got.x, wanted.x)
    system.same(got.weights["weight_hh_l0"], wanted.weights["weight_hh_l0"])


# -- rows are independent --------------------------------------------------------------------------------------------


@cells
@dtypes
def test_a_row_does_not_depend_on_its_mates(system: System, cell: str, dtype: str, rng: np.random.Generator) -> None:
    layer = make_layer(cell, I, H, 2, bidirectional=True, dtype=dtype)
    x, dy = draw(rng, T, N, I, dtype=dtype), draw(rng, T, N, 2 * H, dtype=dtype)
    plain, _ = layer(x)
    y, last, gradients = train(layer, x, dy)
    for rows in ([3], [5, 1], [6, 5, 4, 3, 2, 1, 0], [0, 0, 1, 2, 3, 4, 5, 6, 6]):
        system.same(layer(x[:, rows])[0], plain[:, rows])
        got_y, got_last, got = train(layer, x[:, rows], dy[:, rows])
        system.same(got_y, y[:, rows])
        system.same(got.x, gradients.x[:, rows])
        for some, all_rows in zip(parts(got_last), parts(last), strict=True):
            system.same(some, all_rows[:, rows])
        for some, all_rows in zip(parts(got.state), parts(gradients.state), strict=True):
            system.same(some, all_rows[:, rows])


@cells
@pytest.mark.parametrize("inputs", [3, 20], ids=["narrow", "projected"])
@pytest.mark.parametrize("hidden", [1, 15, 16, 17, 32, 33, 64, 65, 272])
def test_one_row_is_a_row_of_many(
    system: System, cell: str, hidden: int, inputs: int, rng: np.random.Generator
) -> None:
    """One row has kernels of its own (all steps at once, one panel, two): the bits are those of a batch."""
    if system.backend != "cpp" and hidden > 33:
        pytest.skip("kernels by size are the compiled backend's")
    check_rows_one_by_one(system, make_layer(cell, inputs, hidden), rng)


def test_one_row_of_a_wide_rnn(system: System, rng: np.random.Generator) -> None:
    """The RNN's panels are four vectors wide, and go by twos from 16 of them."""
    if system.backend != "cpp":
        pytest.skip("kernels by size are the compiled backend's")
    check_rows_one_by_one(system, make_layer("rnn_tanh", 20, 1030), rng)


def check_rows_one_by_one(system: System, layer: Any, rng: np.random.Generator) -> None:
    x, dy = draw(rng, T, 4, layer.input_size), draw(rng, T, 4, layer.hidden_size)
    reset, mask = rng.random((T, 4)) < 0.2, rng.random((T, 4)) < 0.7
    for options in ({}, {"reset": reset, "mask": mask}):
        plain, _ = layer(x, **options)
        y, _, gradients = train(layer, x, dy, **options)
        for n in range(4):
            one = slice(n, n + 1)
            mine = {name: np.ascontiguousarray(value[:, one]) for name, value in options.items()}
            system.same(layer(x[:, one], **mine)[0], plain[:, one])
            got, _, alone = train(layer, x[:, one], dy[:, one], **mine)
            system.same(got, y[:, one])
            system.same(alone.x, gradients.x[:, one])
            stream = layer.stream()
            if not options:
                for t in range(T):
                    system.same(stream.step(x[t, one]), plain[t, one])


@cells
@pytest.mark.smoke
def test_ragged_equals_row_by_row(system: System, cell: str, rng: np.random.Generator) -> None:
    layer = make_layer(cell, I, H, 2, bidirectional=True)
    x, dy = draw(rng, T, N, I), draw(rng, T, N, 2 * H)
    plain, plain_last = layer(x, lengths=LENGTHS)
    y, _, gradients = train(layer, x, dy, lengths=LENGTHS)
    for n, length in enumerate(LENGTHS):
        alone, alone_last = layer(x[:length, n : n + 1])
        system.same(plain[:length, n : n + 1], alone)
        for got, want in zip(parts(plain_last), parts(alone_last), strict=True):
            system.same(got[:, n : n + 1], want)
        alone, _, alone_gradients = train(layer, x[:length, n : n + 1], dy[:length, n : n + 1])
        system.same(y[:length, n : n + 1], alone)
        system.same(gradients.x[:length, n : n + 1], alone_gradients.x)
        assert not y[length:, n].any()
        assert not gradients.x[length:, n].any()


@cells
def test_garbage_in_padding_is_not_read(system: System, cell: str, rng: np.random.Generator) -> None:
    layer = make_layer(cell, I, H, 2, bidirectional=True)
    x, dy = draw(rng, T, N, I), draw(rng, T, N, 2 * H)
    y, _, gradients = train(layer, x, dy, lengths=LENGTHS)
    padded = np.arange(T)[:, None] >= LENGTHS
    dirty, dirty_dy = x.copy(), dy.copy()
    dirty[padded] = np.nan
    dirty_dy[padded] = np.inf
    reset = padded.copy()  # entries beyond lengths mean nothing
    got_y, last, got = train(layer, dirty, dirty_dy, lengths=LENGTHS, reset=reset, mask=~padded)
    np.testing.assert_allclose(got_y, y, atol=1e-6)
    np.testing.assert_allclose(got.x, gradients.x, atol=1e-5)
    for name, gradient in got.weights.items():
        assert np.isfinite(gradient).all(), name
        np.testing.assert_allclose(gradient, gradients.weights[name], atol=1e-4)
    assert all(np.isfinite(part).all() for part in parts(last))
    plain, _ = layer(dirty, lengths=LENGTHS)
    assert np.isfinite(plain).all()


# -- NaN, infinity, very small numbers -------------------------------------------------------------------------------


@cells
def test_nan_stays_in_its_row(system: System, cell: str, rng: np.random.Generator) -> None:
    layer = make_layer(cell, I, H)
    x, dy = draw(rng, T, N, I), draw(rng, T, N, H)
    y, _, gradients = train(layer, x, dy)
    plain, _ = layer(x)
    x[4, 2, 0] = np.nan
    others = [0, 1, 3, 4, 5, 6]
    got, last, got_gradients = train(layer, x, dy)
    got_plain, _ = layer(x)
    for result, want in ((got, y), (got_plain, plain)):
        system.same(result[:, others], want[:, others])
        system.same(result[:4, 2], want[:4, 2])
        assert np.isnan(result[4:, 2]).all()
    system.same(got_gradients.x[:, others], gradients.x[:, others])
    for part in parts(last):
        assert np.isnan(part[:, 2]).all()
        assert np.isfinite(part[:, others]).all()


@cells
def test_a_reset_ends_nan_and_infinity(system: System, cell: str, rng: np.random.Generator) -> None:
    """A zeroed state is zero, not NaN times zero; the same for the gradient that would cross the reset."""
    layer = make_layer(cell, I, H)
    x, dy = draw(rng, 6, 2, I), draw(rng, 6, 2, H)
    reset = np.zeros((6, 2), bool)
    reset[3, 0] = True
    y, _, gradients = train(layer, x, dy, reset=reset)
    for bad in (np.nan, np.inf):
        dirty = x.copy()
        dirty[2, 0] = bad
        got, _, _ = train(layer, dirty, dy, reset=reset)
        system.same(got[3:], y[3:])
        system.same(layer(dirty, reset=reset)[0][3:], layer(x, reset=reset)[0][3:])
        dirty_dy = dy.copy()
        dirty_dy[4, 0] = bad
        got_gradients = train(layer, x, dirty_dy, reset=reset)[2]
        system.same(got_gradients.x[:3, 0], gradients.x[:3, 0])
        assert not np.isfinite(got_gradients.x[4, 0]).all()


@cells
@dtypes
def test_infinite_input_is_what_arithmetic_says(
    system: System, cell: str, dtype: str, rng: np.random.Generator
) -> None:
    """One infinite feature saturates the gates; NaN appears exactly where the reference has it."""
    layer = make_layer(cell, I, H, dtype=dtype)
    x = draw(rng, 3, 4, I, dtype=dtype)
    x[1, 0, 2] = np.inf
    x[0, 1, 3] = -np.inf
    x[2, 2] = 1e30
    got, _ = layer(x)
    with fastrnn.backend("numpy"), np.errstate(all="ignore"):
        want, _ = layer(x)
    assert np.array_equal(np.isnan(got), np.isnan(want))
    finite = np.isfinite(want)
    assert np.array_equal(got[~finite], want[~finite], equal_nan=True)
    np.testing.assert_allclose(got[finite], want[finite], rtol=2e-6, atol=2e-6)


@cells
@dtypes
def test_large_arguments_saturate(system: System, cell: str, dtype: str) -> None:
    """Pre-activations far outside the range of exp give the limits of the functions, not overflow."""
    layer = make_layer(cell, 1, H, dtype=dtype)
    x = np.array([1e4, -1e4, 90.0, -90.0, 700.0, -750.0, 1e30, -1e30], dtype)[None, :, None]
    y, last = layer(x)
    assert np.isfinite(y).all()
    if cell != "rnn_relu":
        assert np.abs(y).max() <= 1
    assert all(np.isfinite(part).all() for part in parts(last))


@dtypes
@pytest.mark.parametrize("cell", ["rnn_tanh", "rnn_relu", "lstm"])
@pytest.mark.smoke
def test_decay_through_subnormals(system: System, cell: str, dtype: str) -> None:
    """A state that halves every step passes the subnormal range; the caller's floating-point mode survives the call."""
    small = np.dtype(dtype).type(1e-40 if dtype == "float32" else 1e-310)
    one = np.dtype(dtype).type(1)
    assert small * one == small, "the mode was changed before this test"
    layer = make_layer(cell, 3, H, dtype=dtype)
    with layer.edit() as weights:
        for name in weights:
            weights[name] *= 0
        gates = weights["weight_hh_l0"].shape[0] // H
        if gates == 1:
            weights["weight_hh_l0"] += np.eye(H, dtype=dtype) / 2
    steps = 1200
    x = np.zeros((steps, 2, 3), dtype)
    start = np.ones((1, 2, H), dtype)
    state = (start, start) if cell == "lstm" else start
    y, _ = layer(x, state)
    assert np.isfinite(y).all()
    assert (np.abs(y[-1]) < np.finfo(dtype).tiny).all()
    assert small * one == small, "inference left another floating-point mode"
    y, _, tape = layer.forward(x, state)
    gradients = layer.backward(tape, np.ones_like(y))
    assert np.isfinite(gradients.x).all()
    assert np.isfinite(parts(gradients.state)[0]).all()
    assert small * one == small, "training left another floating-point mode"


# -- time ------------------------------------------------------------------------------------------------------------


def flipped(x: Any, lengths: Any) -> Any:
    """Each row's own steps in reverse order, padding where it was."""
    out = x.copy()
    for n, length in enumerate(lengths):
        out[:length, n] = x[:length, n][::-1]
    return out


@cells
@pytest.mark.parametrize("ragged", [False, True])
def test_reverse_direction_is_forward_on_reversed_time(
    system: System, cell: str, ragged: bool, rng: np.random.Generator
) -> None:
    both = make_layer(cell, I, H, bidirectional=True)
    one = make_layer(cell, I, H)
    weights = both.state_dict()
    one.load_state_dict({name: weights[f"{name}_reverse"] for name in one.state_dict()})
    lengths = LENGTHS if ragged else np.full(N, T)
    control = {"lengths": lengths} if ragged else {}
    x, dy = draw(rng, T, N, I), draw(rng, T, N, 2 * H)
    dy[..., :H] = 0
    y, last, gradients = train(both, x, dy, **control)
    want, want_last, want_gradients = train(one, flipped(x, lengths), flipped(dy[..., H:], lengths), **control)
    system.same(y[..., H:], flipped(want, lengths))
    for got, expected in zip(parts(last), parts(want_last), strict=True):
        system.same(got[1:], expected)
    np.testing.assert_allclose(gradients.x, flipped(want_gradients.x, lengths), atol=1e-6)
    for name, gradient in want_gradients.weights.items():
        np.testing.assert_allclose(gradients.weights[f"{name}_reverse"], gradient, atol=2e-5)
    plain, _ = both(x, **control)
    system.same(plain[..., H:], flipped(one(flipped(x, lengths), **control)[0], lengths))


@cells
@pytest.mark.parametrize("bidirectional", [False, True])
def test_reset_equals_cutting(system: System, cell: str, bidirectional: bool, rng: np.random.Generator) -> None:
    layer = make_layer(cell, I, H, 1, bidirectional=bidirectional)
    width = H * (1 + bidirectional)
    x, dy = draw(rng, T, N, I), draw(rng, T, N, width)
    reset = np.zeros((T, N), bool)
    cuts = (0, 4, 5, T)
    reset[list(cuts[1:-1])] = True
    y, _, gradients = train(layer, x, dy, reset=reset)
    plain, _ = layer(x, reset=reset)
    weights = {name: np.zeros(gradient.shape) for name, gradient in gradients.weights.items()}
    for start, stop in pairwise(cuts):
        piece, _, piece_gradients = train(layer, x[start:stop], dy[start:stop])
        system.same(y[start:stop], piece)
        system.same(plain[start:stop], layer(x[start:stop])[0])
        system.same(gradients.x[start:stop], piece_gradients.x)
        for name, gradient in piece_gradients.weights.items():
            weights[name] += gradient
    for name, total in weights.items():
        np.testing.assert_allclose(gradients.weights[name], total, atol=2e-5)


@cells
def test_first_reset_drops_the_given_state(system: System, cell: str, rng: np.random.Generator) -> None:
    """reset[0] acts on the forward direction only: the reverse direction starts at the other end."""
    layer = make_layer(cell, I, H, bidirectional=True)
    x = draw(rng, T, 2, I)
    given = layer(draw(rng, 1, 2, I))[1]
    reset = np.zeros((T, 2), bool)
    reset[0] = True
    y, _ = layer(x, given, reset=reset)
    system.same(y[..., :H], layer(x)[0][..., :H])
    system.same(y[..., H:], layer(x, given)[0][..., H:])


@cells
def test_masked_steps_do_not_happen(system: System, cell: str, rng: np.random.Generator) -> None:
    """Leaving the masked steps out gives the outputs of the others and the same last state."""
    layer = make_layer(cell, I, H, bidirectional=True)
    x = draw(rng, T, 1, I)
    mask = np.ones((T, 1), bool)
    mask[[0, 3, 4, 10]] = False
    y, last = layer(x, mask=mask)
    kept = mask[:, 0]
    want, want_last = layer(x[kept])
    system.same(y[kept], want)
    for got, expected in zip(parts(last), parts(want_last), strict=True):
        system.same(got, expected)
    system.same(y[3, :, :H], y[2, :, :H])
    system.same(y[3, :, H:], y[5, :, H:])
    assert not y[0, :, :H].any(), "a hole before the first step outputs the initial state"


@cells
def test_no_steps_and_no_rows(system: System, cell: str, rng: np.random.Generator) -> None:
    layer = make_layer(cell, I, H, 2, bidirectional=True)
    given = layer(draw(rng, 2, N, I))[1]
    y, last = layer(np.empty((0, N, I), np.float32), given)
    assert y.shape == (0, N, 2 * H)
    for got, want in zip(parts(last), parts(given), strict=True):
        assert np.array_equal(got, want)
    assert not parts(layer(np.empty((0, N, I), np.float32))[1])[0].any()
    for x in (np.empty((0, N, I), np.float32), np.empty((3, 0, I), np.float32)):
        y, last, tape = layer.forward(x)
        gradients = layer.backward(tape, np.empty_like(y))
        assert gradients.x.shape == x.shape
        assert all(not gradient.any() for gradient in gradients.weights.values())
        assert parts(last)[0].shape == (4, x.shape[1], H)


# -- shapes of the arguments -----------------------------------------------------------------------------------------


@cells
@pytest.mark.smoke
def test_unbatched_and_batch_first_are_views_of_the_same(system: System, cell: str, rng: np.random.Generator) -> None:
    layer = make_layer(cell, I, H, 2, bidirectional=True)
    first = make_layer(cell, I, H, 2, bidirectional=True, batch_first=True)
    first.load_state_dict(layer.state_dict())
    x, dy = draw(rng, T, N, I), draw(rng, T, N, 2 * H)
    reset, mask = rng.random((T, N)) < 0.2, rng.random((T, N)) < 0.8
    control = {"lengths": LENGTHS, "reset": reset, "mask": mask}
    swapped = {"lengths": LENGTHS, "reset": reset.T, "mask": mask.T}
    y, last, gradients = train(layer, x, dy, **control)
    got_y, got_last, got = train(first, x.swapaxes(0, 1), np.ascontiguousarray(dy.swapaxes(0, 1)), **swapped)
    system.same(got_y.swapaxes(0, 1), y)
    system.same(got.x.swapaxes(0, 1), gradients.x)
    system.same(parts(got_last)[0], parts(last)[0])
    y, last, gradients = train(layer, x[:, 3], dy[:, 3], reset=reset[:, 3], mask=mask[:, 3])
    want_y, want_last, want = train(layer, x[:, 3:4], dy[:, 3:4], reset=reset[:, 3:4], mask=mask[:, 3:4])
    assert y.shape == (T, 2 * H)
    assert parts(last)[0].shape == (4, H)
    system.same(y, want_y[:, 0])
    system.same(parts(last)[0], parts(want_last)[0][:, 0])
    system.same(gradients.x, want.x[:, 0])


@pytest.mark.smoke
def test_y_is_writable_only_without_a_tape(system: System, rng: np.random.Generator) -> None:
    layer = make_layer("lstm", I, H)
    x = draw(rng, 2, 2, I)
    assert layer(x)[0].flags.writeable
    y, state, _ = layer.forward(x)
    assert not y.flags.writeable
    assert all(part.flags.writeable for part in state)


def test_dropout_is_seeded(system: System, rng: np.random.Generator) -> None:
    """The mask comes from the layer's generator, drops in training only, and backward uses the same one."""
    x, dy = draw(rng, T, N, I), draw(rng, T, N, H)
    runs = []
    for seed in (3, 3, 4):
        layer = make_layer("lstm", I, H, 2, dropout=0.5, rng=seed)
        layer.load_state_dict(make_layer("lstm", I, H, 2).state_dict())
        runs.append((layer(x)[0], *train(layer, x, dy)))
    plain = make_layer("lstm", I, H, 2)(x)[0]
    assert all(np.array_equal(run[0], plain) for run in runs), "a plain call drops"
    assert np.array_equal(runs[0][1], runs[1][1])
    assert np.array_equal(runs[0][3].x, runs[1][3].x)
    assert not np.array_equal(runs[0][1], runs[2][1])


# -- threads and processes -------------------------------------------------------------------------------------------


@cells
def test_results_do_not_depend_on_threads(system: System, cell: str, rng: np.random.Generator) -> None:
    hidden = 96 if system.backend == "cpp" else 5  # enough work to split; the twins have one thread
    layer = make_layer(cell, 32, hidden, 2, bidirectional=True)
    x, dy = draw(rng, 6, 40, 32), draw(rng, 6, 40, 2 * hidden)
    before = fastrnn.get_num_threads()
    results = []
    try:
        for count in (1, 2, 3):
            fastrnn.set_num_threads(count)
            y, last, gradients = train(layer, x, dy)
            results.append((layer(x)[0], y, *parts(last), gradients.x, *gradients.weights.values()))
    finally:
        fastrnn.set_num_threads(before)
    for other in results[1:]:
        for got, want in zip(other, results[0], strict=True):
            assert np.array_equal(got, want)


def test_one_layer_in_many_threads(system: System, rng: np.random.Generator) -> None:
    layer = make_layer("lstm", I, H, 2)
    xs = [draw(rng, T, n, I) for n in (1, 5, 7, 13) * 3]
    dys = [draw(rng, T, x.shape[1], H) for x in xs]
    want = [(layer(x)[0], train(layer, x, dy)) for x, dy in zip(xs, dys, strict=True)]

    def work(k: int) -> bool:
        plain, (y, _, gradients) = want[k]
        with fastrnn.backend(system.backend):  # the choice belongs to a thread
            got, got_plain = train(layer, xs[k], dys[k]), layer(xs[k])[0]
        return (
            np.array_equal(got_plain, plain)
            and np.array_equal(got[0], y)
            and np.array_equal(got[2].x, gradients.x)
            and np.array_equal(got[2].weights["weight_ih_l0"], gradients.weights["weight_ih_l0"])
        )

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, list(range(len(xs))) * 4))


FORK = """
import os, sys, warnings
warnings.simplefilter("ignore")
import numpy as np
import fastrnn
fastrnn.set_num_threads(2)
with fastrnn.backend(sys.argv[1]):
    layer = fastrnn.LSTM(16, 64, 2, rng=0)
    x = np.random.default_rng(0).standard_normal((8, 40, 16)).astype(np.float32)
    want = layer(x)[0]
    child = os.fork()
    if child == 0:
        os._exit(0 if np.array_equal(layer(x)[0], want) else 3)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    sys.exit(code or not np.array_equal(layer(x)[0], want))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.parametrize("backend", ["numpy", "numba", "cpp"])
def test_a_forked_child_computes(backend: str) -> None:
    if backend != "numpy":
        pytest.importorskip(f"fastrnn.backends._{'core' if backend == 'cpp' else 'numba'}")
    done = subprocess.run(
        [sys.executable, "-c", FORK, backend], timeout=60, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
