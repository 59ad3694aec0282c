"""Tiny float64 problems for the twins, called without the Python layer: what `test_oracle.py` works on.

`problems.py` has the table for all backends; here every gradient is small enough for finite differences.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from fastrnn._spec import Regularisers, Spec

CELLS = {
    "tanh": Spec("rnn", 3, 4, dtype_name="float64"),
    "relu": Spec("rnn", 3, 4, dtype_name="float64", nonlinearity="relu"),
    "lstm": Spec("lstm", 3, 4, dtype_name="float64"),
    "gru": Spec("gru", 3, 4, dtype_name="float64"),
    "gru_before": Spec("gru", 3, 4, dtype_name="float64", reset_after=False),
}
LENGTHS = np.array([2, 5, 0, 4, 1])
EVERYTHING = frozenset({"lengths", "reset", "mask"})


@dataclass(frozen=True)
class Option:
    """How a problem differs from the plain one, and which gradients flow into backward."""

    spec: dict[str, Any] = field(default_factory=dict)
    rows: frozenset[str] = frozenset()
    state: bool = True
    dropout: bool = False
    regular: str = ""  # of mask, zone_h and zone_c what is on, separated by spaces
    inflow: frozenset[str] = frozenset({"dy", "dhn", "dcn"})


OPTIONS = {
    "plain": Option(),
    "no_state": Option(state=False),
    "no_bias": Option({"bias": False}),
    "only_dy": Option(inflow=frozenset({"dy"})),
    "only_dhn": Option(inflow=frozenset({"dhn"})),
    "only_dcn": Option(inflow=frozenset({"dcn"})),
    "lengths": Option(rows=frozenset({"lengths"})),
    "reset": Option(rows=frozenset({"reset"})),
    "mask": Option(rows=frozenset({"mask"})),
    "lengths_reset": Option(rows=frozenset({"lengths", "reset"})),
    "lengths_mask": Option(rows=frozenset({"lengths", "mask"})),
    "reset_mask": Option(rows=frozenset({"reset", "mask"})),
    "everything": Option(rows=EVERYTHING),
    "everything_no_state": Option(rows=EVERYTHING, state=False),
    "two_layers": Option({"num_layers": 2}),
    "bidirectional": Option({"bidirectional": True}),
    "bidirectional_lengths": Option({"bidirectional": True}, frozenset({"lengths"})),
    "bidirectional_reset": Option({"bidirectional": True}, frozenset({"reset"})),
    "bidirectional_everything": Option({"bidirectional": True}, EVERYTHING),
    "dropout": Option({"num_layers": 2}, dropout=True),
    "stack": Option({"num_layers": 3, "bidirectional": True}, EVERYTHING, dropout=True),
    "stack_no_bias": Option({"num_layers": 2, "bidirectional": True, "bias": False}, EVERYTHING, dropout=True),
    "mask_of_h": Option(regular="mask"),
    "zoneout_h": Option(regular="zone_h"),
    "zoneout_c": Option(regular="zone_c"),
    "regular": Option(regular="mask zone_h zone_c"),
    "regular_no_state": Option({"bias": False}, EVERYTHING, state=False, regular="mask zone_h zone_c"),
    "regular_stack": Option(
        {"num_layers": 2, "bidirectional": True}, EVERYTHING, dropout=True, regular="mask zone_h zone_c"
    ),
    "exact": Option({"exact": True}),
    "exact_stack": Option({"num_layers": 2, "bidirectional": True, "exact": True}, EVERYTHING, dropout=True),
}


@dataclass
class Problem:
    """All arrays of one call, forward and backward."""

    spec: Spec
    weights: np.ndarray
    x: np.ndarray
    h0: np.ndarray | None = None
    c0: np.ndarray | None = None
    lengths: np.ndarray | None = None
    reset: np.ndarray | None = None
    mask: np.ndarray | None = None
    dropout: np.ndarray | None = None
    regular: Regularisers | None = None
    dy: np.ndarray | None = None
    dhn: np.ndarray | None = None
    dcn: np.ndarray | None = None


@dataclass
class Result:
    """What a call gives; gradients None if backward was not run."""

    y: np.ndarray
    hn: np.ndarray
    cn: np.ndarray | None
    dx: np.ndarray | None = None
    dh0: np.ndarray | None = None
    dc0: np.ndarray | None = None
    dweights: np.ndarray | None = None


def make(spec: Spec, option: Option, steps: int = 5, batch: int = 5, seed: int = 0) -> Problem:
    """A random problem; lengths, resets and masks have zeros, holes and whole rows in them."""
    rng = np.random.default_rng(seed)
    spec = replace(spec, **option.spec)

    def draw(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(spec.dtype)

    states = (spec.num_layers * spec.directions, batch, spec.output_size)
    cells = (*states[:2], spec.hidden_size)
    width = spec.directions * spec.output_size
    problem = Problem(spec, draw(spec.weight_count) * spec.dtype.type(0.5), draw(steps, batch, spec.input_size))
    lstm = spec.cell == "lstm"
    if option.state:
        problem.h0 = draw(*states)
        problem.c0 = draw(*cells) if lstm else None
    if "lengths" in option.rows:
        problem.lengths = np.resize(LENGTHS, batch).clip(0, steps).astype(np.int64)
    if "reset" in option.rows:
        problem.reset = rng.random((steps, batch)) < 0.3
    if "mask" in option.rows:
        problem.mask = rng.random((steps, batch)) < 0.6
        problem.mask[:, 0] = False
    if option.dropout:
        kept = rng.random((spec.num_layers - 1, steps, batch, width)) < 0.5
        problem.dropout = kept.astype(spec.dtype) * spec.dtype.type(2)
    if option.regular:
        problem.regular = regularisers(rng, spec, steps, batch, option.regular)
    problem.dy = draw(steps, batch, width) if "dy" in option.inflow else None
    problem.dhn = draw(*states) if "dhn" in option.inflow else None
    problem.dcn = draw(*cells) if lstm and "dcn" in option.inflow else None
    return problem


def regularisers(rng: np.random.Generator, spec: Spec, steps: int, batch: int, on: str) -> Regularisers:
    """Factors 0 and 2 of h; shares that are 0, 1 and between."""
    layers = spec.num_layers * spec.directions
    mask = 2 * (rng.random((layers, batch, spec.hidden_size)) < 0.5).astype(spec.dtype)
    shape = (layers, steps, batch, spec.hidden_size)
    zones = [np.clip(rng.uniform(-0.5, 1.5, shape), 0, 1).astype(spec.dtype) for _ in range(2)]
    names = on.split()
    return Regularisers(
        mask if "mask" in names else None,
        zones[0] if "zone_h" in names else None,
        zones[1] if "zone_c" in names and spec.cell == "lstm" else None,
    )


def run(
    backend: Any, p: Problem, gradients: bool = True, tape: bool = True, reuse: Any = None, recompute: bool = False
) -> Result:
    """Forward, and backward if asked, on one backend."""
    spec = p.spec
    steps, batch = p.x.shape[:2]
    states = (spec.num_layers * spec.directions, batch, spec.output_size)
    cells = (*states[:2], spec.hidden_size)

    def nans(*shape: int) -> np.ndarray:
        return np.full(shape, np.nan, spec.dtype)

    packed = backend.pack(spec, p.weights)
    buffer = backend.make_tape(packed, steps, batch, reuse, recompute) if tape else None
    cn = nans(*cells) if spec.cell == "lstm" else None
    out = Result(nans(steps, batch, spec.directions * spec.output_size), nans(*states), cn)
    rows = (p.lengths, p.reset, p.mask, p.dropout)
    backend.forward(packed, p.x, out.y, p.h0, p.c0, out.hn, out.cn, *rows, buffer, regular=p.regular)
    if gradients:
        out.dx, out.dh0 = nans(*p.x.shape), nans(*states)
        out.dc0 = nans(*cells) if spec.cell == "lstm" else None
        out.dweights = nans(spec.weight_count)
        flows = (p.dy, p.dhn, p.dcn, out.dx, out.dh0, out.dc0, out.dweights)
        backend.backward(packed, buffer, p.x, out.y, p.h0, p.c0, *flows, *rows, False, False, regular=p.regular)
    return out


def assert_same(a: Result, b: Result, **tolerance: float) -> None:
    """Every array that both have agrees."""
    for name in ("y", "hn", "cn", "dx", "dh0", "dc0", "dweights"):
        left, right = getattr(a, name), getattr(b, name)
        if left is not None and right is not None:
            np.testing.assert_allclose(left, right, err_msg=name, **tolerance)


def loss(backend: Any, p: Problem) -> float:
    """<y, dy> + <hn, dhn> + <cn, dcn>: its gradients are what backward gives for dy, dhn, dcn."""
    out = run(backend, p, False, tape=False)
    pairs = ((out.y, p.dy), (out.hn, p.dhn), (out.cn, p.dcn))
    return sum(float(np.sum(a * b)) for a, b in pairs if a is not None and b is not None)


def check_gradients(backend: Any, problem: Problem, recompute: bool) -> None:
    """Against finite differences along random directions of every tensor: a wrong entry shows in every direction."""
    backend.force_segment(2)  # several segments, and a shorter one
    try:
        grads = run(backend, problem, recompute=recompute)
    finally:
        backend.force_segment(None)
    assert grads.dweights is not None
    rng = np.random.default_rng(1)
    targets = [("x", problem.x, grads.dx)]
    if problem.h0 is not None:
        targets.append(("h0", problem.h0, grads.dh0))
    if problem.c0 is not None:
        targets.append(("c0", problem.c0, grads.dc0))
    weight_grads = problem.spec.views(grads.dweights)
    targets += [(name, value, weight_grads[name]) for name, value in problem.spec.views(problem.weights).items()]
    eps = 1e-5
    for name, value, grad in targets:
        direction = rng.standard_normal(value.shape)
        start = value.copy()
        value += eps * direction
        above = loss(backend, problem)
        value[...] = start - eps * direction
        below = loss(backend, problem)
        value[...] = start
        wanted = (above - below) / (2 * eps)
        assert abs(np.sum(grad * direction) - wanted) <= max(1e-6 * abs(wanted), 1e-7), name
