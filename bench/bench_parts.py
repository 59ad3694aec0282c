"""Where the time of a training step goes: packing, forward, time loop back, dx, gradients of weights.

    python bench/bench_parts.py lstm,32,100,256,256 gru,1,100,512,512          # cell,N,T,I,H ...

One thread, float32, medians of interleaved rounds on the compiled backend. GFLOP/s counts matrix products only; dx and
the gradients of weights are differences of two backward calls, with and without them. The product of two 1024 x 1024
matrices by NumPy's BLAS, measured in the same rounds, is the yardstick.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import _common  # isort: skip - first: pins the process before NumPy is loaded
import numpy as np

import fastrnn
from fastrnn._spec import GATES, Spec
from fastrnn.backends import _core  # type: ignore[import-not-found,unused-ignore]

ROUNDS = 7


def calls(cell: str, sizes: tuple[int, int, int, int]) -> tuple[dict[str, Callable[[], Any]], Callable[[], Any]]:
    """The calls to time by name, and the one that refills the tape before each backward."""
    batch, steps, inputs, hidden = sizes
    spec = Spec(cell, inputs, hidden)
    rng = np.random.default_rng(0)
    weights = (rng.uniform(-1, 1, spec.weight_count) / np.sqrt(hidden)).astype(np.float32)
    packed = _core.pack(spec, weights)
    x, dx = rng.standard_normal((2, steps, batch, inputs), dtype=np.float32)
    y, dy = rng.standard_normal((2, steps, batch, hidden), dtype=np.float32)
    hn = np.zeros((1, batch, hidden), np.float32)
    cn = np.zeros_like(hn) if cell == "lstm" else None
    dw = np.empty_like(weights)
    tape = _core.make_tape(packed, steps, batch)
    square = np.ones((1024, 1024), np.float32)

    def forward(tape: Any) -> Callable[[], Any]:
        return lambda: _core.forward(packed, x, y, None, None, hn, cn, None, None, None, None, tape)

    def backward(dx: Any, dw: Any) -> Callable[[], Any]:
        return lambda: _core.backward(
            packed, tape, x, y, None, None, dy, None, None, dx, None, None, dw, None, None, None, None, False, False
        )  # fmt: skip

    named = {
        "pack": lambda: _core.pack(spec, weights),
        "inference": forward(None),
        "forward": forward(tape),
        "back": backward(None, None),
        "back+dx": backward(dx, None),
        "back+dw": backward(None, dw),
        "backward": backward(dx, dw),
        "sgemm": lambda: square @ square,
    }
    return named, forward(tape)


def measure(cell: str, sizes: tuple[int, int, int, int]) -> None:
    named, refill = calls(cell, sizes)
    times: dict[str, list[float]] = {name: [] for name in named}
    for _ in range(ROUNDS):
        for name, call in named.items():
            if name.startswith("back"):
                refill()
            start = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - start)
    median = {name: statistics.median(values) for name, values in times.items()}
    batch, steps, inputs, hidden = sizes
    unit = 2 * steps * batch * GATES[cell] * hidden  # operations for one input or one hidden unit
    recurrent = unit * hidden * (steps - 1) // steps  # U begins at the second step
    both = unit * inputs + recurrent
    rows = [
        ("pack", median["pack"], 0),
        ("inference", median["inference"], both),
        ("forward with tape", median["forward"], both),
        ("time loop back", median["back"], recurrent),
        ("dx", median["back+dx"] - median["back"], unit * inputs),
        ("gradients of weights", median["back+dw"] - median["back"], both),
        ("forward + backward", median["forward"] + median["backward"], 3 * both),
    ]
    print(
        f"\n{cell} N={batch} T={steps} I={inputs} H={hidden}    sgemm {2 * 1024**3 / median['sgemm'] / 1e9:.0f} GFLOP/s"
    )
    for name, seconds, operations in rows:
        speed = f"{operations / seconds / 1e9:7.1f} GFLOP/s" if operations and seconds > 0 else " " * 15
        print(f"  {name:22} {seconds * 1e6:10.0f} us {speed}   {seconds / median['inference']:5.2f} of inference")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", default=[f"{cell},32,100,256,256" for cell in GATES])
    print(
        f"{_common.cpu_name()}, fastrnn {fastrnn.__version__}, NumPy {np.__version__}, {_core.isa_active()}, one thread"
    )
    for case in parser.parse_args().cases:
        cell, *sizes = case.split(",")
        batch, steps, inputs, hidden = map(int, sizes)
        measure(cell, (batch, steps, inputs, hidden))


if __name__ == "__main__":
    main()
