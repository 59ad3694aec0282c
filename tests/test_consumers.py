"""Small projects of other people, built and run against what is installed.

Their sources, tests/consumers, are the examples of docs/embedding.md.

Those of the library want FASTRNN_PREFIX, where `cmake --install` has put it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

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
