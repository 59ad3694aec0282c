"""One step, N=1, T=1, I=H=64, through Python: a stream's step and a plain call beside ONNX Runtime, a training step
beside JAX and PyTorch. Everything on one CPU, one thread; the systems take turns, each figure is the median of the
rounds.

    python bench/bench_small.py [rounds]

Peers that are not installed are left out. A training step is one update of the weights, forward and backward: of
fastrnn through `edit()`, `forward` and `backward`; of JAX (LSTM) a jitted function of weights that are replaced at
every step; of PyTorch `torch.nn` with an in-place update under `no_grad`.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")

import numpy as np

import fastrnn

I = H = 64  # noqa: E741 - the letters of the shapes
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
Call = Callable[[], Any]
RNG = np.random.default_rng(0)
X = RNG.standard_normal((1, 1, I)).astype(np.float32)
DY = RNG.standard_normal((1, 1, H)).astype(np.float32)


def inference(cell: str) -> dict[str, Call]:
    layer = getattr(fastrnn, cell)(I, H, rng=0)
    stream, x_t, out = layer.stream(), X[0].copy(), np.empty((1, H), np.float32)
    _, state = layer(X)
    calls: dict[str, Call] = {
        "stream.step": lambda: stream.step(x_t, out=out),
        "call": lambda: layer(X),
        "call with state": lambda: layer(X, state),
    }
    try:
        import onnx
        import onnxruntime
        from onnx import TensorProto, helper
    except ImportError:
        return calls
    rows = GATES[cell] * H
    weights = [RNG.standard_normal(s).astype(np.float32) / 8 for s in ((1, rows, I), (1, rows, H), (1, 2 * rows))]
    states = ["h0", "c0"] if cell == "LSTM" else ["h0"]
    ends = ["hn", "cn"] if cell == "LSTM" else ["hn"]
    node = helper.make_node(cell, ["x", "w", "u", "b", "", *states], ["y", *ends], hidden_size=H)

    def value(name: str, *shape: int) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    graph = helper.make_graph(
        [node], "step", [value("x", 1, 1, I), *(value(s, 1, 1, H) for s in states)],
        [value("y", 1, 1, 1, H), *(value(s, 1, 1, H) for s in ends)],
        [onnx.numpy_helper.from_array(a, n) for a, n in zip(weights, "wub", strict=True)],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    feed = {"x": X, **{s: np.zeros((1, 1, H), np.float32) for s in states}}
    calls["ONNX Runtime run"] = lambda: session.run(None, feed)
    return calls


def training(cell: str) -> dict[str, Call]:
    layer = getattr(fastrnn, cell)(I, H, rng=0)

    def step() -> Any:
        with layer.edit() as weights:
            weights["bias_ih_l0"][0] += 1e-6
        _, _, tape = layer.forward(X)
        return layer.backward(tape, DY)

    calls: dict[str, Call] = {"training": step}
    calls.update(_torch(cell))
    calls.update(_jax() if cell == "LSTM" else {})
    return calls


def _torch(cell: str) -> dict[str, Call]:
    try:
        import torch
    except ImportError:
        return {}
    torch.set_num_threads(1)
    peer, x, dy = getattr(torch.nn, cell)(I, H), torch.from_numpy(X).requires_grad_(), torch.from_numpy(DY)

    def step() -> None:
        with torch.no_grad():
            peer.bias_ih_l0[0] += 1e-6
        peer.zero_grad()
        x.grad = None
        peer(x)[0].backward(dy)

    return {"PyTorch training": step}


def _jax() -> dict[str, Call]:
    try:
        import jax
        import jax.numpy as jnp
    except ImportError:
        return {}
    shapes = ((4 * H, I), (4 * H, H), (4 * H,), (4 * H,))
    held = [[jnp.asarray(RNG.standard_normal(s).astype(np.float32) / 8) for s in shapes]]
    dy = jnp.asarray(DY[0])

    def loss(weights: Any, x: Any) -> Any:
        w, u, b, c = weights
        h = cell_state = jnp.zeros((1, H), jnp.float32)
        i, f, g, o = jnp.split(x @ w.T + b + h @ u.T + c, 4, axis=1)
        new = jax.nn.sigmoid(f) * cell_state + jax.nn.sigmoid(i) * jnp.tanh(g)
        return jnp.vdot(jax.nn.sigmoid(o) * jnp.tanh(new), dy)

    @jax.jit
    def update(weights: Any, x: Any) -> Any:
        gradients, dx = jax.grad(loss, (0, 1))(weights, x)
        w, u, b, c = weights
        return [w, u, b.at[0].add(1e-6), c], gradients, dx

    x = jnp.asarray(X[0])

    def step() -> None:
        weights, gradients, dx = update(held[0], x)
        dx.block_until_ready()
        gradients[1].block_until_ready()
        held[0] = weights

    return {"JAX training": step}


def measure(calls: dict[str, Call], rounds: int) -> dict[str, float]:
    """Microseconds a call, less those of an empty one."""

    def timed(call: Call, count: int) -> float:
        start = time.perf_counter()
        for _ in range(count):
            call()
        return (time.perf_counter() - start) / count * 1e6

    calls = {"": lambda: None, **calls}
    counts = {name: max(10, int(3000 / max(timed(call, 200), 0.5))) for name, call in calls.items()}  # 3 ms each
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            times[name].append(timed(call, counts[name]))
    median = {name: statistics.median(values) for name, values in times.items()}
    empty = median.pop("")
    return {name: value - empty for name, value in median.items()}


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 101
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    fastrnn.set_num_threads(1)
    for cell in GATES:
        for calls in (inference(cell), training(cell)):
            found = measure(calls, rounds)
            own = [name for name in found if name in ("stream.step", "call", "call with state", "training")]
            print(cell, "  ".join(f"{name} {value:.2f} us" for name, value in found.items()))
            for peer in found.keys() - set(own):
                print("   ", "  ".join(f"{peer} / {name} {found[peer] / found[name]:.2f}" for name in own))


if __name__ == "__main__":
    main()
