"""Small projects of other people, built and run against what is installed.

Their sources, tests/consumers, are the examples of docs/embedding.md.

Those of the library want FASTRNN_PREFIX, where `cmake --install` has put it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastrnn

pytest.importorskip("fastrnn.backends._core")

CONSUMERS = Path(__file__).parent / "consumers"


def run(*command: str | Path, cwd: Path | None = None, **variables: str) -> str:
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


def search_path(*folders: Path) -> str:
    """For other processes: these folders, and where fastrnn is imported from here."""
    return os.pathsep.join(map(str, [*folders, Path(fastrnn.__file__).parents[1]]))


@pytest.fixture
def prefix() -> Path:
    """Where the library is installed."""
    if "FASTRNN_PREFIX" not in os.environ:
        pytest.skip("FASTRNN_PREFIX names no installed library")
    return Path(os.environ["FASTRNN_PREFIX"])


@pytest.mark.parametrize("shared", ["ON", "OFF"])
def test_library_in_a_cmake_project(prefix: Path, shared: str, tmp_path: Path) -> None:
    if shutil.which("cmake") is None:
        pytest.skip("needs CMake")
    configure = ["cmake", "-S", CONSUMERS / "cmake", "-B", tmp_path, f"-DCMAKE_PREFIX_PATH={prefix}"]
    run(*configure, f"-DBUILD_SHARED_LIBS={shared}", "-DCMAKE_CXX_FLAGS=-Wall -Wextra -Werror")
    run("cmake", "--build", tmp_path)
    assert "in blocks the same" in run(tmp_path / "blocks")


def sample_stream(folder: Path) -> tuple[bytes, bytes]:
    """An LSTM's weights in a file, samples, and what comes out."""
    layer = fastrnn.LSTM(2, 20, rng=0)
    flat = np.concatenate([value.ravel() for value in layer.state_dict().values()])
    (folder / "weights.bin").write_bytes(np.array([2, 20], np.int64).tobytes() + flat.tobytes())
    x = np.random.default_rng(1).standard_normal((30, 2)).astype(np.float32)
    return x.tobytes(), np.asarray(layer(x)[0]).tobytes()


@pytest.mark.parametrize("kind", ["shared", "static"])
def test_library_in_c(prefix: Path, kind: str, tmp_path: Path) -> None:
    if shutil.which("pkg-config") is None or shutil.which("cc") is None:
        pytest.skip("needs a C compiler and pkg-config")
    folder = next(prefix.glob("lib*/pkgconfig"))
    flags = run(
        "pkg-config", "--cflags", "--libs", *(["--static"] if kind == "static" else []), "fastrnn",
        PKG_CONFIG_PATH=str(folder),
    ).split()  # fmt: skip
    if kind == "static":
        flags = [str(folder.parent / "libfastrnn.a") if flag == "-lfastrnn" else flag for flag in flags]
    warnings = ["-std=c99", "-Wall", "-Wextra", "-pedantic", "-Werror"]
    run("cc", *warnings, CONSUMERS / "c" / "stream.c", *flags, f"-Wl,-rpath,{folder.parent}", "-o", tmp_path / "stream")
    x, y = sample_stream(tmp_path)
    done = subprocess.run([tmp_path / "stream", tmp_path / "weights.bin"], input=x, capture_output=True, check=True)
    assert done.stdout == y
    (tmp_path / "weights.bin").write_bytes(b"short")
    assert subprocess.run([tmp_path / "stream", tmp_path / "weights.bin"], input=x, capture_output=True).returncode == 1


def test_wheel_capsule_in_c(tmp_path: Path) -> None:
    if shutil.which("cmake") is None:
        pytest.skip("needs CMake")
    run(
        "cmake", "-S", CONSUMERS / "capsule", "-B", tmp_path, f"-Dfastrnn_DIR={fastrnn.cmake_dir()}",
        f"-DPython_EXECUTABLE={sys.executable}",
    )  # fmt: skip
    run("cmake", "--build", tmp_path)
    code = "import steps; print(*steps.sizes(3, 5))\ntry: steps.sizes(0, 1)\nexcept ValueError as e: print(e)"
    out = run(sys.executable, "-c", code, cwd=tmp_path, PYTHONPATH=search_path(tmp_path))
    assert out.startswith(f"{4 * 5 * (3 + 5 + 2)} ")
    assert "out of its range" in out


def test_wheel_capsules_in_ctypes_and_cffi() -> None:
    out = run(sys.executable, CONSUMERS / "capsule" / "with_ctypes.py", PYTHONPATH=search_path())
    assert out == "2 threads; a pointer that must be given is null\n"
    cffi = pytest.importorskip("cffi")
    code = CONSUMERS.joinpath("capsule", "with_ctypes.py").read_text("utf-8")
    names: dict[str, Any] = {}
    before = fastrnn.get_num_threads()
    try:
        exec(code, names)
        get = cffi.FFI().cast("int32_t (*)(void)", names["address"]("fastrnn_get_num_threads"))
        assert get() == fastrnn.get_num_threads() == 2
    finally:
        fastrnn.set_num_threads(before)


def test_wheel_cimport(tmp_path: Path) -> None:
    pytest.importorskip("Cython")
    pytest.importorskip("setuptools")
    for file in (CONSUMERS / "cython").iterdir():
        shutil.copy(file, tmp_path)
    run(sys.executable, "setup.py", "-q", "build_ext", "--inplace", cwd=tmp_path, PYTHONPATH=search_path())
    code = (
        "import numpy as np, fastrnn, policy; l = fastrnn.LSTM(3, 20, rng=0); x = np.ones((9, 3), np.float32)\n"
        "w = np.concatenate([v.ravel() for v in l.state_dict().values()])\n"
        "print((policy.run(w, x, 20) == l(x)[0]).all())"
    )
    assert run(sys.executable, "-c", code, cwd=tmp_path, PYTHONPATH=search_path(tmp_path)) == "True\n"


def test_wheel_in_numba(tmp_path: Path) -> None:
    pytest.importorskip("numba")
    small = [sys.executable, CONSUMERS / "numba" / "paths.py", "40", "20", "16"]
    for _ in range(2):  # the second process finds the first one's compiled functions
        lines = run(*small, PYTHONPATH=search_path(), NUMBA_CACHE_DIR=str(tmp_path)).splitlines()
        assert [line[:17].strip() for line in lines[:3]] == ["fastrnn in Numba", "Numba alone", "NumPy"]
        assert lines[3:] == ["the same profits: True"]


def test_examples_of_the_documentation_are_these_files() -> None:
    page = CONSUMERS.parents[1] / "docs" / "embedding.md"
    if not page.exists():
        pytest.skip("no docs beside an installed package")
    text = page.read_text("utf-8")
    quoted = re.findall(r"<!-- (tests/consumers/\S+) -->\n```\w+\n(.*?)```\n", text, re.DOTALL)
    assert len(quoted) >= 5
    for name, code in quoted:
        assert code == (CONSUMERS.parents[1] / name).read_text("utf-8"), name
