"""The short way of small calls: the same bits as the general way, the same refusals, no memory of its own."""

from __future__ import annotations

import pickle
import sys
import threading
import tracemalloc
from typing import Any

import numpy as np
import pytest

import fastrnn
from conftest import make_layer, parts
from fastrnn import functional
from problems import CELLS

_core = pytest.importorskip("fastrnn.backends._core", reason="the compiled backend is not built")

I, H = 5, 6  # noqa: E741 - the letters of the shapes
SHAPES = [(1, 1), (3, 1), (1, 2), (3, 2), (2, 2)]  # T, N
Arrays = list[np.ndarray[Any, Any]]


def draw(*shape: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def spread(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The same values at strides that only the general way takes."""
    wide = np.zeros((*array.shape[:-1], 2 * array.shape[-1]), array.dtype)
    wide[..., ::2] = array
    return wide[..., ::2]


def small(layer: Any, x: Any, state: Any = None, out: Any = None) -> Any:
    """What the short way says, with no general way behind it."""
    return layer._bind().infer_small(x, state, None, None, None, out, layer.batch_first)


@pytest.mark.parametrize("options", [{}, {"batch_first": True}, {"num_layers": 2, "bidirectional": True}], ids=str)
@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize(("steps", "batch"), SHAPES)
@pytest.mark.parametrize("cell", list(CELLS))
def test_the_same_bits_either_way(cell: str, steps: int, batch: int, batched: bool, options: dict[str, Any]) -> None:
    layer = make_layer(cell, I, H, **options)
    first, second = (batch, steps) if layer.batch_first else (steps, batch)
    x = draw(first, second, I) if batched else draw(steps, I)
    rows = layer.num_layers * (1 + layer.bidirectional)
    h, c = (
        draw(rows, batch, H) if batched else draw(rows, H),
        draw(rows, batch, H) / 2 if batched else draw(rows, H) / 2,
    )
    given = (h, c) if cell == "lstm" else h
    for state in (None, given):
        want_y, want = layer(spread(x), state)
        assert small(layer, spread(x), state) is None
        out = np.empty_like(want_y, order="C")
        for target in (None, out):
            y, last = small(layer, x, state, target)
            assert target is None or y is target
            for got, expected in zip([y, *parts(last)], [want_y, *parts(want)], strict=True):
                assert got.shape == expected.shape
                np.testing.assert_array_equal(got, expected)
                assert got.flags.c_contiguous
                assert got.flags.writeable


def test_what_is_not_ordinary_goes_the_general_way() -> None:
    layer = make_layer("lstm", I, H)
    x, h = draw(2, 1, I), draw(1, 1, H)

    class Sub(np.ndarray[Any, Any]):
        pass

    unaligned = np.frombuffer(b"\0" + x.tobytes(), np.uint8)[1:].view(np.float32).reshape(x.shape)
    assert not unaligned.flags.aligned
    for odd in (
        x.tolist(),
        x.astype(np.float64),
        x.astype(">f4"),
        x.view(Sub),
        unaligned,
        spread(x),
        x[:0],
        x[..., :4],
    ):
        assert small(layer, odd) is None
    for state in (h, [h, h], (h, h, h), (h, None), (h, spread(h)), (h, h[0]), (h.astype(np.float64), h)):
        assert small(layer, x, state) is None
    frozen = np.empty((2, 1, H), np.float32)
    frozen.flags.writeable = False
    for out in (frozen, np.empty((2, H), np.float32), np.empty((2, 1, H)), [], spread(np.empty((2, 1, H), np.float32))):
        assert small(layer, x, None, out) is None
    assert small(layer, draw(2000, 100, I)) is None  # work enough to give the GIL away
    assert layer._bind().infer_small(x, None, [1], None, None, None, False) is None
    with pytest.raises(TypeError, match="packed is a dict"):
        functional.infer({}, x)  # type: ignore[arg-type]


def test_out_that_overlaps_is_refused_before_it_is_written() -> None:
    layer = make_layer("gru_after", H, H)
    x, h = np.ones((2, 1, H), np.float32), np.ones((1, 1, H), np.float32)
    block = np.ones((3, 1, H), np.float32)
    for x_given, state, out in ((x, None, x), (block[:2], None, block[1:]), (x, block[1:2], block[:2])):
        with pytest.raises(ValueError, match="out shares memory with"):
            layer(x_given, state, out=out)
    stream = layer.stream()
    with pytest.raises(ValueError, match="out shares memory with x_t"):
        stream.step(x[0, 0], out=x[0, 0])
    for untouched in (x == 1, h == 1, block == 1, stream.state == 0):
        assert untouched.all()
    side = np.ones((4, 1, H), np.float32)  # neighbours, not overlapping
    np.testing.assert_array_equal(layer(side[:2], out=side[2:])[0], layer(x)[0])


@pytest.mark.parametrize("cell", list(CELLS))
def test_steps_either_way(cell: str) -> None:
    layer = make_layer(cell, I, H, 2)
    for batch, shape in ((1, (I,)), (1, (1, I)), (3, (3, I))):
        quick, general = layer.stream(batch), layer.stream(batch)
        for t in range(4):
            x = draw(*shape) * t
            want = general.step(spread(x))
            got = quick.step(x, out=np.empty_like(want)) if t % 2 else quick.step(x)
            np.testing.assert_array_equal(got, want)
            for a, b in zip(parts(quick.state), parts(general.state), strict=True):
                np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(("size", "batch"), [(64, 1), (64, 4), (512, 1)])  # the last gives the GIL away
def test_a_step_into_out_makes_nothing(size: int, batch: int) -> None:
    stream = make_layer("lstm", size, size).stream(batch)
    x, out = draw(batch, size), np.empty((batch, size), np.float32)
    step = stream.step
    for _ in range(3):
        step(x, out=out)
    held, references = sys.getrefcount(x), sys.getrefcount(out)
    tracemalloc.start()
    try:
        step(x, out=out)
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(100):
            step(x, out=out)
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 64
    assert peak - before < 128  # an array header alone is 112 bytes, its dimensions and 256 bytes of data more
    assert (sys.getrefcount(x), sys.getrefcount(out)) == (held, references)


def test_many_threads_and_shapes_share_a_layer() -> None:
    layer = make_layer("lstm", I, H)
    inputs = [draw(steps, batch, I) for steps, batch in ((1, 1), (4, 2), (300, 70))]  # the last gives the GIL away
    wanted = [layer(x)[0] for x in inputs]
    wrong: list[int] = []

    def run(k: int) -> None:
        stream = layer.stream()
        for i in range(60):
            j = (i + k) % 3
            if not np.array_equal(layer(inputs[j])[0], wanted[j]):
                wrong.append(j)
            stream.reset()
            if not np.array_equal(stream.step(inputs[0][0]), wanted[0][0]):
                wrong.append(-1)

    threads = [threading.Thread(target=run, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_subclass_and_pickle() -> None:
    class Louder(fastrnn.GRU):
        def __call__(self, *args: Any, **options: Any) -> Any:
            y, state = super().__call__(*args, **options)
            return 2 * y, state

    layer, x = Louder(I, H, rng=0), draw(1, 1, I)
    plain = fastrnn.GRU(I, H, rng=0)
    np.testing.assert_array_equal(layer(x)[0], 2 * plain(x)[0])
    stream = plain.stream()
    stream.step(x[0])
    twin = pickle.loads(pickle.dumps(stream))
    np.testing.assert_array_equal(twin.step(x[0]), stream.step(x[0]))


def test_edit_keeps_what_others_hold_apart() -> None:
    layer, x = make_layer("rnn_tanh", I, H), draw(1, 1, I)
    with layer.edit() as weights:
        kept = weights.flat[3:]
        view = weights["weight_hh_l0"]
        view *= 0.5
    y = layer(x)[0]
    kept[...] = 9
    view[...] = 9
    np.testing.assert_array_equal(layer(x)[0], y)
    assert not (layer.weights.flat == 9).any()
    with layer.edit() as weights:
        weights.flat *= 2
    y = layer(x)[0]
    with pytest.raises(ValueError, match="read-only"):
        weights.flat[0] = 9
    with pytest.raises(ValueError, match="read-only"):
        weights["weight_hh_l0"] = np.zeros((H, H))
    np.testing.assert_array_equal(layer(x)[0], y)
    assert not layer.weights.flat.flags.writeable
