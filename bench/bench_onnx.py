"""A session of one recurrent node against ONNX Runtime: the core shapes with one row, and single steps.

    python bench/bench_onnx.py

float32, inference, one thread for both, the same model and inputs. Rounds are interleaved; times are medians, and the
ratio is ONNX Runtime's time over fastrnn's. Results are compared before anything is timed. The model has one node and
initial states, as a service that keeps them would run it; T=1 is what such a service runs.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import _common  # isort: skip - first: pins the process before NumPy is loaded
import numpy as np
import onnx
import onnxruntime

import fastrnn
import fastrnn.onnx
from fastrnn._bench_cases import CORE, NAMES
from fastrnn.backends import _core  # type: ignore[import-not-found,unused-ignore]

SIZES = sorted({hidden for _, _, _, hidden, layers, both in CORE if layers == 1 and not both})
ROUNDS, ROUND = 21, 2e-3  # seconds


def one_node(cell: str, hidden: int) -> Any:
    """The recurrent node of an exported layer alone: X (T, N, I), h0 (and c0) -> Y (T, 1, N, H), Y_h (and Y_c)."""
    layer = _common.CELLS[cell][0](hidden, hidden, rng=0)
    exported = fastrnn.onnx.export(layer).graph
    node = next(n for n in exported.node if n.op_type == NAMES[cell])
    states = ["h0", "c0"][: 2 if cell == "lstm" else 1]
    node.input[:] = [*node.input[:4], "", *states]
    float32, info = onnx.TensorProto.FLOAT, onnx.helper.make_tensor_value_info
    inputs = [info("x", float32, ["T", 1, hidden]), *(info(name, float32, [1, 1, hidden]) for name in states)]
    outputs = [
        info(name, float32, ["T", 1, 1, hidden] if name == node.output[0] else [1, 1, hidden]) for name in node.output
    ]
    constants = [tensor for tensor in exported.initializer if tensor.name in node.input]
    graph = onnx.helper.make_graph([node], "one", inputs, outputs, constants)
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)


def medians(ours: Any, theirs: Any) -> tuple[float, float]:
    """Seconds of one call of each."""
    calls = (ours, theirs)
    for call in calls:
        call()
    start = time.perf_counter()
    theirs()
    repeats = max(1, round(ROUND / max(time.perf_counter() - start, 1e-6)))
    times: list[list[float]] = [[], []]
    for round_ in range(ROUNDS):
        for k in (0, 1) if round_ % 2 else (1, 0):
            start = time.perf_counter()
            for _ in range(repeats):
                calls[k]()
            times[k].append((time.perf_counter() - start) / repeats)
    return statistics.median(times[0]), statistics.median(times[1])


def main() -> None:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    print(
        f"{_common.cpu_name()}, {_core.isa_active()}, one thread; fastrnn {fastrnn.__version__}, "
        f"ONNX Runtime {onnxruntime.__version__}, onnx {onnx.__version__}"
    )
    print(f"{'cell':5} {'T':>4} {'I=H':>5} {'fastrnn us':>11} {'ORT us':>10} {'ratio':>6}")
    rng = np.random.default_rng(0)
    for cell in ("lstm", "gru", "rnn"):
        for hidden in SIZES:
            model = one_node(cell, hidden)
            mine = fastrnn.onnx.Session(model)
            their = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
            for steps in (1, 100):
                shapes = {entry.name: (steps if entry.name == "x" else 1, 1, hidden) for entry in model.graph.input}
                feed = {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}
                for a, b in zip(mine.run(feed), their.run(None, feed), strict=True):
                    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
                ours, theirs = medians(lambda: mine.run(feed), lambda: their.run(None, feed))  # noqa: B023
                print(f"{cell:5} {steps:4} {hidden:5} {ours * 1e6:11.2f} {theirs * 1e6:10.2f} {theirs / ours:6.2f}")


if __name__ == "__main__":
    main()
