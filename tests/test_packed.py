"""Packed input of layers, by rows (Ragged) and by steps (PackedSequence): the bits of padded calls, and bad input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import fastrnn
from conftest import System, make_layer, parts
from fastrnn import diagnostics, functional
from fastrnn._spec import Spec
from fastrnn.sequences import PackedSequence, Ragged, pack, ragged, unpack
from problems import CELLS, DTYPES

Array = NDArray[Any]
LAYOUTS: dict[str, Callable[[Array, Array], Any]] = {
    "rows": lambda padded, lengths: ragged(padded, lengths),
    "steps": lambda padded, lengths: pack(padded, lengths),
}


def spec_of(cell: str, dtype: str = "float32", **options: Any) -> Spec:
    given = {"input_size": 5, "hidden_size": 17, "num_layers": 2, "bias": True, "bidirectional": True, **options}
    return Spec(dtype_name=dtype, **given, **CELLS[cell])


def arrays(spec: Spec, lengths: Array, seed: int = 0, nan: bool = True) -> dict[str, Any]:
    """Padded arrays of one call; NaN in the padding, which nobody may read."""
    rng = np.random.default_rng(seed)
    steps, batch, width = int(lengths.max(initial=0)), len(lengths), spec.directions * spec.output_size

    def values(*shape: int) -> Array:
        return rng.standard_normal(shape).astype(spec.dtype)

    made = {
        "x": values(steps, batch, spec.input_size),
        "dy": values(steps, batch, width),
        "dropout": 2 * (rng.random((spec.num_layers - 1, steps, batch, width)) < 0.5).astype(spec.dtype),
        "reset": rng.random((steps, batch)) < 0.2,
        "mask": rng.random((steps, batch)) < 0.7,
    }
    if nan:
        padding = np.arange(steps)[:, None] >= lengths
        made["x"][padding] = made["dy"][padding] = np.nan
    for name in ("state", "dstate"):
        h = values(spec.num_layers * spec.directions, batch, spec.output_size)
        c = values(spec.num_layers * spec.directions, batch, spec.hidden_size)
        made[name] = (h, c) if spec.cell == "lstm" else h
    return made


def train(spec: Spec, given: dict[str, Any], lengths: Array | None, weights: Array, save: str = "all") -> list[Any]:
    """Everything forward and backward give: y, state, dx, dstate, dweights, inference's y; arrays or layouts."""
    packed = functional.pack(spec, weights)
    masks = {name: given[name] for name in ("reset", "mask")}
    y, state, tape = functional.forward(
        packed, given["x"], given["state"], lengths=lengths, dropout=given["dropout"], save=save, **masks
    )
    grads = functional.backward(tape, given["dy"], given["dstate"])
    inferred = functional.infer(packed, given["x"], given["state"], lengths=lengths, **masks)
    return [y, state, grads.x, grads.state, grads.flat, *inferred]


def compare(spec: Spec, lengths: Array, kind: str, seed: int = 0, save: str = "all", **absent: None) -> None:
    """The packed call has the bits of the padded one."""
    layout = LAYOUTS[kind]
    padded = {**arrays(spec, lengths, seed), **absent}
    weights = np.random.default_rng(seed + 1).uniform(-0.4, 0.4, spec.weight_count).astype(spec.dtype)
    inside = {
        name: value if value is None or name in ("state", "dstate") else layout(value, lengths)
        for name, value in padded.items()
        if name != "dropout"
    }
    factors = padded["dropout"] if spec.num_layers > 1 else None
    padded["dropout"] = factors
    inside["dropout"] = None if factors is None else np.stack([layout(f, lengths).data for f in factors])
    wanted, got = train(spec, padded, lengths, weights, save), train(spec, inside, None, weights, save)
    for expected, found in zip(wanted, got, strict=True):
        if isinstance(found, Ragged | PackedSequence):
            assert type(found) is type(inside["x"])
            np.testing.assert_array_equal(found.data, layout(expected, lengths).data)
            for name in found._fields[1:]:
                np.testing.assert_array_equal(getattr(found, name), getattr(inside["x"], name))
        elif isinstance(found, tuple):
            for part, other in zip(expected, found, strict=True):
                np.testing.assert_array_equal(other, part)
        else:
            np.testing.assert_array_equal(found, expected)


MIXED = np.array([3, 0, 7, 7, 1, 2, 7, 0, 5, 4, 6, 3, 2])


@pytest.mark.parametrize("save", ["all", "recompute"])
@pytest.mark.parametrize("kind", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", CELLS)
def test_packed_is_padded(system: System, cell: str, dtype: str, kind: str, save: str) -> None:
    """Layers, both directions, dropout, resets and masks at once."""
    compare(spec_of(cell, dtype), MIXED, kind, save=save)


@pytest.mark.parametrize("kind", LAYOUTS)
@pytest.mark.parametrize(
    "lengths", [[4], [0], [0, 0, 0], [1] * 9, [5, 4, 3, 2, 1], [1, 2, 3, 4, 5], [0, 9, 0], []], ids=str
)
def test_shapes(system: System, lengths: list[int], kind: str) -> None:
    compare(spec_of("lstm"), np.array(lengths, np.int64), kind)
    compare(spec_of("gru_after", num_layers=1, bidirectional=False), np.array(lengths, np.int64), kind, mask=None)


@given(
    lengths=st.lists(st.integers(0, 12), min_size=1, max_size=30),
    cell=st.sampled_from(sorted(CELLS)),
    kind=st.sampled_from(sorted(LAYOUTS)),
    hidden=st.integers(1, 40),
    layers=st.integers(1, 3),
    both=st.booleans(),
    save=st.sampled_from(["all", "recompute"]),
    absent=st.sets(st.sampled_from(["reset", "mask", "dropout", "dy", "state"])),
    threads=st.integers(1, 3),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_any_packed_is_padded(
    lengths: list[int], cell: str, kind: str, hidden: int, layers: int, both: bool, save: str, absent: set[str],
    threads: int, seed: int,
) -> None:  # fmt: skip
    spec = spec_of(cell, hidden_size=hidden, num_layers=layers, bidirectional=both)
    before = fastrnn.get_num_threads()
    fastrnn.set_num_threads(threads)
    try:
        compare(spec, np.array(lengths), kind, seed, save, **dict.fromkeys(absent))
    finally:
        fastrnn.set_num_threads(before)


@pytest.mark.parametrize("kind", LAYOUTS)
def test_a_stack_of_the_general_path(kind: str) -> None:
    compare(spec_of("lstm", proj_size=3), MIXED, kind)


@pytest.mark.parametrize("kind", LAYOUTS)
@pytest.mark.parametrize("cell", CELLS)
def test_packed_rows_are_rows_of_their_own(system: System, cell: str, kind: str, rng: np.random.Generator) -> None:
    """Outputs, states, dx and dstate of each row are those of a call with this row alone."""
    layer = make_layer(cell, 5, 9, 2, bidirectional=True)
    given = arrays(layer._spec, MIXED)
    layout = LAYOUTS[kind]
    x, dy = layout(given["x"], MIXED), layout(given["dy"], MIXED)
    y, state, tape = layer.forward(x, given["state"])
    grads = layer.backward(tape, dy, given["dstate"])
    rows = zip(unpack(x), unpack(dy), unpack(y), unpack(grads.x), strict=True)
    for n, (row, drow, y_row, dx_row) in enumerate(rows):
        one = slice(n, n + 1)
        first, last = (tuple(part[:, one] for part in parts(given[name])) for name in ("state", "dstate"))
        single = len(first) == 1
        y_one, state_one, tape_one = layer.forward(row[:, None], first[0] if single else first)
        grads_one = layer.backward(tape_one, drow[:, None], last[0] if single else last)
        system.same(y_row, y_one[:, 0])
        system.same(dx_row, grads_one.x[:, 0])
        ends = (*parts(state_one), *parts(grads_one.state))
        for many, alone in zip((*parts(state), *parts(grads.state)), ends, strict=True):
            system.same(many[:, one], alone)


@pytest.mark.parametrize("order", ["sorted", "unsorted"])
@pytest.mark.parametrize("cell", ["rnn_tanh", "lstm", "gru_after"])
def test_pytorchs_packed_sequence(cell: str, order: str) -> None:
    """Its outputs, states and gradients, from PyTorch's own object; states in the order before sorting."""
    torch = pytest.importorskip("torch")
    lengths = np.array([3, 7, 1, 7, 2] if order == "unsorted" else [7, 7, 3, 2, 1])
    kind = {"rnn_tanh": "RNN", "lstm": "LSTM", "gru_after": "GRU"}[cell]
    ours = make_layer(cell, 5, 9, 2, bidirectional=True, dtype=np.float64)
    theirs = getattr(torch.nn, kind)(5, 9, 2, bidirectional=True, dtype=torch.float64)
    theirs.load_state_dict({name: torch.from_numpy(w) for name, w in ours.state_dict().items()})
    rng = np.random.default_rng(3)
    x = torch.from_numpy(rng.standard_normal((7, 5, 5)))
    packed = torch.nn.utils.rnn.pack_padded_sequence(x, torch.from_numpy(lengths), enforce_sorted=order == "sorted")
    data = packed.data.clone().requires_grad_()
    dy = rng.standard_normal((len(data), 18))
    y, state = theirs(packed._replace(data=data))
    y.data.backward(torch.from_numpy(dy))
    y_ours, state_ours, tape = ours.forward(packed)
    grads = ours.backward(tape, dy)
    np.testing.assert_allclose(y_ours.data, y.data.detach().numpy(), atol=1e-12)
    for mine, other in zip(parts(state_ours), parts(state), strict=True):
        np.testing.assert_allclose(mine, other.detach().numpy(), atol=1e-12)
    np.testing.assert_allclose(grads.x.data, data.grad.numpy(), atol=1e-12)
    for name, weight in theirs.named_parameters():
        np.testing.assert_allclose(grads.weights[name], weight.grad.numpy(), atol=1e-12, err_msg=name)
    again = torch.nn.utils.rnn.PackedSequence(*(None if a is None else torch.tensor(a) for a in y_ours))
    assert torch.equal(torch.nn.utils.rnn.pad_packed_sequence(again)[1], torch.from_numpy(lengths)), (
        "the result is no PackedSequence of the same rows"
    )


def test_a_slice_of_longer_data(system: System, rng: np.random.Generator) -> None:
    """Offsets that begin and end inside: rows of a larger array, as Arrow has them."""
    layer = make_layer("gru_after", 3, 4)
    data = rng.standard_normal((20, 3), np.float32)
    inner, whole = layer(Ragged(data, np.array([4, 9, 9, 15]))), layer(Ragged(data[4:15], np.array([0, 5, 5, 11])))
    np.testing.assert_array_equal(inner[0].offsets, [0, 5, 5, 11])
    np.testing.assert_array_equal(inner[0].data, whole[0].data)
    np.testing.assert_array_equal(inner[1], whole[1])


def test_other_dtypes_strides_and_given_memory(system: System, rng: np.random.Generator) -> None:
    layer = make_layer("lstm", 3, 4)
    data = rng.integers(-2, 3, (12, 6))[::2, ::2]
    offsets = np.array([0, 2, 6], np.uint8)
    out = np.empty((6, 8), np.float32)[:, ::2]
    y, _ = layer(Ragged(data, offsets), out=out)
    wanted = layer(Ragged(data.astype(np.float32), offsets.astype(np.int64)))[0]
    np.testing.assert_array_equal(out, wanted.data)
    assert np.shares_memory(y.data, out)


def test_dropout_of_a_layer(system: System) -> None:
    """A layer draws for the rows that there are; the seed gives the same ones again."""
    layers = [make_layer("gru_after", 3, 4, 2, dropout=0.5) for _ in range(2)]
    x = Ragged(np.ones((7, 3), np.float32), np.array([0, 3, 7]))
    results = [layer.forward(x)[0].data for layer in layers]
    np.testing.assert_array_equal(*results)
    assert np.any(results[0] != layers[0](x)[0].data)


@pytest.mark.parametrize("kind", LAYOUTS)
def test_gradient_flow_of_a_packed_tape(kind: str) -> None:
    layer = make_layer("lstm", 5, 6)
    given, layout = arrays(layer._spec, MIXED, nan=False), LAYOUTS[kind]
    flows = []
    for x, dy, options in (
        (given["x"], given["dy"], {"lengths": MIXED}),
        (layout(given["x"], MIXED), layout(given["dy"], MIXED), {}),
    ):
        tape = layer.forward(x, **options)[2]
        flows.append(diagnostics.gradient_flow(layer, tape, dy))
    for name, norms in flows[0].norms.items():
        np.testing.assert_array_equal(flows[1].norms[name], norms)


DATA = np.ones((6, 5), np.float32)


@pytest.mark.parametrize(
    ("x", "options", "message"),
    [
        (Ragged(DATA, np.array([0, 4, 3, 6])), {}, "offsets falls from 4 to 3"),
        (Ragged(DATA, np.array([0, 7])), {}, "offsets goes from 0 to 7"),
        (Ragged(DATA, np.array([-1, 6])), {}, "offsets goes from -1"),
        (Ragged(DATA, np.array([0.0, 6.0])), {}, "offsets has dtype float64"),
        (Ragged(DATA, np.array([], np.int64)), {}, "offsets is empty"),
        (Ragged(DATA, np.array([[0, 6]])), {}, "offsets has shape"),
        (Ragged(DATA[:, :4], np.array([0, 6])), {}, r"x\.data has shape \(6, 4\)"),
        (Ragged(DATA[None], np.array([0, 1])), {}, r"x\.data has shape \(1, 6, 5\)"),
        (Ragged(DATA.astype(complex), np.array([0, 6])), {}, "data has dtype complex128"),
        (PackedSequence(DATA, np.array([2, 3, 1])), {}, "batch_sizes grows from 2 to 3"),
        (PackedSequence(DATA, np.array([3, 2])), {}, "batch_sizes sums to 5"),
        (PackedSequence(DATA, np.array([3, 3, 0])), {}, "batch_sizes holds 0"),
        (PackedSequence(DATA, np.array([2.0, 4.0])), {}, "batch_sizes has dtype float64"),
        (PackedSequence(DATA, np.array([3, 3]), np.array([0, 0, 1])), {}, "sorted_indices"),
        (PackedSequence(DATA, np.array([3, 3]), np.array([1, 2, 0]), np.array([0, 1, 2])), {}, "unsorted_indices"),
        (Ragged(DATA, np.array([0, 4, 6])), {"lengths": [4, 2]}, "lengths is given, but x is packed"),
        (Ragged(DATA, np.array([0, 4, 6])), {"reset": np.zeros((4, 2), bool)}, "reset has shape"),
        (Ragged(DATA, np.array([0, 4, 6])), {"mask": np.zeros(6)}, "mask has dtype float64"),
        (Ragged(DATA, np.array([0, 4, 6])), {"mask": Ragged(np.ones(6, bool), np.array([0, 3, 6]))}, "mask is packed"),
        (Ragged(DATA, np.array([0, 4, 6])), {"state": np.zeros((1, 3, 4))}, "state has shape"),
        (Ragged(DATA, np.array([0, 4, 6])), {"out": np.zeros((4, 2, 4), np.float32)}, "out has shape"),
    ],
)  # fmt: skip
def test_bad_input(x: Any, options: dict[str, Any], message: str) -> None:
    """One error that names the argument; nothing is written."""
    layer = make_layer("gru_after", 5, 4)
    out = options.get("out", np.full((6, 4), 7, np.float32))
    before = out.copy()
    with pytest.raises((TypeError, ValueError), match=message):
        layer(x, **{"out": out, **options})
    np.testing.assert_array_equal(out, before)
    if "out" not in options:
        with pytest.raises((TypeError, ValueError), match=message):
            layer.forward(x, **options)


def test_dy_of_other_rows() -> None:
    layer = make_layer("gru_after", 5, 4)
    tape = layer.forward(Ragged(DATA, np.array([0, 4, 6])))[2]
    for dy in (Ragged(DATA[:, :4], np.array([0, 3, 6])), PackedSequence(DATA[:, :4], np.array([2, 2, 1, 1]))):
        with pytest.raises(ValueError, match="dy is packed in another way than x"):
            layer.backward(tape, dy)
    with pytest.raises(ValueError, match="dy has shape"):
        layer.backward(tape, np.ones((4, 2, 4)))
    assert layer.backward(tape, np.ones((6, 4))).x.data.shape == DATA.shape
