"""The table of problems: every shape and option the backends are compared on, a reason for each, and the tolerances.

Letters: T steps, N batch, I input, H hidden, G gates, D directions, L layers. A `Problem` says what is computed, a
`Case` holds its arrays for one cell and dtype, `run` puts a case through a backend and checks what holds for any call:
inputs unchanged, every wanted element written, nothing written beside them. The arrays of a case are float32 numbers in
every dtype, so one float64 result is the reference of both dtypes.
"""

from __future__ import annotations

import copy
import zlib
from dataclasses import dataclass, field, replace
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastrnn._spec import Regularisers, Spec

Array = NDArray[Any]

# name of a cell in test ids -> what makes the Spec (and, without "cell", the arguments of the layer class)
CELLS: dict[str, dict[str, Any]] = {
    "rnn_tanh": {"cell": "rnn", "nonlinearity": "tanh"},
    "rnn_relu": {"cell": "rnn", "nonlinearity": "relu"},
    "lstm": {"cell": "lstm"},
    "gru_after": {"cell": "gru", "reset_after": True},
    "gru_before": {"cell": "gru", "reset_after": False},
}
DTYPES = ("float32", "float64")

# Largest accepted |got - reference| / max(1, max|reference|), one number per dtype and direction.
# float32 forward: a pre-activation is a sum of I + H products (at most 430 in the table) of size about 1, whose
#   rounding errors walk at random to sqrt(430) * 2**-24 = 1.2e-6; the activations add a few 2**-24, never amplify.
# float32 backward: the same walk for dh, then a weight gradient sums up to T*N = 3640 such rows.
# float64: the same arithmetic with 2**-53 is a factor of 2e-9 finer; 1e-13 leaves room for the last bits of exp.
TOLERANCE = {
    ("float32", "forward"): 2e-6,
    ("float32", "backward"): 6e-6,
    ("float64", "forward"): 1e-13,
    ("float64", "backward"): 1e-13,
}


@dataclass(frozen=True)
class Problem:
    """One row of the table."""

    name: str
    why: str
    steps: int
    batch: int
    input_size: int
    hidden_size: int
    num_layers: int = 1
    bidirectional: bool = False
    bias: bool = True
    state: bool = True  # an initial state is given
    lengths: str = ""  # "", "mixed" (unsorted, a zero, a full row), "full" or "empty"
    reset: float = 0.0  # probability of a reset; 0: the argument is None
    mask: float = 1.0  # probability of an unmasked step; 1: the argument is None
    dropout: float = 0.0
    recurrent_dropout: float = 0.0
    zoneout: tuple[float, float] = (0.0, 0.0)  # of h, of an LSTM's c
    layout: str = "plain"  # of x, y, dy and dx: "plain", "batch_first", "strided", "broadcast", "readonly"
    dy: bool = True
    dstate: bool = True
    wanted: tuple[str, ...] = ("dx", "dh0", "dc0", "dweights")
    accumulate: bool = False
    twice: bool = False  # backward with retain=True first: the second must repeat it bit for bit

    def spec(self, cell: str, dtype: str, exact: bool = False) -> Spec:
        return Spec(
            input_size=self.input_size,
            hidden_size=self.hidden_size,
            num_layers=self.num_layers,
            bias=self.bias,
            bidirectional=self.bidirectional,
            dtype_name=dtype,
            exact=exact,
            **CELLS[cell],
        )


def _table() -> tuple[Problem, ...]:
    def p(name: str, why: str, *sizes: int, **options: Any) -> Problem:
        return Problem(name, why, *sizes, **options)

    both = {"num_layers": 2, "bidirectional": True}
    #                                                                     T   N   I   H
    return (
        p("one", "the smallest of everything", 1, 1, 1, 1),
        p("h1", "one hidden unit: all but one lane idle", 7, 13, 3, 1, twice=True),
        p("h2", "one whole vector: two doubles of 16 bytes", 2, 5, 3, 2),
        p("h4", "one whole vector: four of 16 or 32 bytes", 2, 7, 3, 4, bidirectional=True),
        p("h8", "one whole vector: eight of 32 or 64 bytes", 7, 6, 5, 8),
        p("h15", "one below a panel of 16", 2, 5, 4, 15),
        p("h16", "exactly one panel, a whole tile of rows", 7, 6, 16, 16),
        p("h17", "one above a panel, one row beyond a tile", 2, 7, 5, 17),
        p("h33", "two panels and one unit, two tiles and one row", 7, 13, 7, 33, twice=True),
        p("h64", "a whole panel of the RNN, four vectors wide", 2, 7, 3, 64),
        p("row", "one row: the product is matrix times vector", 7, 1, 5, 33),
        p("row_small", "one row, one panel with idle lanes, holes and cuts", 7, 1, 3, 15, reset=0.3, mask=0.7),
        p("row_panels", "one row, two panels with idle lanes, reverse time", 7, 1, 20, 31, bidirectional=True),
        p("row_pairs", "one row, 17 panels of 16: by twos, and one alone", 3, 1, 20, 272),
        p("pair", "two rows, one step: h0 is the only state read", 1, 2, 9, 16),
        p("step", "T=1: every panel is met once, layers and directions", 1, 13, 7, 33, twice=True, **both),
        p("step_row", "T=1, one row, 17 panels, no state: nothing for U to multiply", 1, 1, 20, 272, state=False),
        p("step_fresh", "T=1, no state", 1, 7, 5, 70, state=False, bidirectional=True, bias=False),
        p("step_holes", "T=1, most options", 1, 7, 5, 20, lengths="mixed", mask=0.7, reset=0.3, dropout=0.5, **both),
        p("step_regular", "T=1, all that regularises", 1, 5, 3, 35, recurrent_dropout=0.5, zoneout=(0.5, 0.5)),
        p("no_steps", "T=0: the state passes through", 0, 5, 3, 17),
        p("no_steps_deep", "T=0, layers, lengths, no state", 0, 2, 3, 16, state=False, lengths="empty", **both),
        p("no_rows", "N=0: nothing to do, gradients of weights are 0", 2, 0, 3, 16),
        p("no_state", "initial state absent: zeros, and no dh0 to write", 7, 6, 5, 17, state=False),
        p("wide_rows", "x of 1.6 KB in parts, 533 rows of it: gradients of weights over two blocks", 41, 13, 401, 5),
        p("far", "beyond L2: what comes next is fetched", 13, 280, 90, 100, lengths="mixed", bidirectional=True),
        p("far_row", "x beyond L2, projected in chunks", 130, 5, 420, 9, reset=0.3),
        p("wide_step", "weights beyond L2, and one step's xg: x enters the step's product", 2, 48, 184, 184),
        p("no_bias", "no biases in weights, panels and gradients", 2, 2, 9, 17, bias=False),
        p("batch_first", "rows of a step are not adjacent", 7, 5, 3, 17, layout="batch_first"),
        p("strided", "gaps on every axis, start not on a vector boundary", 2, 6, 5, 15, layout="strided"),
        p("broadcast", "x has stride 0 over steps and rows", 7, 7, 4, 16, layout="broadcast"),
        p("readonly", "x must not be asked for as writable", 2, 5, 3, 16, layout="readonly"),
        p("layers", "the second layer reads H, not I", 2, 7, 5, 16, num_layers=2),
        p("bidirectional", "halves of y, reverse time", 7, 6, 5, 17, bidirectional=True),
        p("dropout", "masks between three layers, none after the last", 2, 6, 3, 16, num_layers=3, dropout=0.5),
        p("deep", "layers x directions x dropout", 7, 5, 4, 15, dropout=0.25, layout="strided", **both),
        p("masked", "h is masked on its way into U", 7, 7, 5, 17, recurrent_dropout=0.5, twice=True),
        p("masked_row", "one row, two panels: not as one call", 7, 1, 20, 31, recurrent_dropout=0.5),
        p("zoneout", "two units and rows in three keep their state", 7, 6, 3, 33, zoneout=(0.7, 0.6), twice=True),
        p("zoneout_h", "c as it is", 7, 5, 3, 16, zoneout=(0.5, 0.0), num_layers=2),
        p("zoneout_c", "h as it is; for a GRU and an RNN nothing", 7, 13, 3, 15, zoneout=(0.0, 0.5), **both),
        p("zoneout_row", "one row", 7, 1, 5, 15, zoneout=(0.4, 0.5)),
        p(
            "regular",
            "all that regularises",
            *(7, 7, 20, 70),
            dropout=0.5,
            recurrent_dropout=0.5,
            zoneout=(0.5, 0.4),
            bias=False,
            **both,
        ),
        p("regular_no_steps", "T=0", 0, 5, 3, 17, recurrent_dropout=0.5, zoneout=(0.5, 0.5)),
        p("regular_long", "chunks of time", 130, 5, 3, 9, lengths="mixed", recurrent_dropout=0.5, zoneout=(0.3, 0.3)),
        p("ragged", "unsorted lengths with a zero, batch larger than a tile", 7, 13, 5, 17, lengths="mixed"),
        p("ragged_deep", "the reverse direction starts at each row's end", 7, 6, 3, 16, lengths="mixed", **both),
        p("ragged_empty", "every length 0: y is 0, the state passes through", 2, 5, 3, 16, lengths="empty", **both),
        p("ragged_full", "lengths given but all T, batch_first", 2, 2, 3, 33, lengths="full", layout="batch_first"),
        p("reset", "forward cuts, reset[0] drops the given state", 7, 6, 5, 16, reset=0.3),
        p("reset_deep", "cuts in both directions and layers", 7, 7, 3, 17, reset=0.3, **both),
        p("reset_every", "a reset at every step: no step sees another", 2, 5, 3, 15, reset=1.0, bidirectional=True),
        p("mask", "holes keep the state and repeat the output", 7, 5, 5, 17, mask=0.6),
        p("mask_deep", "holes in both directions and layers, no state", 7, 6, 3, 16, mask=0.6, state=False, **both),
        p("mask_never", "no step runs: y repeats h0", 2, 6, 3, 16, mask=0.0, num_layers=2),
        p("reset_mask", "a hole after a cut outputs zero", 7, 13, 4, 15, reset=0.4, mask=0.5, layout="batch_first"),
        p(
            "everything",
            "every option at once",
            *(7, 7, 4, 17),
            lengths="mixed",
            reset=0.2,
            mask=0.7,
            dropout=0.5,
            layout="batch_first",
            twice=True,
            **both,
        ),
        p(
            "everything_bare",
            "every option that remains without state and biases",
            *(7, 13, 5, 33),
            lengths="mixed",
            reset=0.2,
            mask=0.7,
            bias=False,
            state=False,
            layout="strided",
            bidirectional=True,
        ),
        p(
            "everything_regular",
            "every option at once, and all that regularises",
            *(7, 13, 4, 17),
            lengths="mixed",
            reset=0.2,
            mask=0.7,
            dropout=0.5,
            recurrent_dropout=0.5,
            zoneout=(0.4, 0.5),
            layout="batch_first",
            twice=True,
            **both,
        ),
        p("dy_none", "the loss reads the final state only", 7, 6, 3, 16, dy=False, lengths="mixed"),
        p("dstate_none", "the loss reads y only", 2, 5, 3, 17, dstate=False, bidirectional=True),
        p("no_loss", "dy and dstate absent: every gradient 0", 2, 5, 3, 16, dy=False, dstate=False),
        p("only_dx", "no weight gradient wanted", 7, 5, 6, 17, wanted=("dx",), **both),
        p("only_dweights", "the first layer of a model: no dx wanted", 7, 7, 6, 16, wanted=("dweights",), **both),
        p("only_dstate", "gradient of the initial state alone", 7, 6, 6, 15, wanted=("dh0", "dc0")),
        p("accumulate", "dweights is added to", 2, 7, 5, 17, accumulate=True, **both),
        p("long", "more steps than one chunk of time", 130, 5, 3, 16, state=False),
        p("long_ragged", "chunks of time with rows that end", 130, 5, 3, 9, lengths="mixed", bidirectional=True),
        p("wide", "more rows, inputs and units than one block", 2, 37, 300, 130, twice=True),
    )


PROBLEMS = _table()
BY_NAME = {problem.name: problem for problem in PROBLEMS}


@dataclass
class Case:
    """The arrays of one problem for one cell and dtype, named as in the backend interface."""

    problem: Problem
    spec: Spec
    weights: Array
    x: Array
    dy: Array | None
    h0: Array | None = None
    c0: Array | None = None
    dhn: Array | None = None
    dcn: Array | None = None
    lengths: Array | None = None
    reset: Array | None = None
    mask: Array | None = None
    dropout: Array | None = None
    regular: Regularisers | None = None
    inputs: dict[str, Array] = field(default_factory=dict)  # copies, to see that a call changed nothing
    regular_before: Regularisers | None = None

    def remember(self) -> Case:
        for name in ("x", "dy", "h0", "c0", "dhn", "dcn", "lengths", "reset", "mask", "dropout", "weights"):
            array = getattr(self, name)
            if array is not None:
                self.inputs[name] = array.copy()
        self.regular_before = copy.deepcopy(self.regular)
        return self

    def check_inputs(self) -> None:
        for name, before in self.inputs.items():
            assert np.array_equal(getattr(self, name), before, equal_nan=True), f"the call changed its input {name}"
        for array, before in zip(self.regular or (), self.regular_before or (), strict=True):
            assert array is None or np.array_equal(array, before), "the call changed a mask"


def place(values: Array, layout: str) -> tuple[Array, Array]:
    """The values in memory of the given layout, and the whole buffer they lie in (gaps hold `SENTINEL`)."""
    steps, batch, width = values.shape
    if layout == "batch_first":
        base = np.full((batch, steps, width), SENTINEL, values.dtype)
        view = base.swapaxes(0, 1)
    elif layout == "strided":
        base = np.full((2 * steps + 1, batch + 2, width + 3), SENTINEL, values.dtype)
        view = base[1::2, 1:-1, 1:-2]
    else:
        base = np.full((steps + 2, batch, width), SENTINEL, values.dtype)
        view = base[1:-1]
    view[...] = values
    return view, base


SENTINEL = -7.25e6  # exact in float32; no result comes near it


class Output:
    """An output array full of NaN inside a buffer of sentinels."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any], layout: str = "flat", value: float = np.nan):
        if layout == "flat":
            size, pad = int(np.prod(shape)), 33
            self.base = np.full(size + 2 * pad, SENTINEL, dtype)
            self.view = self.base[pad : pad + size].reshape(shape)
            self.view[...] = value
        else:
            self.view, self.base = place(np.full(shape, value, dtype), layout)
        marks = self.base == SENTINEL
        self.outside = int(marks.sum())

    def check(self, name: str) -> Array:
        """The result; fails if a neighbour was overwritten."""
        assert int((self.base == SENTINEL).sum()) == self.outside, f"written beside {name}"
        return self.view


def make_case(problem: Problem, cell: str, dtype: str, exact: bool = False) -> Case:
    """Draw the arrays. With `exact`, small integers and signed permutations for U, so that sums stay exact."""
    spec = problem.spec(cell, dtype, exact)
    rng = np.random.default_rng(zlib.crc32(f"{problem.name}/{cell}/{exact}".encode()))
    steps, batch, hidden = problem.steps, problem.batch, problem.hidden_size
    states = (spec.num_layers * spec.directions, batch, hidden)
    out_shape = (steps, batch, spec.directions * hidden)

    def draw(shape: tuple[int, ...], scale: float = 1.0) -> Array:
        if exact:
            return rng.integers(-1, 2, shape).astype(spec.dtype)
        return (rng.standard_normal(shape) * scale).astype(np.float32).astype(spec.dtype)

    weights = np.empty(spec.weight_count, spec.dtype)
    for name, view in spec.views(weights).items():
        if exact:
            view[...] = _integer_weights(name, view.shape, hidden, rng)
        else:
            bound = 0.5 if view.ndim == 1 else 1.3 / np.sqrt(view.shape[1])
            view[...] = rng.uniform(-bound, bound, view.shape).astype(np.float32)
    # a "broadcast" x has one row that every step and batch row repeats; the reference gets the same values
    x = draw((1, 1, spec.input_size) if problem.layout == "broadcast" else (steps, batch, spec.input_size))
    if problem.layout == "broadcast":
        x = np.broadcast_to(x, (steps, batch, spec.input_size))
    else:
        x = place(x, problem.layout)[0]
    case = Case(problem, spec, weights, x, place(draw(out_shape), problem.layout)[0] if problem.dy else None)
    if problem.layout == "readonly":
        case.x.setflags(write=False)
    if problem.state:
        case.h0 = draw(states, 0.5)
        case.c0 = draw(states, 0.5) if spec.cell == "lstm" else None
    if problem.dstate:
        case.dhn = draw(states)
        case.dcn = draw(states) if spec.cell == "lstm" else None
    _draw_control(case, rng)
    return case.remember()


def _integer_weights(name: str, shape: tuple[int, ...], hidden: int, rng: np.random.Generator) -> Array:
    """Sparse -1, 0, 1; each gate's U is a signed permutation, so back-propagation sums G terms a step, not G*H."""
    if name.startswith("weight_hh"):
        blocks = []
        for _ in range(shape[0] // hidden):
            block = np.zeros((hidden, hidden))
            block[np.arange(hidden), rng.permutation(hidden)] = rng.choice([-1.0, 1.0], hidden)
            blocks.append(block)
        return np.concatenate(blocks)
    return rng.choice([-1.0, 0.0, 0.0, 0.0, 1.0], shape)


def _draw_control(case: Case, rng: np.random.Generator) -> None:
    problem, steps, batch = case.problem, case.problem.steps, case.problem.batch
    if problem.lengths == "mixed":
        case.lengths = rng.integers(1, steps + 1, batch)
        case.lengths[batch // 3] = 0
        case.lengths[batch - 1] = steps
    elif problem.lengths:
        case.lengths = np.full(batch, steps if problem.lengths == "full" else 0)
    if case.lengths is not None:
        case.lengths = case.lengths.astype(np.int64)
    if problem.reset:
        case.reset = rng.random((steps, batch)) < problem.reset
    if problem.mask < 1:
        case.mask = rng.random((steps, batch)) < problem.mask
    if problem.dropout:
        shape = (case.spec.num_layers - 1, steps, batch, case.spec.directions * case.spec.hidden_size)
        keep = rng.random(shape) >= problem.dropout
        case.dropout = (keep / (1 - problem.dropout)).astype(np.float32).astype(case.spec.dtype)
    if problem.recurrent_dropout or any(problem.zoneout):
        case.regular = _regularisers(case, rng)


def _regularisers(case: Case, rng: np.random.Generator) -> Regularisers:
    """Drawn for every cell, so that what follows does not depend on it."""
    p, spec = case.problem, case.spec
    layers = spec.num_layers * spec.directions
    kept = rng.random((layers, p.batch, p.hidden_size)) >= p.recurrent_dropout
    mask = (kept / (1 - p.recurrent_dropout)).astype(np.float32).astype(spec.dtype)
    zones = [(rng.random((layers, p.steps, p.batch, p.hidden_size)) < rate).astype(spec.dtype) for rate in p.zoneout]
    zone_h, zone_c = (zone if rate else None for zone, rate in zip(zones, p.zoneout, strict=True))
    return Regularisers(mask if p.recurrent_dropout else None, zone_h, zone_c if spec.cell == "lstm" else None)


def run(module: ModuleType, case: Case, train: bool, recompute: bool = False) -> dict[str, Array]:
    """Put a case through a backend: inference only, or forward with tape and backward. Returns the outputs by name."""
    spec, problem = case.spec, case.problem
    lstm = spec.cell == "lstm"
    states = (spec.num_layers * spec.directions, problem.batch, spec.hidden_size)
    layout = "plain" if problem.layout in ("broadcast", "readonly") else problem.layout
    packed = module.pack(spec, case.weights)
    y = Output((problem.steps, problem.batch, spec.directions * spec.hidden_size), spec.dtype, layout)
    hn = Output(states, spec.dtype)
    cn = Output(states, spec.dtype) if lstm else None
    tape = module.make_tape(packed, problem.steps, problem.batch, None, recompute) if train else None
    control = (case.lengths, case.reset, case.mask, None if not train else case.dropout)
    regular = case.regular if train or case.regular is None else case.regular._replace(mask=None)
    last_states = (hn.view, cn.view if cn else None)
    module.forward(packed, case.x, y.view, case.h0, case.c0, *last_states, *control, tape, regular=regular)
    results = {"y": y, "hn": hn, "cn": cn}
    if train:
        results |= _backward(module, case, packed, tape, y.view, control, layout)
    case.check_inputs()
    return {name: output.check(name) for name, output in results.items() if output is not None}


def _backward(
    module: ModuleType, case: Case, packed: object, tape: object, y: Array, control: tuple[Any, ...], layout: str
) -> dict[str, Output | None]:
    spec, problem = case.spec, case.problem
    wanted = set(problem.wanted)
    if not problem.state:
        wanted -= {"dh0", "dc0"}
    if spec.cell != "lstm":
        wanted -= {"dc0"}
    states = (spec.num_layers * spec.directions, problem.batch, spec.hidden_size)
    start = 3.0 if problem.accumulate else np.nan  # what dweights holds before
    before = y.copy()

    def outputs() -> dict[str, Output | None]:
        made = {
            "dx": Output(case.x.shape, spec.dtype, layout),
            "dh0": Output(states, spec.dtype),
            "dc0": Output(states, spec.dtype),
            "dweights": Output((spec.weight_count,), spec.dtype, value=start),
        }
        return {name: made[name] if name in wanted else None for name in made}

    def call(retain: bool) -> dict[str, Output | None]:
        out = outputs()
        views = [out[name].view if out[name] is not None else None for name in ("dx", "dh0", "dc0", "dweights")]  # type: ignore[union-attr]
        arguments = (packed, tape, case.x, y, case.h0, case.c0, case.dy, case.dhn, case.dcn)
        module.backward(*arguments, *views, *control, retain, problem.accumulate, regular=case.regular)
        return out

    first = call(True) if problem.twice else None
    out = call(False)
    assert np.array_equal(y, before), "backward changed y"
    for name, output in (first or {}).items():
        other = out[name]
        if output is not None and other is not None:
            assert np.array_equal(output.view, other.view), f"a retained tape gave another {name}"
    return out


@cache
def reference(problem: Problem, cell: str, train: bool, exact: bool = False) -> dict[str, Array]:
    """What the NumPy backend gives in float64, inputs in plain memory: the oracle."""
    from fastrnn.backends import _numpy

    case = make_case(problem, cell, "float64", exact)
    case.x = np.ascontiguousarray(case.x)
    case.dy = None if case.dy is None else np.ascontiguousarray(case.dy)
    case.problem = replace(problem, layout="plain", twice=False)
    return run(_numpy, case, train)


def error(got: Array, want: Array) -> float:
    """Largest difference in units of the reference's scale; infinite if the result is not finite."""
    if not want.size:
        return 0.0
    if not np.isfinite(got).all():
        return float("inf")
    return float(np.abs(got - want).max() / max(1.0, np.abs(want).max()))
