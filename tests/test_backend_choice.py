"""Which backend runs: by default, by context manager, by environment; and what is said about it."""

from __future__ import annotations

import contextvars
import os
import subprocess
import sys
import threading
from typing import Any

import numpy as np
import pytest

import fastrnn
from fastrnn import backends

X = np.zeros((2, 1, 3), np.float32)


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run code in a new interpreter without the variables that choose backend and instruction set."""
    kept = {name: value for name, value in os.environ.items() if name not in ("FASTRNN_BACKEND", "FASTRNN_ISA")}
    return subprocess.run(
        [sys.executable, "-c", code], env=kept | environment, capture_output=True, text=True, check=False, timeout=120
    )


# Replaces backend modules by absent or failing ones before anything is chosen.
PRELUDE = """
import sys, types, importlib, numpy as np, fastrnn
from fastrnn import backends
real = importlib.import_module
def fake(name, package=None):
    error = faults.get(name)
    if error is not None:
        raise error
    return real(name, package)
backends.importlib.import_module = fake
absent_cpp = ModuleNotFoundError("No module named '_core'", name="fastrnn.backends._core")
absent_numba = ModuleNotFoundError("No module named 'numba'", name="numba")
"""
USE = "\nprint(fastrnn.functional.backends.current().NAME); fastrnn.GRU(3, 4)(np.zeros((1, 1, 3)))\n"


@pytest.mark.smoke
def test_context_manager() -> None:
    before = backends.current().NAME
    layer = fastrnn.LSTM(3, 4, rng=0)
    with fastrnn.backend("numpy") as chosen:
        assert backends.current().NAME == "numpy"
        assert repr(chosen) == "fastrnn.backend('numpy')"
        with chosen:
            assert backends.current().NAME == "numpy"
        assert layer._bind().backend == "numpy"
    assert before == backends.current().NAME
    with pytest.raises(ZeroDivisionError), fastrnn.backend("numpy"):
        _ = 1 / 0
    assert before == backends.current().NAME


def test_the_choice_is_of_one_thread_and_context() -> None:
    before = backends.current().NAME
    seen: list[str] = []

    def look() -> None:
        seen.append(backends.current().NAME)

    with fastrnn.backend("numpy"):
        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
        carried = contextvars.copy_context()
    carried.run(look)
    assert seen == [before, "numpy"]


@pytest.mark.parametrize("name", ["cuda", "", "Numpy", "general", None, 3])
def test_unknown_name(name: Any) -> None:
    with pytest.raises(ValueError, match=f"unknown backend {name!r}; .* 'cpp', 'numba', 'numpy'"):
        fastrnn.backend(name)


def test_available() -> None:
    names = backends.available()
    assert names[-1] == "numpy"
    assert backends.current().NAME in names
    for name in set(backends.MODULES) - set(names):
        with pytest.raises(ImportError, match=f"backend '{name}' cannot be used"):
            fastrnn.backend(name)


def test_importing_chooses_nothing() -> None:
    done = python("import sys, fastrnn; print([m for m in sys.modules if m.startswith('fastrnn.backends.')])")
    assert done.stdout.strip() == "[]", done.stderr


def test_environment() -> None:
    done = python("import numpy as np, fastrnn" + USE, FASTRNN_BACKEND="numpy")
    assert (done.stdout.strip(), done.stderr) == ("numpy", "")
    done = python("import fastrnn, numpy as np" + USE, FASTRNN_BACKEND="Torch")
    assert done.stderr.splitlines()[-1] == (
        "ValueError: FASTRNN_BACKEND is 'Torch'; it must be one of 'cpp', 'numba', 'numpy'"
    )


def test_an_explicit_choice_never_falls_back() -> None:
    code = PRELUDE + "faults = {'._core': absent_cpp, '._numba': absent_numba}" + USE
    done = python(code, FASTRNN_BACKEND="cpp")
    assert done.returncode == 1
    assert "ImportError: backend 'cpp' cannot be used: it was not built" in done.stderr
    done = python(code, FASTRNN_BACKEND="numba")
    assert "ImportError: backend 'numba' cannot be used: Numba is not installed" in done.stderr
    assert 'pip install "fastrnn[numba]"' in done.stderr
    code = PRELUDE + "faults = {'._core': ImportError('libstdc++.so.6: version not found')}" + USE
    assert "cannot be used: libstdc++.so.6: version not found" in python(code, FASTRNN_BACKEND="cpp").stderr


def test_numpy_is_said_once_and_the_extra_is_named() -> None:
    done = python(PRELUDE + "faults = {'._core': absent_cpp, '._numba': absent_numba}" + USE * 2)
    assert done.stdout.split() == ["numpy", "numpy"], done.stderr
    assert done.stderr.count("RuntimeWarning") == 1
    assert 'pip install "fastrnn[numba]"' in done.stderr
    assert "<string>" in done.stderr, "the warning points at the user's line"


def test_a_broken_core_is_reported() -> None:
    done = python(
        PRELUDE + "faults = {'._core': ImportError('undefined symbol: x'), '._numba': absent_numba}" + USE * 2
    )
    assert done.stdout.split() == ["numpy", "numpy"], done.stderr
    assert done.stderr.count("RuntimeWarning") == 1
    assert "'cpp' failed to import (undefined symbol: x)" in done.stderr


def test_a_wrong_instruction_set_is_no_missing_core() -> None:
    fault = "faults = {'._core': ValueError('FASTRNN_ISA is sse9')}"
    for environment in ({}, {"FASTRNN_BACKEND": "cpp"}):
        done = python(PRELUDE + fault + USE, **environment)
        assert done.stderr.splitlines()[-1] == "ValueError: FASTRNN_ISA is sse9"
    code = f"{PRELUDE}{fault}\nfor _ in range(2):\n    try: backends.current()\n    except ValueError as e: print(e)"
    assert python(code).stdout.split("\n")[:2] == ["FASTRNN_ISA is sse9"] * 2


def test_threads() -> None:
    before = fastrnn.get_num_threads()
    assert before >= 1
    with fastrnn.backend("numpy"):
        fastrnn.set_num_threads(3)
        assert fastrnn.get_num_threads() == 1
    assert fastrnn.get_num_threads() == before
    for count, error in ((0, ValueError), (-1, ValueError), (1.5, TypeError), (True, TypeError), (None, TypeError)):
        with pytest.raises(error, match="n is"):
            fastrnn.set_num_threads(count)  # type: ignore[arg-type]


def test_show_config(capsys: pytest.CaptureFixture[str]) -> None:
    assert fastrnn.show_config() is None
    lines = capsys.readouterr().out.splitlines()
    facts = fastrnn.show_config("dicts")
    assert facts is not None
    assert facts["fastrnn"] == fastrnn.__version__
    assert facts["backend"] == backends.current().NAME
    assert facts["numpy"] == np.__version__
    assert {line.split(":")[0] for line in lines} == {*facts}
    assert str(facts).splitlines() == lines
    with pytest.raises(ValueError, match="mode"):
        fastrnn.show_config("json")


@pytest.mark.smoke
def test_public_names() -> None:
    for name in fastrnn.__all__:
        assert getattr(fastrnn, name) is not None
        assert name in dir(fastrnn)
    with pytest.raises(AttributeError, match="no attribute 'LTSM'"):
        _ = fastrnn.LTSM


@pytest.mark.parametrize("value", ["abc", "0", "-1", "1.5"])
def test_a_wrong_number_of_threads_in_the_environment(value: str) -> None:
    pytest.importorskip("fastrnn.backends._core")
    code = "import fastrnn, numpy as np; fastrnn.GRU(2, 2)(np.zeros((1, 1, 2)))"
    done = python(code, FASTRNN_NUM_THREADS=value)
    assert done.returncode == 1
    assert "FASTRNN_NUM_THREADS" in done.stderr.splitlines()[-1]
    assert value in done.stderr.splitlines()[-1]


def test_more_threads_than_can_be_counted() -> None:
    before = fastrnn.get_num_threads()
    try:
        fastrnn.set_num_threads(10**30)
        assert fastrnn.get_num_threads() >= 1
    finally:
        fastrnn.set_num_threads(before)
