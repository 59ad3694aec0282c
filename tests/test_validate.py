"""Rules about arguments, taken one by one: what is converted, what is refused, and what the message says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastrnn
from fastrnn import _validate
from fastrnn._spec import Spec

SPEC = Spec("lstm", 3, 5, 2, bidirectional=True)
F4 = np.dtype(np.float32)


def zeros(*shape: int, dtype: Any = np.float32) -> Any:
    return np.zeros(shape, dtype)


# -- options -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [1, 7, np.int8(7), np.uint64(7), np.array(7)])
def test_positive_int(value: Any) -> None:
    got = _validate.positive_int("n", value)
    assert got == value
    assert type(got) is int


@pytest.mark.parametrize("value", [True, np.True_, 2.0, np.float64(2), "2", None, [2], 2j])
def test_not_an_integer(value: Any) -> None:
    with pytest.raises(TypeError, match=r"^n is .* it must be an integer$"):
        _validate.positive_int("n", value)


@pytest.mark.parametrize("value", [0, -3, np.int64(-3), -(2**80)])
def test_not_positive(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^n is -?\d+; it must be a positive integer$"):
        _validate.positive_int("n", value)


@pytest.mark.parametrize("value", [np.float32, "float32", "f4", "<f4", np.dtype("f4"), float, "d", np.double])
def test_dtype(value: Any) -> None:
    assert _validate.dtype_name(value) == np.dtype(value).name


@pytest.mark.parametrize("value", [None, np.float16, ">f4", "f16", int, complex, "single float", 3, object(), np.bool_])
def test_other_dtypes(value: Any) -> None:
    with pytest.raises(TypeError, match=r"^dtype is .*; it must be float32 or float64$"):
        _validate.dtype_name(value)


def test_flags_and_fractions() -> None:
    assert _validate.flag("bias", np.True_) is True
    for value in (1, 0, None, "yes"):
        with pytest.raises(TypeError, match=r"bias is .* must be True or False"):
            _validate.flag("bias", value)
    assert [_validate.fraction("dropout", p) for p in (0, 1, 0.5, np.float32(0.5))] == [0.0, 1.0, 0.5, 0.5]
    for value in (-0.1, 1.1, np.nan, np.inf):
        with pytest.raises(ValueError, match=r"dropout is .* from 0 to 1"):
            _validate.fraction("dropout", value)
    for value in (True, "0.5", None, 0.5j):
        with pytest.raises(TypeError, match=r"dropout is .* from 0 to 1"):
            _validate.fraction("dropout", value)


def test_generator() -> None:
    own = np.random.default_rng(1)
    assert _validate.generator(own) is own
    assert _validate.generator(np.uint8(1)).random() == np.random.default_rng(1).random()
    assert _validate.generator(None).random() != _validate.generator(None).random()
    for value in (True, 1.0, "1", np.random.RandomState(1), [1]):
        with pytest.raises(TypeError, match=r"rng is .* numpy\.random\.Generator"):
            _validate.generator(value)
    with pytest.raises(ValueError, match="rng is -1"):
        _validate.generator(-1)


def test_sizes_are_counted_before_anything_is_made() -> None:
    assert _validate.sizes(SPEC) is SPEC
    for cell in ("rnn", "lstm", "gru"):
        for sizes in ((2**62, 1, 1), (1, 2**31, 1), (1, 2**30, 4), (2**40, 2**40, 2)):
            with pytest.raises(ValueError, match="more than this machine can address"):
                _validate.sizes(Spec(cell, *sizes))


def test_layers_are_bounded() -> None:
    assert _validate.sizes(Spec("rnn", 1, 1, 2**16)).num_layers == 2**16
    for layers in (2**16 + 1, 2**61, 10**30):
        with pytest.raises(ValueError, match="num_layers"):
            _validate.sizes(Spec("rnn", 1, 1, layers))


def test_the_count_is_that_of_the_spec(monkeypatch: pytest.MonkeyPatch) -> None:
    for cell in ("rnn", "lstm", "gru"):
        for both in (False, True):
            for bias in (False, True):
                spec = Spec(cell, 3, 5, 3, bias=bias, bidirectional=both)
                monkeypatch.setattr(_validate.sys, "maxsize", spec.weight_count * 8)
                _validate.sizes(spec)
                monkeypatch.setattr(_validate.sys, "maxsize", spec.weight_count * 8 - 1)
                with pytest.raises(ValueError, match=f"{spec.weight_count} weights"):
                    _validate.sizes(spec)


# -- arrays ------------------------------------------------------------------------------------------------------------


def test_an_array_that_fits_is_used_as_it_is() -> None:
    x = zeros(4, 2, 3)
    got, batched = _validate.sequence(SPEC, x, False)
    assert got is x
    assert batched
    got, _ = _validate.sequence(SPEC, zeros(2, 4, 3).swapaxes(0, 1), False)
    assert got.strides == (12, 48, 4), "any order of steps and rows, without a copy"
    base = zeros(2, 4, 3)
    got, _ = _validate.sequence(SPEC, base, True)
    assert got.shape == (4, 2, 3)
    assert np.shares_memory(got, base)
    got, batched = _validate.sequence(SPEC, base[0], True)
    assert (got.shape, batched) == ((4, 1, 3), False)
    wide = zeros(4, 2, 9)
    assert np.shares_memory(_validate.sequence(SPEC, wide[::2, :, 3:6], False)[0], wide)
    same = np.broadcast_to(zeros(3), (4, 2, 3))
    assert np.shares_memory(_validate.sequence(SPEC, same, False)[0], same), "a stride of 0 is a stride"


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x[::-1],
        lambda x: x[:, ::-1],
        lambda x: x[..., ::-1],
        lambda x: np.asfortranarray(x),
        lambda x: np.repeat(x, 2, axis=2)[..., ::2],
        lambda x: np.frombuffer(b"x" + x.tobytes(), np.uint8)[1:].view(np.float32).reshape(x.shape),
        lambda x: np.ndarray(x.shape, x.dtype, bytes(200), strides=(29, 13, 4)),
        lambda x: x.astype(">f4"),
        lambda x: x.astype(np.float16),
        lambda x: x.tolist(),
    ],
)
def test_other_arrays_are_copied(change: Any) -> None:
    x = np.arange(24, dtype=np.float32).reshape(4, 2, 3)
    odd = change(x)
    want = np.array(odd, np.float32)
    got, _ = _validate.sequence(SPEC, odd, False)
    assert np.array_equal(got, want.reshape(got.shape))
    assert _validate.fits(got)
    assert got.flags.aligned
    assert got.dtype == F4


def test_one_column_with_any_stride() -> None:
    """A last axis of size 1 may have any stride in NumPy, but not in a kernel."""
    spec = Spec("rnn", 1, 1)
    for shape in ((4, 2), (1, 1), (4, 1)):
        odd = np.lib.stride_tricks.as_strided(zeros(64), (*shape, 1), (8, 4, 20))
        got, _ = _validate.sequence(spec, odd, False)
        assert got.strides[2] == 4


@pytest.mark.parametrize("value", [1j, "a", None, object(), {}, np.datetime64("2020"), b"a", [None]])
def test_what_is_not_a_real_number(value: Any) -> None:
    with pytest.raises(TypeError, match=r"^x (has dtype|is a)"):
        _validate.real_array("x", value, F4)


def test_arrays_that_cannot_be_read() -> None:
    class Broken:
        def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
            message = "not now"
            raise RuntimeError(message)

    with pytest.raises(TypeError, match="x is a Broken that is no array of numbers: not now"):
        _validate.real_array("x", Broken(), F4)
    with pytest.raises(ValueError, match="x is a list that is no array of numbers"):
        _validate.real_array("x", [[1.0], [1.0, 2.0]], F4)
    with pytest.raises(TypeError, match="x is a masked array"):
        _validate.real_array("x", np.ma.masked_array([1.0, 2.0], [True, False]), F4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: _validate.sequence(SPEC, zeros(4, 2, 4), False),
            "x has shape (4, 2, 4); it must be (T, N, input_size)",
        ),
        (
            lambda: _validate.sequence(SPEC, zeros(4, 2, 4), True),
            "x has shape (4, 2, 4); it must be (N, T, input_size)",
        ),
        (lambda: _validate.sequence(SPEC, zeros(4, 4), True), "x has shape (4, 4); it must be"),
        (lambda: _validate.sequence(SPEC, zeros(3), False), "where input_size is 3"),
        (
            lambda: _validate.state("state", (zeros(4, 2, 5), zeros(4, 2, 4)), SPEC, 2),
            "state[1] (c) has shape (4, 2, 4)",
        ),
        (lambda: _validate.state("state", (zeros(4, 5), zeros(4, 1, 5)), SPEC, 1, False), "(c) has shape (4, 1, 5)"),
        (
            lambda: _validate.state("state", zeros(2, 4, 2, 5), SPEC, 2),
            "state is a ndarray; for an LSTM it must be a pair",
        ),
        (lambda: _validate.state("state", [1], SPEC, 2), "state is a list of 1; for an LSTM it must be a pair (h, c)"),
        (lambda: _validate.lengths([1, 9], 4, 2, True), "lengths holds 9; every entry must be from 0 to T = 4"),
        (lambda: _validate.lengths([-1, 9], 4, 2, True), "lengths holds -1"),
        (lambda: _validate.lengths(np.uint64([2**64 - 1, 0]), 4, 2, True), "lengths holds 18446744073709551615"),
        (lambda: _validate.lengths([1.0, 2.0], 4, 2, True), "lengths has dtype float64; it must hold integers"),
        (lambda: _validate.lengths([True, False], 4, 2, True), "lengths has dtype bool"),
        (lambda: _validate.lengths([1], 4, 1, False), "lengths has shape (1,); it must be (), one integer"),
        (
            lambda: _validate.flags("mask", zeros(4, 2), 4, 2, True, False, False),
            "mask has dtype float32; it must be bool",
        ),
        (
            lambda: _validate.flags("mask", [[1, 0]] * 4, 4, 2, True, False, False),
            "mask has dtype int64; it must be bool",
        ),
        (
            lambda: _validate.flags("reset", zeros(4, 2, dtype=bool), 4, 2, True, True, False),
            "it must be (2, 4), (N, T)",
        ),
        (lambda: _validate.flags("reset", zeros(4, 1, dtype=bool), 4, 1, False, True, False), "it must be (4,), (T,)"),
        (lambda: _validate.output([0.0], F4, (1,)), "out is a list; it must be a NumPy array"),
        (lambda: _validate.output(zeros(1, dtype="f8"), F4, (1,)), "out has dtype float64; it must be float32"),
        (lambda: _validate.output(zeros(2), F4, (1,)), "out has shape (2,); it must be (1,)"),
        (lambda: _validate.output(np.broadcast_to(zeros(1), 2), F4, (2,)), "out is read-only"),
        (lambda: _validate.output(np.lib.stride_tricks.as_strided(zeros(1), (2,), (0,)), F4, (2,)), "out repeats"),
        (lambda: _validate.weight("bias_ih_l0", zeros(3), SPEC), "bias_ih_l0 has shape (3,); it must be (20,)"),
        (lambda: _validate.flat_weights(zeros(3), SPEC), "weights has shape (3,); it must be (1080,), or a mapping"),
        (lambda: _validate.spec_of_weights("gru", [1]), "weights is a list without weight_ih_l0"),
        (
            lambda: _validate.spec_of_weights("gru", {"weight_ih_l0": zeros(3), "weight_hh_l0": zeros(3, 1)}),
            "weight_ih_l0 and weight_hh_l0 have shapes (3,) and (3, 1)",
        ),
    ],
)
def test_messages(call: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError)) as caught:
        call()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_lengths() -> None:
    for given in (
        [3, 0],
        (3, 0),
        np.int8([3, 0]),
        np.uint64([3, 0]),
        np.array([3, 9, 0])[::2],
        np.array([3, 0], ">i2"),
    ):
        got = _validate.lengths(given, 4, 2, True)
        assert got.dtype == np.int64
        assert got.flags.c_contiguous
        assert got.tolist() == [3, 0]
    assert _validate.lengths(3, 4, 1, False).tolist() == [3]
    assert _validate.lengths([], 4, 0, True).shape == (0,)
    given = np.array([3, 0])
    assert _validate.lengths(given, 4, 2, True) is not given


def test_flags() -> None:
    given = np.arange(8).reshape(4, 2) % 3 == 0
    for layout, first in ((given, False), (given.T, True), (given.tolist(), False), (np.asfortranarray(given), False)):
        got = _validate.flags("mask", layout, 4, 2, True, first, False)
        assert got.flags.c_contiguous
        assert np.array_equal(got, given)
    assert _validate.flags("mask", given[:, 0], 4, 1, False, True, False).shape == (4, 1)
    assert not np.shares_memory(_validate.flags("mask", given, 4, 2, True, False, own=True), given)


def test_state() -> None:
    h, c = zeros(4, 2, 5), np.asfortranarray(zeros(4, 2, 5))
    got_h, got_c = _validate.state("state", [h, c], SPEC, 2)
    assert got_h is h
    assert got_c is not None
    assert got_c.flags.c_contiguous
    own, _ = _validate.state("state", (h, c), SPEC, 2, own=True)
    assert own is not None
    assert not np.shares_memory(own, h)
    assert _validate.state("state", None, SPEC, 2) == (None, None)


def test_overlap() -> None:
    base = zeros(4, 6)
    assert _validate.overlap(base[:3], base[2:])
    assert not _validate.overlap(base[:, :3], base[:, 3:])
    assert not _validate.overlap(base[:2], base[2:])
    with pytest.raises(ValueError, match="out shares memory with state; it must be an array of its own"):
        _validate.apart(base, ("x", None), ("state", base[1]))


def test_out_that_overlaps_an_input() -> None:
    lstm = fastrnn.LSTM(4, 4, rng=0)
    x, h = np.ones((3, 2, 4), np.float32), np.ones((1, 2, 4), np.float32)
    for name, out, state in (("x", x, None), ("state", (base := zeros(3, 2, 4)), (h, base[:1])), ("x", x[::-1], None)):
        with pytest.raises(ValueError, match=f"out shares memory with {name}"):
            lstm(x, state, out=out)
    assert (x == 1).all()


def test_spec_of_weights() -> None:
    for layer, own in (
        (fastrnn.LSTM(3, 5, 2, bias=False, bidirectional=True, dtype=np.float64), {}),
        (fastrnn.GRU(3, 5, 3, reset_after=False), {"reset_after": False}),
        (fastrnn.RNN(3, 5, nonlinearity="relu"), {"nonlinearity": "relu"}),
    ):
        assert _validate.spec_of_weights(layer._cell, layer.state_dict(), **own) == layer._spec
    integers = {"weight_ih_l0": np.ones((3, 2), int), "weight_hh_l0": np.ones((3, 1), int)}
    assert _validate.spec_of_weights("gru", integers).dtype_name == "float32"
    with pytest.raises(ValueError, match="nonlinearity"):
        _validate.spec_of_weights("rnn", integers, nonlinearity="sine")
