"""`fastrnn.sequences`: every layout against every other, against PyTorch, and in use by a layer."""

from __future__ import annotations

import doctest
from typing import Any

import numpy as np
import pytest

import fastrnn
from conftest import System, make_layer, parts, required
from fastrnn import _layouts
from fastrnn.sequences import (
    PackedSequence,
    Padded,
    Ragged,
    bucket_by_length,
    pack,
    pad,
    ragged,
    reverse,
    truncated,
    unpack,
    unpad,
    windows,
)

LENGTHS = [3, 0, 5, 1, 5, 2]


def rows(lengths: list[int] | None = None, rest: tuple[int, ...] = (3,), dtype: Any = "float32") -> list[Any]:
    """Arrays whose every element is different, so that none can take another's place."""
    found, start = [], 0
    for length in LENGTHS if lengths is None else lengths:
        size = length * int(np.prod(rest))
        found.append(np.arange(start, start + size).astype(dtype).reshape(length, *rest))
        start += size
    return found


def equal(got: list[Any], want: list[Any]) -> None:
    assert len(got) == len(want)
    for a, b in zip(got, want, strict=True):
        assert a.dtype == b.dtype
        assert np.array_equal(a, b)


# -- layouts ---------------------------------------------------------------------------------------------------------


@pytest.mark.smoke
def test_the_layouts_are_those_of_the_diagram() -> None:
    sequences = [np.array([0, 1, 2]), np.array([10]), np.array([20, 21])]
    data, lengths = pad(sequences, padding_value=-1)
    assert data.tolist() == [[0, 10, 20], [1, -1, 21], [2, -1, -1]]
    assert lengths.tolist() == [3, 1, 2]
    data, offsets = ragged(sequences)
    assert data.tolist() == [0, 1, 2, 10, 20, 21]
    assert offsets.tolist() == [0, 3, 4, 6]
    packed = pack(sequences)
    assert packed.data.tolist() == [0, 20, 10, 1, 21, 2]
    assert packed.batch_sizes.tolist() == [3, 2, 1]
    assert packed.sorted_indices is not None
    assert packed.unsorted_indices is not None
    assert packed.sorted_indices.tolist() == [0, 2, 1]
    assert packed.unsorted_indices.tolist() == [0, 2, 1]
    assert packed.lengths.tolist() == ragged(sequences).lengths.tolist() == [3, 1, 2]


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("lengths", [LENGTHS, [4, 4, 4], [5, 3, 3, 0], [0, 0], [0], [7], [1, 2, 3]])
@pytest.mark.parametrize("rest", [(), (3,), (2, 3), (0,)])
@pytest.mark.parametrize("dtype", ["float64", "int32", "bool"])
def test_every_way_round(batch_first: bool, lengths: list[int], rest: tuple[int, ...], dtype: str) -> None:
    want = rows(lengths, rest, dtype)
    padded = pad(want, batch_first=batch_first)
    assert padded.data.shape == ((len(want), max(lengths)) if batch_first else (max(lengths), len(want))) + rest
    for source in (want, padded, ragged(want), pack(want)):
        option = {"batch_first": batch_first}
        equal(unpack(pack(source, **option)), want)
        equal(unpack(ragged(source, **option)), want)
        again = pad(source, **option)
        assert np.array_equal(again.data, padded.data)
        assert again.lengths.tolist() == lengths
        equal(unpad(again, **option), want)
        equal(unpad(again.data, lengths, **option), want)
    equal(unpack(pack(padded.data, lengths, batch_first=batch_first)), want)
    equal(unpack(ragged(padded.data, lengths, batch_first=batch_first)), want)


def test_padding_is_what_was_asked_for() -> None:
    for source in (rows(), ragged(rows()), pack(rows())):
        data, lengths = pad(source, padding_value=-7.5, total_length=9)
        assert data.shape == (9, 6, 3)
        beyond = np.arange(9)[:, None] >= lengths
        assert (data[beyond] == -7.5).all()
        assert not (data[~beyond] == -7.5).any()
    assert np.isnan(pad(rows(), padding_value=np.nan).data[1, 1]).all()
    assert pad([[1, 2], [3]], padding_value=-100).data.tolist() == [[1, 3], [2, -100]]
    assert pad([[], []], total_length=0).data.shape == (0, 2)


def test_a_list_of_several_dtypes_takes_the_one_that_holds_them() -> None:
    mixed = [np.ones(2, np.float32), np.ones(1, np.float64)]
    assert pad(mixed).data.dtype == pack(mixed).data.dtype == ragged(mixed).data.dtype == np.float64


def test_what_needs_no_copy_is_a_view() -> None:
    padded = pad(rows())
    assert all(np.shares_memory(row, padded.data) for row in unpad(padded) if row.size)
    flat = ragged(rows())
    assert all(np.shares_memory(row, flat.data) for row in unpack(flat) if row.size)
    assert ragged(flat).data is flat.data
    full = pad(rows([4, 4, 4]))
    assert np.shares_memory(pack(full).data, full.data)
    full = pad(rows([4, 4, 4]), batch_first=True)
    assert np.shares_memory(ragged(full, batch_first=True).data, full.data)
    strided = np.zeros((8, 3, 6))[::2, :, ::3]  # rows that do not lie one after the other
    assert pack(strided, [4, 4, 4]).data.shape == (12, 2)


def test_inputs_stay_as_they_are() -> None:
    source = rows()
    copies = [row.copy() for row in source]
    flat, packed, padded = ragged(source), pack(source), pad(source)
    before = [part.copy() for part in (*flat, *packed, *padded)]
    for given in (source, flat, packed, padded):
        pack(given), ragged(given), pad(given)
    equal(source, copies)
    equal([*flat, *packed, *padded], before)


def test_a_slice_of_arrow_offsets() -> None:
    """Arrow's slices keep the whole data and take a part of the offsets."""
    want = rows()
    flat = ragged(want)
    part = Ragged(flat.data, flat.offsets[2:5])
    equal(unpack(part), want[2:4])
    equal(unpad(pad(part)), want[2:4])
    equal(unpack(pack(part)), want[2:4])


def test_one_index_is_enough() -> None:
    packed = pack(rows())
    for given in (packed._replace(sorted_indices=None), packed._replace(unsorted_indices=None)):
        equal(unpack(given), rows())


def test_enforce_sorted_has_no_indices() -> None:
    want = rows([5, 5, 2, 0])
    packed = pack(want, enforce_sorted=True)
    assert packed.sorted_indices is None
    assert packed.unsorted_indices is None
    equal(unpack(packed), want[:3])  # without indices, nothing tells of rows that have no step
    with pytest.raises(ValueError, match=r"lengths rises from 0 to 5 at 2"):
        pack(rows(), enforce_sorted=True)


def test_hypothesis_round_trips() -> None:
    hypothesis = pytest.importorskip("hypothesis")
    st = hypothesis.strategies

    @hypothesis.settings(max_examples=100, deadline=None, derandomize=True)
    @hypothesis.given(
        st.lists(st.integers(0, 9), min_size=1, max_size=12), st.integers(1, 3), st.booleans(),
        st.sampled_from(["float32", "int64"]),
    )  # fmt: skip
    def check(lengths: list[int], width: int, batch_first: bool, dtype: str) -> None:
        want = rows(lengths, (width,), dtype)
        padded = pad(want, batch_first=batch_first)
        packed, flat = pack(padded, batch_first=batch_first), ragged(padded, batch_first=batch_first)
        equal(unpack(packed), want)
        equal(unpack(flat), want)
        for other in (pack(want), pack(flat)):
            equal(list(other), list(packed))
        for again in (ragged(want), ragged(packed)):
            equal(list(again), list(flat))
        assert packed.lengths.tolist() == flat.lengths.tolist() == lengths

    check()


# -- PyTorch ---------------------------------------------------------------------------------------------------------


def pytorch() -> Any:
    if not required("torch"):
        pytest.importorskip("torch")
    import torch.nn.utils.rnn

    return torch


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("lengths", [[3, 6, 1, 4], [6, 4, 3, 1], [5, 5, 5], [1]])
def test_agrees_with_pytorch(batch_first: bool, lengths: list[int]) -> None:
    torch = pytorch()
    utils = torch.nn.utils.rnn
    ours = rows(lengths)
    theirs = [torch.from_numpy(row) for row in ours]
    padded = pad(ours, batch_first=batch_first, padding_value=2.5)
    want = utils.pad_sequence(theirs, batch_first, 2.5)
    assert np.array_equal(padded.data, want.numpy())
    for sort in (False, True):
        if sort and lengths != sorted(lengths, reverse=True):
            continue
        packed = pack(padded, batch_first=batch_first, enforce_sorted=sort)
        reference = utils.pack_padded_sequence(want, torch.tensor(lengths), batch_first, sort)
        for got, other in zip(packed, reference, strict=True):
            assert (got is None) == (other is None)
            if got is not None and (len(set(lengths)) == len(lengths) or got is packed.batch_sizes):
                assert np.array_equal(got, other.numpy())  # PyTorch orders rows of one length by chance
        equal(unpack(reference), ours)
        equal(unpack(pack(ours)), [row.numpy() for row in utils.unpack_sequence(utils.pack_sequence(theirs, False))])
        made = utils.PackedSequence(*(None if part is None else torch.from_numpy(part) for part in packed))
        back, found = utils.pad_packed_sequence(made, batch_first, 2.5, 8)
        again = pad(packed, batch_first=batch_first, padding_value=2.5, total_length=8)
        assert np.array_equal(again.data, back.numpy())
        assert again.lengths.tolist() == found.tolist() == lengths
    alone = utils.unpad_sequence(want, torch.tensor(lengths), batch_first)
    equal(unpad(padded, batch_first=batch_first), [row.numpy() for row in alone])


def test_a_layer_gives_what_pytorch_gives_on_the_packed_form() -> None:
    torch = pytorch()
    layer = make_layer("lstm", 3, 4, dtype="float64")
    other = torch.nn.LSTM(3, 4, dtype=torch.float64)
    other.load_state_dict({name: torch.from_numpy(value) for name, value in layer.state_dict().items()})
    sequences = [row / 20 for row in rows([2, 5, 1, 3], dtype="float64")]
    data, lengths = pad(sequences)
    got = pack(layer(data, lengths=lengths)[0], lengths)
    with torch.no_grad():
        want, _ = other(torch.nn.utils.rnn.pack_sequence([torch.from_numpy(row) for row in sequences], False))
    np.testing.assert_allclose(got.data, want.data.numpy(), rtol=0, atol=1e-13)


# -- batches of similar length ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 32, 33, 1000])
@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("pool", [1, 7, 100])
def test_an_epoch_has_every_row_once(count: int, shuffle: bool, pool: int, rng: np.random.Generator) -> None:
    lengths = rng.integers(0, 50, count)
    buckets = bucket_by_length(lengths, 32, shuffle=shuffle, pool=pool, rng=3)
    for _ in range(2):
        batches = list(buckets)
        assert len(batches) == len(buckets)
        assert sorted(int(k) for batch in batches for k in batch) == list(range(count))
        assert sum(len(batch) < 32 for batch in batches) <= 1
    kept = list(bucket_by_length(lengths, 32, shuffle=shuffle, pool=pool, drop_last=True, rng=3))
    assert [len(batch) for batch in kept] == [32] * (count // 32)
    assert len({int(k) for batch in kept for k in batch}) == count // 32 * 32


def test_epochs_differ_and_a_seed_repeats_them(rng: np.random.Generator) -> None:
    lengths = rng.permutation(640)  # all different: only the pools can tell epochs apart
    one, two = (bucket_by_length(lengths, 32, pool=5, rng=1) for _ in range(2))
    first, second = list(one), list(one)
    equal(list(two), first)
    equal(two.epoch(1), second)
    equal(one.epoch(0), first)
    assert {frozenset(batch.tolist()) for batch in first} != {frozenset(batch.tolist()) for batch in second}
    one.next_epoch = 0
    equal(list(one), first)
    other = bucket_by_length(lengths, 32, pool=5, rng=2).epoch(0)
    assert any(not np.array_equal(a, b) for a, b in zip(first, other, strict=True))
    generator = bucket_by_length(lengths, 32, rng=np.random.default_rng(1))
    equal(generator.epoch(0), generator.epoch(0))


def test_a_larger_pool_has_less_padding() -> None:
    """The figures of the docstring."""
    lengths = np.random.default_rng(0).integers(10, 201, 100_000)
    for pool, percent in ((1, 46.1), (10, 8.1), (100, 0.9), (1000, 0.1)):
        batches = bucket_by_length(lengths, 32, pool=pool, rng=0).epoch(0)
        padded = sum(int(lengths[batch].max()) * len(batch) for batch in batches)
        assert 100 * (1 - lengths.sum() / padded) == pytest.approx(percent, abs=0.1)


def test_batches_without_shuffling_rise() -> None:
    batches = list(bucket_by_length([5, 2, 9, 1, 7], 2, shuffle=False))
    assert [batch.tolist() for batch in batches] == [[3, 1], [0, 4], [2]]


# -- windows ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stride", [1, 3, 20])
@pytest.mark.parametrize("batch_first", [False, True])
def test_windows_are_views_of_the_series(stride: int, batch_first: bool) -> None:
    series = np.arange(60.0).reshape(20, 3)
    got = windows(series, 6, stride=stride, batch_first=batch_first)
    assert np.shares_memory(got, series)
    assert not got.flags.writeable
    want = np.stack([series[n : n + 6] for n in range(0, 15, stride)], axis=0 if batch_first else 1)
    assert np.array_equal(got, want)
    assert windows(series[:, 0], 6).shape == (6, 15)
    assert windows(series, 20).shape == (20, 1, 3)


def test_a_layer_reads_windows_without_a_copy(system: System, rng: np.random.Generator) -> None:
    series = rng.standard_normal((40, 3)).astype(np.float32)
    layer = make_layer("gru_after", 3, 5)
    view = windows(series, 8, stride=2)
    y, _, tape = layer.forward(view)
    assert np.shares_memory(tape.x, series)
    system.same(y, layer.forward(view.copy())[0])


# -- chunks ----------------------------------------------------------------------------------------------------------


def test_chunks_without_a_batch_axis() -> None:
    layer = make_layer("lstm", 3, 5)
    x = np.random.default_rng(0).standard_normal((10, 3)).astype(np.float32)
    chunks, found = truncated(x, steps=4, lengths=7), []
    for part, length in chunks:
        y, chunks.state = layer(part, chunks.state, lengths=length)
        found.append(y)
    np.testing.assert_allclose(np.concatenate(found), layer(x, lengths=7)[0], rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="lengths holds 11"):
        truncated(x, steps=4, lengths=11)


@pytest.mark.parametrize("cell", ["rnn_tanh", "lstm", "gru_after"])
@pytest.mark.parametrize("batch_first", [False, True])
def test_chunks_carry_the_state(system: System, cell: str, batch_first: bool, rng: np.random.Generator) -> None:
    layer = make_layer(cell, 3, 5, batch_first=batch_first)
    x = rng.standard_normal((6, 23, 3) if batch_first else (23, 6, 3)).astype(np.float32)
    lengths = np.array([23, 0, 7, 8, 22, 1])
    reset = rng.random(x.shape[:2]) < 0.1
    want, last = layer(x, lengths=lengths, reset=reset)
    chunks = truncated(x, reset, steps=7, lengths=lengths, batch_first=batch_first)
    assert len(chunks) == 4
    found = []
    for x_part, reset_part, lengths_part in chunks:
        assert np.shares_memory(x_part, x)
        y, chunks.state, _ = layer.forward(x_part, chunks.state, reset=reset_part, lengths=lengths_part)
        found.append(y)
    assert (chunks.start, chunks.stop, len(chunks)) == (21, 23, 0)
    assert next(chunks, None) is None
    plain = np.concatenate(found, axis=1 if batch_first else 0)
    np.testing.assert_allclose(plain, want, rtol=0, atol=1e-6)  # `forward` and a call differ in the last bits
    for got, other in zip(parts(chunks.state), parts(last), strict=True):
        np.testing.assert_allclose(got, other, rtol=0, atol=1e-6)


def test_gradients_stay_in_their_chunk(rng: np.random.Generator) -> None:
    """The gradient of a chunk is that of the chunk alone, from a state that is a constant."""
    layer = make_layer("lstm", 3, 5, dtype="float64")
    x = rng.standard_normal((9, 2, 3))
    state, chunks = None, truncated(x, steps=4)
    for (part,) in chunks:
        y, chunks.state, tape = layer.forward(part, chunks.state)
        got = layer.backward(tape, y)
        y, state, tape = layer.forward(x[chunks.start : chunks.stop].copy(), state)
        want = layer.backward(tape, y)
        assert np.array_equal(got.flat, want.flat)
        assert np.array_equal(got.x, want.x)


def test_unbatched_chunks(rng: np.random.Generator) -> None:
    layer = make_layer("gru_after", 3, 5)
    x = rng.standard_normal((10, 3)).astype(np.float32)
    found, chunks = [], truncated(x, steps=4)
    for (part,) in chunks:
        y, chunks.state = layer(part, chunks.state)
        found.append(y)
    np.testing.assert_allclose(np.concatenate(found), layer(x)[0], rtol=0, atol=1e-6)
    assert len(list(truncated(x[:0], steps=4))) == 0


def test_truncated_training_learns_a_text() -> None:
    """Next characters of Python's own documentation, in eight rows: the loss falls well below that of frequencies."""
    topics = pytest.importorskip("pydoc_data.topics").topics
    training = fastrnn.training
    text = "\n".join(topics[name] for name in sorted(topics))[: 8 * 601]
    alphabet = sorted(set(text))
    ids = np.array([alphabet.index(character) for character in text]).reshape(8, -1).T  # (601, 8)
    lstm = fastrnn.LSTM(16, 32, rng=0)
    table, head = training.Embedding(len(alphabet), 16, rng=1), training.Linear(32, len(alphabet), rng=2)
    optimizer = training.Adam([table, lstm, head], 1e-2)
    losses = []
    for _ in range(6):
        chunks = truncated(ids[:-1], ids[1:], steps=50)
        for source, target in chunks:
            x, table_tape = table.forward(source)
            y, chunks.state, tape = lstm.forward(x, chunks.state)
            scores, head_tape = head.forward(y)
            loss, dscores = training.softmax_cross_entropy(scores, target)
            head_grads = head.backward(head_tape, dscores)
            grads = lstm.backward(tape, head_grads.x)
            table_grads = table.backward(table_tape, grads.x)
            training.clip_grad_norm([table_grads, grads, head_grads], 1.0)
            optimizer.step([table_grads, grads, head_grads])
            losses.append(loss)
    share = np.bincount(ids.ravel()) / ids.size
    frequencies = -(share * np.log(share)).sum()
    assert np.mean(losses[-12:]) < 0.85 * frequencies


@pytest.mark.parametrize("module", [fastrnn.sequences, _layouts, fastrnn.diagnostics], ids=lambda m: m.__name__)
def test_examples_of_the_docstrings(module: Any) -> None:
    done = doctest.testmod(module)
    assert done.attempted > 5
    assert not done.failed


# -- bad input -------------------------------------------------------------------------------------------------------

GOOD = pack(rows())
FLAT = ragged(rows())
X = np.zeros((4, 3, 2), np.float32)


@pytest.mark.parametrize(
    ("call", "kind", "words"),
    [
        (lambda: pad([]), ValueError, "sequences is empty"),
        (lambda: pad(3), TypeError, "sequences is a int"),
        (lambda: pad(X), TypeError, r"sequences is an array of shape \(4, 3, 2\).*needs its lengths"),
        (lambda: pack(X), TypeError, "needs its lengths"),
        (lambda: pad("text"), TypeError, "sequences is a str"),
        (lambda: pad([[1.0], ["a"]]), TypeError, r"sequences\[1\] has dtype"),
        (lambda: pad([[1j]]), TypeError, r"sequences\[0\] has dtype complex128"),
        (lambda: pad([1.0, 2.0]), ValueError, r"sequences\[0\] has shape \(\); it must be \(T, ...\)"),
        (lambda: pad([np.zeros((2, 3)), np.zeros((2, 4))]), ValueError, r"sequences\[1\] has shape \(2, 4\).*\(T, 3\)"),
        (lambda: pad([np.zeros(2), np.zeros((2, 4))]), ValueError, r"it must be \(T,\)"),
        (lambda: pad(rows(), total_length=4), ValueError, "total_length is 4; it must be at least 5"),
        (lambda: pad(rows(), total_length=5.5), TypeError, "total_length"),
        (lambda: pad([[]], total_length=-1), ValueError, "total_length is -1"),
        (lambda: pad([[1, 2]], padding_value=0.5), ValueError, "padding_value is 0.5"),
        (lambda: pad([[1, 2]], padding_value=np.nan), ValueError, "padding_value is nan"),
        (lambda: pad([np.zeros(1, np.uint8)], padding_value=-1), ValueError, "padding_value is -1"),
        (lambda: pad(rows(), padding_value="0"), TypeError, "padding_value is '0'"),
        (lambda: pad(rows(), padding_value=[0.0]), TypeError, "padding_value"),
        (lambda: pad(rows(), batch_first=1), TypeError, "batch_first is 1"),
        (lambda: unpad(X, [1, 2, 5]), ValueError, "lengths holds 5; every entry must be from 0 to T = 4"),
        (lambda: unpad(X, [1, -2, 4]), ValueError, "lengths holds -2"),
        (lambda: unpad(X, [1, 2]), ValueError, r"lengths has shape \(2,\); it must be \(3,\)"),
        (lambda: unpad(X, [[1, 2, 3]]), ValueError, "lengths has shape"),
        (lambda: unpad(X, [1.0, 2.5, 3.0]), TypeError, "lengths has dtype float64"),
        (lambda: unpad(X, [True, False, True]), TypeError, "lengths has dtype bool"),
        (lambda: unpad(X), TypeError, "lengths is missing"),
        (lambda: unpad(X[0, 0], [1]), ValueError, r"padded has shape \(2,\)"),
        (lambda: unpad(X.astype(object), [1, 1, 1]), TypeError, "padded has dtype object"),
        (lambda: pack(X, [1, 2, 5]), ValueError, "lengths holds 5"),
        (lambda: pack(rows(), enforce_sorted="no"), TypeError, "enforce_sorted"),
        (lambda: unpack(rows()), TypeError, "packed is a list"),  # type: ignore[arg-type]
        (lambda: unpack(Ragged(FLAT.data, np.array([0, 3, 2]))), ValueError, "offsets falls from 3 to 2 at 2"),
        (lambda: unpack(Ragged(FLAT.data, np.array([0, 99]))), ValueError, "offsets goes from 0 to 99.*0 to 16"),
        (lambda: unpack(Ragged(FLAT.data, np.array([-1, 3]))), ValueError, "offsets goes from -1"),
        (lambda: unpack(Ragged(FLAT.data, np.array([], int))), ValueError, "offsets is empty"),
        (lambda: unpack(Ragged(FLAT.data, np.array([0.0, 1.5]))), TypeError, "offsets has dtype float64"),
        (lambda: unpack(Ragged(FLAT.data, np.array([[0, 1]]))), ValueError, "offsets has shape"),
        (
            lambda: unpack(Ragged(FLAT.data, np.array([0, 2**64 - 1], np.uint64))),
            ValueError,
            "offsets goes from 0 to 9",
        ),
        (lambda: unpack(Ragged(FLAT.data.astype(str), FLAT.offsets)), TypeError, "data has dtype"),
        (lambda: unpack(PackedSequence(np.zeros(6), np.array([2, 3, 1]))), ValueError, "batch_sizes grows from 2 to 3"),
        (lambda: unpack(PackedSequence(np.zeros(5), np.array([3, 2, 1]))), ValueError, "batch_sizes sums to 6.*be 5"),
        (lambda: unpack(PackedSequence(np.zeros(5), np.array([3, 2, 0]))), ValueError, "batch_sizes holds 0"),
        (lambda: unpack(PackedSequence(np.zeros(4), np.array([2**62] * 4))), ValueError, "batch_sizes sums to 1844"),
        (lambda: unpack(PackedSequence(np.zeros(5), np.array([3.5, 1.5]))), TypeError, "batch_sizes has dtype"),
        (lambda: unpack(GOOD._replace(sorted_indices=np.array([0, 0, 1, 2, 3, 4]))), ValueError, "sorted_indices is"),
        (lambda: unpack(GOOD._replace(sorted_indices=np.arange(6))), ValueError, "unsorted_indices.*inverse"),
        (lambda: unpack(PackedSequence(np.zeros(3), np.array([3]), np.arange(2))), ValueError, "sorted_indices has 2"),
        (lambda: unpack(PackedSequence(np.zeros(3), np.array([3]), np.array([0, 1, 9]))), ValueError, "sorted_indices"),
        (lambda: bucket_by_length([3, -1], 2), ValueError, "lengths holds -1"),
        (lambda: bucket_by_length([3.5, 1.0], 2), TypeError, "lengths has dtype float64"),
        (lambda: bucket_by_length([[3]], 2), ValueError, "lengths has shape"),
        (lambda: bucket_by_length([3], 0), ValueError, "batch_size is 0"),
        (lambda: bucket_by_length([3], 2, pool=0), ValueError, "pool is 0"),
        (lambda: bucket_by_length([3], 2, shuffle=1), TypeError, "shuffle is 1"),  # type: ignore[arg-type]
        (lambda: bucket_by_length([3], 2, rng=-1), ValueError, "rng is -1"),
        (lambda: bucket_by_length([3], 2).epoch(-1), ValueError, "number is -1"),
        (lambda: bucket_by_length([3], 2).epoch(0.5), TypeError, "number is 0.5"),  # type: ignore[arg-type]
        (lambda: windows(X, 5), ValueError, "size is 5; it must be at most 4"),
        (lambda: windows(X, 0), ValueError, "size is 0"),
        (lambda: windows(X, 2, stride=0), ValueError, "stride is 0"),
        (lambda: windows(X, 2, stride=1.5), TypeError, "stride is 1.5"),  # type: ignore[arg-type]
        (lambda: windows(3.0, 1), ValueError, r"series has shape \(\)"),
        (lambda: windows(["a"], 1), TypeError, "series has dtype"),
        (lambda: truncated(X, steps=0), ValueError, "steps is 0"),
        (lambda: truncated(X, X[:3], steps=2), ValueError, r"others\[0\] has shape \(3, 3, 2\); it must have T = 4"),
        (lambda: truncated(X, steps=2, lengths=[1, 2, 9]), ValueError, "lengths holds 9"),
        (lambda: truncated(X[0, 0], steps=2, batch_first=True), ValueError, "x has shape"),
        (lambda: truncated(X, steps=2, batch_first="no"), TypeError, "batch_first"),  # type: ignore[arg-type]
    ],
)
def test_bad_input_is_named(call: Any, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        call()


def test_padded_is_a_plain_pair() -> None:
    data, lengths = pad(rows())
    assert isinstance(pad(rows()), Padded)
    assert data.flags.c_contiguous
    assert lengths.dtype == np.int64


@pytest.mark.parametrize("first", [False, True])
def test_reverse(first: bool) -> None:
    x = np.random.default_rng(0).standard_normal((5, 3, 2))
    lengths = [5, 0, 2]
    want = x.copy()
    for n, count in enumerate(lengths):
        want[:count, n] = x[:count, n][::-1]

    def way(array: Any) -> Any:
        return array.swapaxes(0, 1) if first else array

    assert np.array_equal(reverse(way(x), lengths, batch_first=first), way(want))
    assert np.array_equal(reverse(way(x), batch_first=first), way(x[::-1]))
    assert np.shares_memory(reverse(way(x), batch_first=first), x)
    both = fastrnn.GRU(2, 4, bidirectional=True, batch_first=first, rng=0)
    one = fastrnn.GRU(2, 4, batch_first=first, rng=0)
    one.load_state_dict({name: both.weights[f"{name}_reverse"] for name in one.weights})
    y = reverse(one(reverse(way(x), lengths, batch_first=first), lengths=lengths)[0], lengths, batch_first=first)
    np.testing.assert_array_equal(y, both(way(x), lengths=lengths)[0][..., 4:])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((np.zeros(3),), ValueError, "x has shape"),
        ((np.zeros((3, 2)), [4, 0]), ValueError, "lengths holds 4"),
        ((np.zeros((3, 2)), [1]), ValueError, r"lengths has shape \(1,\)"),
        ((np.zeros((3, 2)), [0.5, 1]), TypeError, "lengths has dtype float64"),
    ],
)
def test_reverse_of_what_does_not_fit(arguments: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        reverse(*arguments)
