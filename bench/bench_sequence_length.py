"""Speed against sequence length: the compiled kernels, Numba and NumPy on the same layers, one thread, float32.

    python bench/bench_sequence_length.py --benchmark-json=out.json     # or: python -m pytest bench/bench_...
    python bench/report.py out.json --svg docs/img/sequence_length.svg --readme README.md

Every group of the table is one cell, mode and T, so the numbers in parentheses are the ratios between systems.
`forward` is the inference call, `forward+backward` a training call with its tape and all gradients (x, state, weights).
NumPy is the package's NumPy backend: input projection hoisted out of the time loop, one matrix product per step. The
results of the systems are compared before they are timed.

Speed is counted in row-steps per second, T*N divided by the time of a call: the steps of all sequences of the batch.
GFLOP/s counts the matrix products only, those with U from the second step on.
"""

from __future__ import annotations

import sys
from typing import Any

import _common  # isort: skip - first: pins the process before NumPy is loaded
import numpy as np
import pytest

import fastrnn
from fastrnn import backends

MODES = ("forward", "forward+backward")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    def option(name: str) -> list[str]:
        return [part.strip() for part in metafunc.config.getoption(name).split(",")]

    metafunc.parametrize("cell", option("cells"))
    metafunc.parametrize("mode", MODES)
    metafunc.parametrize("steps", [int(steps) for steps in option("steps")])
    metafunc.parametrize("system", option("systems"))  # the last runs fastest: what is compared is measured in a row


@pytest.fixture(scope="module")
def results() -> dict[tuple[str, int], Any]:
    """y of the system that was measured first, by cell and T."""
    return {}


def test_speed(
    benchmark: Any, request: pytest.FixtureRequest, results: Any, cell: str, mode: str, steps: int, system: str
) -> None:
    if system not in backends.available():
        pytest.skip(f"backend {system} is not installed")
    batch, inputs, hidden = (int(size) for size in request.config.getoption("sizes").split(","))
    with fastrnn.backend(system):
        call, y = _common.work(cell, mode, (steps, batch, inputs, hidden))
        want = results.setdefault((cell, steps), y.copy())
        np.testing.assert_allclose(y, want, rtol=0, atol=2e-5, err_msg=f"{system} computes something else")
        rounds, iterations = _common.rounds(call, request.config.getoption("budget"))
        benchmark.group = f"{cell} {mode} T={steps} N={batch} I={inputs} H={hidden}"
        amount = _common.flops(cell, mode, steps * batch, batch, inputs, hidden)
        sizes = {"T": steps, "N": batch, "I": inputs, "H": hidden}
        benchmark.extra_info.update(cell=cell, mode=mode, system=system, flops=amount, row_steps=steps * batch, **sizes)
        benchmark.pedantic(call, rounds=rounds, iterations=iterations)
    if benchmark.stats is not None:  # None under --benchmark-disable
        seconds = benchmark.stats.stats.median
        benchmark.extra_info.update(row_steps_per_s=steps * batch / seconds, gflops=amount / seconds / 1e9)


if __name__ == "__main__":
    table = ["--benchmark-columns=median,min,rounds", "--benchmark-sort=fullname", "--benchmark-warmup=off"]
    sys.exit(pytest.main([__file__, "-q", *table, *sys.argv[1:]]))
