"""What one direction does at (t, n): lengths, resets, masks and what regularises, as the twins see them.

Letters: T steps, N batch, H hidden.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from .._spec import Regularisers, Spec

Array = npt.NDArray[np.floating[Any]]
Flags = npt.NDArray[np.bool_]
Lengths = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Schedule:
    """What one direction does at (t, n). None stands for the common case and costs nothing per step.

    zero : bool (T, N) or None (never)
        The state is set to zero before the step.
    run : bool (T, N) or None (always)
        The cell runs; elsewhere the state stays.
    live : bool (T, N) or None (always)
        t < lengths[n]; elsewhere the output is zero.
    drop : float (N, H) or None (ones)
        Recurrent dropout's factors of what enters the product with U.
    zone_h, zone_c : float (T, N, H) or None (zeros)
        Zoneout's shares of the state before that stay.
    """

    reverse: bool
    zero: Flags | None
    run: Flags | None
    live: Flags | None
    drop: Array | None = None
    zone_h: Array | None = None
    zone_c: Array | None = None

    def steps(self, count: int) -> range:
        """Step numbers in the order in which this direction runs."""
        return range(count - 1, -1, -1) if self.reverse else range(count)

    def segments(self, steps: int, length: int) -> list[slice]:
        """Consecutive steps, `length` at a time but for the last, in that order; one segment if there are no steps."""
        pieces = [slice(start, min(start + length, steps)) for start in range(0, max(steps, 1), length)]
        return [slice(steps - p.stop, steps - p.start) for p in pieces] if self.reverse else pieces

    def part(self, steps: slice) -> Schedule:
        """The same for a segment."""
        zero, run, live = (None if a is None else a[steps] for a in (self.zero, self.run, self.live))
        zone_h, zone_c = (None if a is None else a[steps] for a in (self.zone_h, self.zone_c))
        return Schedule(self.reverse, zero, run, live, self.drop, zone_h, zone_c)

    def of(self, k: int, regular: Regularisers | None) -> Schedule:
        """The same with what regularises direction k."""
        if regular is None:
            return self
        drop, zone_h, zone_c = (None if a is None else a[k] for a in regular)
        return replace(self, drop=drop, zone_h=zone_h, zone_c=zone_c)

    def entering(self, h: Array) -> Array:
        """What U multiplies, of states h (N, H) or (T, N, H)."""
        return h if self.drop is None else h * self.drop


def schedules(
    spec: Spec, steps: int, lengths: Lengths | None, reset: Flags | None, mask: Flags | None
) -> list[Schedule]:
    """One Schedule per direction, shared by all layers.

    A reset at t is a boundary between t-1 and t: the forward direction meets it before step t, the reverse direction
    before step t-1. One beyond the end of its row is no boundary.
    """
    live = None if lengths is None else np.arange(steps)[:, None] < lengths
    run = live if mask is None else mask if live is None else mask & live
    if reset is not None and live is not None:
        reset = reset & live
    out = [Schedule(False, reset, run, live)]
    if spec.bidirectional:
        backward = None
        if reset is not None:
            backward = np.zeros_like(reset)
            backward[:-1] = reset[1:]
        out.append(Schedule(True, backward, run, live))
    return out


def states_before(states: Array, initial: Array | None, schedule: Schedule) -> Array:
    """State (T, N, H) that the cell saw at every step that it ran, from the states after every step.

    Elsewhere the values mean nothing.
    """
    before = np.empty(states.shape, states.dtype)
    first = 0 if initial is None else initial
    if schedule.reverse:
        before[:-1] = states[1:]
        before[-1:] = first
        if schedule.live is not None:  # a row starts at its own end, not at T
            start = ~schedule.live[1:, :, None]
            np.copyto(before[:-1], first, where=start)
    else:
        before[1:] = states[:-1]
        before[:1] = first
    if schedule.zero is not None:
        before[schedule.zero] = 0
    return before


def state_before(states: Array, initial: Array | None, schedule: Schedule, segment: slice) -> Array | None:
    """State (N, H) before a segment, from the states (T, N, H) after every step; None: zeros."""
    edge = segment.stop if schedule.reverse else segment.start - 1
    if edge in (-1, len(states)):
        return initial
    after: Array = states[edge]
    if not schedule.reverse or schedule.live is None:
        return after
    first = after.dtype.type(0) if initial is None else initial
    before: Array = np.where(schedule.live[edge, :, None], after, first)
    return before


def zone(share: Array | None, t: int, new: Array, old: Array) -> None:
    """Zoneout, in place: new (N, H) = z * old + (1 - z) * new."""
    if share is not None:
        new *= 1 - share[t]
        new += share[t] * old


def made(states: Array, before: Array, share: Array | None) -> Array:
    """What the cell gave: (state - z * before) / (1 - z); where z is 1 it did not count, and may be anything."""
    if share is None:
        return states
    left = 1 - share
    given: Array = np.divide(states - share * before, left, out=states.copy(), where=left != 0)
    return given
