"""The systems that a benchmark compares, each driven as its own users would drive it.

Every system gets the same float32 arrays and weights. Inference returns y (T, N, D*H); training takes new weights, runs
forward and backward and leaves dL/dx and the gradients of all weights. What a system prepares once, a session, a
compiled graph, packed weights of inference, it prepares before it is timed.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from contextlib import nullcontext
from importlib.metadata import version
from typing import Any, NamedTuple, Protocol, cast

import numpy as np

from . import backends, layers
from ._bench_cases import NAMES, Case
from ._config import set_num_threads


class Work(NamedTuple):
    """A call that does the work once, and what makes arrays of its result: y, or dx and then the weights' gradients."""

    call: Callable[[], Any]
    arrays: Callable[[Any], list[Any]]


class System(Protocol):
    label: str
    packages: tuple[str, ...]  # distributions; the first has the version that is reported

    def set_up(self, threads: int) -> None:
        """Import what is needed, and limit it to that many threads."""

    def prepare(self, case: Case) -> Work | None:
        """None: the system cannot do this at all."""


class Layers:
    """The layers of this package on one of its backends; None: the one in force."""

    packages: tuple[str, ...]

    def __init__(self, label: str, backend: str | None, packages: tuple[str, ...]) -> None:
        self.label, self.backend, self.packages = label, backend, packages

    def set_up(self, threads: int) -> None:
        if self.backend is None:
            set_num_threads(threads)
        else:
            backends.load(self.backend)

    def prepare(self, case: Case) -> Work | None:
        backend = nullcontext() if self.backend is None else backends.backend(self.backend)
        layer = getattr(layers, NAMES[case.cell])(case.I, case.H, case.L, bidirectional=case.bidirectional)
        layer.load_state_dict(case.weights())
        x, dy = case.arrays()

        def infer() -> Any:
            with backend:
                return layer(x)[0]

        def train() -> Any:
            with layer.edit() as weights:  # a training step has new weights, so packing them is part of its cost
                weights.flat[:1] += 0
            with backend:
                tape = layer.forward(x)[2]
                return layer.backward(tape, dy)

        if case.mode == "inference":
            return Work(infer, lambda y: [y])
        return Work(train, lambda gradients: [gradients.x, *gradients.weights.values()])


class Torch:
    label = "PyTorch"
    packages: tuple[str, ...] = ("torch",)

    def set_up(self, threads: int) -> None:
        self.torch: Any = importlib.import_module("torch")
        self.torch.set_num_threads(threads)

    def prepare(self, case: Case) -> Work | None:
        torch = self.torch
        layer = getattr(torch.nn, NAMES[case.cell])(case.I, case.H, case.L, bidirectional=case.bidirectional)
        layer.load_state_dict({name: torch.from_numpy(a) for name, a in case.weights().items()})
        x, dy = map(torch.from_numpy, case.arrays())
        parameters = list(layer.parameters())

        def infer() -> Any:
            with torch.inference_mode():
                return layer(x)[0]

        def train() -> Any:
            x.grad = None
            for parameter in parameters:
                parameter.grad = None
            layer(x)[0].backward(dy)
            return x.grad

        if case.mode == "inference":
            layer.eval()
            return Work(infer, lambda y: [y.numpy()])
        x.requires_grad_()
        return Work(train, lambda dx: [a.numpy() for a in (dx, *(p.grad for p in parameters))])


def _onnx_model(case: Case) -> bytes:
    """The stack as an ONNX model of fixed sizes, without the final states."""
    from .onnx.export import stack_model  # needs the package onnx

    model = stack_model(case.spec, case.weights(), final=False, sizes=(case.T, case.N))
    return cast(bytes, model.SerializeToString())


class OnnxRuntime:
    label = "ONNX Runtime"
    packages: tuple[str, ...] = ("onnxruntime", "onnx")

    def set_up(self, threads: int) -> None:
        importlib.import_module("onnx")
        self.runtime: Any = importlib.import_module("onnxruntime")
        self.threads = threads

    def prepare(self, case: Case) -> Work | None:
        if case.mode == "training":
            return None
        options = self.runtime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = self.threads, 1
        session = self.runtime.InferenceSession(_onnx_model(case), options, providers=["CPUExecutionProvider"])
        inputs = {"x": case.arrays()[0]}
        return Work(lambda: session.run(None, inputs), list)


class OpenVino:
    label = "OpenVINO"
    packages: tuple[str, ...] = ("openvino", "onnx")

    def set_up(self, threads: int) -> None:
        importlib.import_module("onnx")
        self.openvino: Any = importlib.import_module("openvino")
        self.threads = threads

    def prepare(self, case: Case) -> Work | None:
        if case.mode == "training":
            return None
        core = self.openvino.Core()
        options = {
            "INFERENCE_NUM_THREADS": self.threads,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",  # it would compute in bfloat16 where the CPU can
        }
        request = core.compile_model(core.read_model(_onnx_model(case)), "CPU", options).create_infer_request()
        inputs = {0: case.arrays()[0]}
        return Work(lambda: request.infer(inputs, share_inputs=True, share_outputs=True), lambda result: [result[0]])


class Jax:
    """A scan over the steps under jit, the product with x of all steps before it."""

    label = "JAX"
    packages: tuple[str, ...] = ("jax",)

    def set_up(self, threads: int) -> None:
        self.jax: Any = importlib.import_module("jax")  # threads: XLA_FLAGS and the affinity of the process

    def prepare(self, case: Case) -> Work | None:
        jax, jnp = self.jax, self.jax.numpy
        weights = {name: jnp.asarray(a) for name, a in case.weights().items()}
        x, dy = map(jnp.asarray, case.arrays())

        def output(x: Any, weights: dict[str, Any]) -> Any:
            for layer in range(case.L):
                ways = ("", "_reverse")[: case.spec.directions]
                x = jnp.concatenate([self._direction(case, x, weights, f"_l{layer}{way}") for way in ways], axis=-1)
            return x

        if case.mode == "inference":
            infer = jax.jit(output)
            return Work(lambda: infer(x, weights).block_until_ready(), lambda y: [y])

        def gradients(x: Any, weights: dict[str, Any], dy: Any) -> Any:
            return jax.vjp(output, x, weights)[1](dy)

        train = jax.jit(gradients)
        names = list(weights)
        return Work(
            lambda: jax.block_until_ready(train(x, weights, dy)),
            lambda found: [found[0], *(found[1][name] for name in names)],
        )

    def _direction(self, case: Case, x: Any, weights: dict[str, Any], suffix: str) -> Any:
        jax, jnp = self.jax, self.jax.numpy
        w, u, b, c = (weights[f"{name}{suffix}"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
        sigmoid, tanh, gru = jax.nn.sigmoid, jnp.tanh, case.cell == "gru"

        def step(state: Any, pre: Any) -> Any:
            h = state[0]
            z = h @ u.T
            if case.cell == "rnn":
                h = tanh(pre + z)
                return (h,), h
            if gru:
                (r, update, n), (r_h, update_h, n_h) = jnp.split(pre, 3, -1), jnp.split(z + c, 3, -1)
                n = tanh(n + sigmoid(r + r_h) * n_h)
                h = n + sigmoid(update + update_h) * (h - n)
                return (h,), h
            i, f, g, o = jnp.split(pre + z, 4, -1)
            cell = sigmoid(f) * state[1] + sigmoid(i) * tanh(g)
            h = sigmoid(o) * tanh(cell)
            return (h, cell), h

        zeros = jnp.zeros((x.shape[1], case.H), x.dtype)
        state = (zeros, zeros) if case.cell == "lstm" else (zeros,)
        pre = x @ w.T + (b if gru else b + c)
        return jax.lax.scan(step, state, pre, reverse=suffix.endswith("_reverse"))[1]


SYSTEMS: dict[str, System] = {
    "numpy": Layers("NumPy", "numpy", ("numpy",)),
    "numba": Layers("Numba", "numba", ("numba",)),
    "torch": Torch(),
    "onnxruntime": OnnxRuntime(),
    "openvino": OpenVino(),
    "jax": Jax(),
    "fastrnn": Layers("fastrnn", None, ()),
}
PEERS = ("torch", "onnxruntime", "openvino", "jax")  # what the ratio to the best peer is taken over
DEFAULT = ("numpy", *PEERS, "fastrnn")


def set_up(name: str, threads: int) -> tuple[str, str]:
    """(version, "") of a system that can be used now, or ("", why not)."""
    system = SYSTEMS[name]
    try:
        system.set_up(threads)
        return version(system.packages[0]) if system.packages else "", ""
    except ImportError as error:
        absent = isinstance(error, ModuleNotFoundError) or name == "numba"
        return "", f"not installed: pip install {' '.join(system.packages)}" if absent else f"does not load: {error}"
    except Exception as error:  # a peer's broken installation must not end the comparison with the others
        return "", f"does not load: {type(error).__name__}: {error}"


def difference(found: list[Any], wanted: list[Any]) -> float:
    """Largest error over all arrays, each relative to its largest element; not a number if shapes differ."""
    if len(found) != len(wanted):
        return float("nan")
    errors = []
    for a, b in zip(found, wanted, strict=True):
        got = np.asarray(a)
        if got.shape != b.shape:
            return float("nan")
        errors.append(np.abs(got - b).max(initial=0) / max(np.abs(b).max(initial=0), 1e-30))
    return float(np.max(errors))  # a NaN stays
