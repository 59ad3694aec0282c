"""Largest errors of the compiled sigmoid and tanh, in units in the last place, over a sweep of all floats.

    python bench/bench_numerics.py                    # every 997th float32 pattern, a million float64 values
    python bench/bench_numerics.py --stride 1         # every float32 (hours)
    python bench/bench_numerics.py --markdown docs/numerics.md   # write the table between the markers there

Layers are made so that their output is one activation of their input: tanh is an RNN of width one with W = 1, U = 0;
sigmoid is the forget gate of an LSTM with c = 1; sigmoid(a) tanh(b), which inference computes with one division, is an
LSTM's new cell state. References are NumPy in long double (80 bits on x86).
"""

from __future__ import annotations

import argparse
import datetime
import pathlib
from typing import Any

import _common  # isort: skip - first: pins the process before NumPy is loaded
import numpy as np
import numpy.typing as npt

import fastrnn
from fastrnn.backends import _core  # type: ignore[import-not-found,unused-ignore]

Array = npt.NDArray[Any]


def tanh_layer(dtype: str) -> fastrnn.RNN:
    layer = fastrnn.RNN(1, 1, dtype=dtype, bias=False)
    with layer.edit() as weights:
        weights["weight_ih_l0"][:] = 1
        weights["weight_hh_l0"][:] = 0
    return layer


def lstm_layer(dtype: str, rows: tuple[tuple[int, int], ...], inputs: int) -> fastrnn.LSTM:
    layer = fastrnn.LSTM(inputs, 1, dtype=dtype, bias=False)
    with layer.edit() as weights:
        for array in weights.values():
            array[:] = 0
        for gate, column in rows:
            weights["weight_ih_l0"][gate, column] = 1
    return layer


def evaluate(name: str, a: Array, b: Array) -> Array:
    """The kernel's value of an activation at each a (and b)."""
    dtype, n = a.dtype.name, a.size
    if name == "tanh":
        return tanh_layer(dtype)(a.reshape(1, n, 1))[0].ravel()
    h, c = np.zeros((1, n, 1), a.dtype), np.ones((1, n, 1), a.dtype)
    if name == "sigmoid":
        layer = lstm_layer(dtype, ((1, 0),), 1)
        return np.asarray(layer(a.reshape(1, n, 1), (h, c))[1][1]).ravel()
    layer = lstm_layer(dtype, ((0, 0), (2, 1)), 2)
    return np.asarray(layer(np.stack([a, b], -1).reshape(1, n, 2), (h, 0 * c))[1][1]).ravel()


def reference(name: str, a: Array, b: Array) -> Array:
    wide_a, wide_b = a.astype(np.longdouble), b.astype(np.longdouble)
    if name == "tanh":
        return np.tanh(wide_a)
    with np.errstate(over="ignore"):
        gate = 1 / (1 + np.exp(-wide_a))
    return gate if name == "sigmoid" else gate * np.tanh(wide_b)


def ulps(got: Array, exact: Array) -> Array:
    """|got - exact| in spacings of got's dtype at exact; below the smallest normal, which is flushed, in that."""
    tiny = np.finfo(got.dtype).tiny
    size = np.abs(exact.astype(got.dtype))
    spacing = np.where(size < tiny, tiny, np.spacing(np.maximum(size, tiny)))
    return np.abs(got.astype(np.longdouble) - exact) / spacing


def sweep(dtype: str, stride: int, limit: float) -> Array:
    if dtype == "float32":
        with np.errstate(invalid="ignore"):
            x = np.arange(0, 2**32, stride, dtype=np.uint64).astype(np.uint32).view(np.float32)
            return x[np.isfinite(x) & (np.abs(x) <= limit) & (np.abs(x) >= np.finfo(np.float32).tiny)]
    rng = np.random.default_rng(0)
    size = rng.uniform(-300, np.log10(limit), 500_000)
    return np.concatenate([rng.uniform(-limit, limit, 500_000), 10.0**size * rng.choice([-1.0, 1.0], size.size)])


CASES = (("tanh", 1e30), ("sigmoid", 65.0), ("sigmoid(a) tanh(b)", 65.0))


def measure(stride: int) -> list[tuple[str, str, str, float, float]]:
    rows = []
    for isa in _core.config()["isas_runnable"]:
        _core.force_isa(isa)
        for dtype in ("float32", "float64"):
            for name, limit in CASES:
                a = sweep(dtype, stride, limit if dtype == "float32" or name == "tanh" else 600.0)
                worst = largest = 0.0
                for part in np.array_split(a, max(1, a.size // 100_000)):
                    b = np.random.default_rng(1).permutation(part)
                    got, exact = evaluate(name, part, b), reference(name, part, b)
                    worst = max(worst, float(ulps(got, exact).max()))
                    largest = max(largest, float(np.abs(got - exact).max()))
                rows.append((isa, dtype, name, worst, largest))
                print(f"{isa:8} {dtype:8} {name:20} {worst:8.2f} ulp   {largest:.2e} absolute", flush=True)
    _core.force_isa(None)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stride", type=int, default=997)
    parser.add_argument("--markdown", type=pathlib.Path)
    args = parser.parse_args()
    rows = measure(args.stride)
    if args.markdown is None:
        return
    lines = ["| instruction set | dtype | function | max error, ulp | max error, absolute |", "|---|---|---|---|---|"]
    lines += [f"| {isa} | {dtype} | {name} | {u:.2f} | {e:.1e} |" for isa, dtype, name, u, e in rows]
    command = f"python bench/bench_numerics.py --stride {args.stride}"
    lines += ["", f"`{command}`; {_common.cpu_name()}, fastrnn {fastrnn.__version__}, {datetime.date.today()}"]
    text = args.markdown.read_text()
    head, rest = text.split("<!-- numerics:begin -->")
    tail = rest.split("<!-- numerics:end -->")[1]
    body = "\n".join(lines)
    args.markdown.write_text(f"{head}<!-- numerics:begin -->\n{body}\n<!-- numerics:end -->{tail}")


if __name__ == "__main__":
    main()
