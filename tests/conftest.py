"""Which systems the tests run on: every backend, and the compiled one once per instruction set."""

# ruff: noqa: E402 - BLAS reads its number of threads, and Python its path, before the imports below

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module, metadata
from pathlib import Path
from types import ModuleType
from typing import Any

for variable in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(variable, "1")  # before NumPy loads its BLAS: small products only wait for more threads

import numpy as np
import pytest
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parent))  # `from problems import ...` under every import mode

import fastrnn
from problems import CELLS

MODULES = {"cpp": "fastrnn.backends._core", "numba": "fastrnn.backends._numba", "numpy": "fastrnn.backends._numpy"}


def pytest_report_header() -> str:
    """The versions of what the tests compare with: a result says what it was got on."""
    names = ("numpy", "numba", "torch", "sb3-contrib", "darts")
    here = {found.metadata["Name"]: found.version for found in metadata.distributions()}
    return "on " + ", ".join(f"{name} {here[name]}" for name in names if name in here)


@dataclass(frozen=True)
class System:
    """A backend and, for the compiled one, an instruction set."""

    backend: str
    isa: str = ""

    def __str__(self) -> str:
        return f"{self.backend}-{self.isa}" if self.isa else self.backend

    @property
    def module(self) -> ModuleType:
        return import_module(MODULES[self.backend])

    @property
    def bitwise(self) -> bool:
        """Whether a row's arithmetic is promised not to depend on the shape of the call."""
        return self.backend == "cpp"

    @contextmanager
    def active(self) -> Iterator[System]:
        """Make the system the one that `fastrnn` calls run on."""
        core = self.module if self.isa else None
        if core:
            core.force_isa(self.isa)
        try:
            with fastrnn.backend(self.backend):
                yield self
        finally:
            if core:
                core.force_isa(None)

    def same(self, got: NDArray[Any], want: NDArray[Any]) -> None:
        """Assert equality: bit for bit where promised, else to rounding."""
        assert got.shape == want.shape
        if self.bitwise:
            unsigned = f"u{got.dtype.itemsize}"
            assert np.array_equal(np.ascontiguousarray(got).view(unsigned), np.ascontiguousarray(want).view(unsigned))
        else:
            scale = 2e-6 if got.dtype == np.float32 else 1e-12
            np.testing.assert_allclose(got, want, rtol=scale, atol=scale)


def make_layer(cell: str, *sizes: int, **options: Any) -> Any:
    """A layer of one of `CELLS` with fixed random weights."""
    arguments = dict(CELLS[cell])
    kind = {"rnn": fastrnn.RNN, "lstm": fastrnn.LSTM, "gru": fastrnn.GRU}[arguments.pop("cell")]
    return kind(*sizes, **{"rng": 1, **arguments, **options})


def parts(state: Any) -> tuple[NDArray[Any], ...]:
    """(h, c) of an LSTM, (h,) of the others."""
    return state if isinstance(state, tuple) else (state,)


def required(what: str) -> bool:
    """FASTRNN_REQUIRE_CORE, _NUMBA, _TORCH: the thing must be there, its absence is a failure and not a skip."""
    return os.environ.get(f"FASTRNN_REQUIRE_{what.upper()}", "") not in ("", "0")


def _systems() -> list[Any]:
    """All systems as pytest parameters, the absent ones as visible skips."""
    params = [pytest.param(System("numpy"), id="numpy")]
    for backend, what in (("numba", "numba"), ("cpp", "core")):
        try:
            module = import_module(MODULES[backend])
        except ImportError as error:
            if required(what):
                raise
            params.append(pytest.param(System(backend), id=backend, marks=pytest.mark.skip(f"not installed: {error}")))
            continue
        if backend == "numba":
            params.append(pytest.param(System(backend), id=backend))
            continue
        facts = module.config()
        for isa in facts["isas_built"]:
            system = System(backend, isa)
            marks = [] if isa in facts["isas_runnable"] else [pytest.mark.skip(f"{isa} cannot run on this machine")]
            params.append(pytest.param(system, id=str(system), marks=marks))
    return params


SYSTEMS = _systems()

with warnings.catch_warnings():  # what the automatic choice has to say belongs to no test
    warnings.simplefilter("ignore")
    fastrnn.get_num_threads()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that asks for `system` runs on every one of them."""
    if "system" in metafunc.fixturenames:
        metafunc.parametrize("system", SYSTEMS, indirect=True)


@pytest.fixture
def system(request: pytest.FixtureRequest) -> Iterator[System]:
    with request.param.active() as active:
        yield active


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(1)
