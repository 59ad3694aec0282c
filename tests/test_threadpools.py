"""threadpoolctl sees and limits the core's threads, whichever of the two is imported first."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("threadpoolctl", reason="threadpoolctl is not installed")
pytest.importorskip("fastrnn.backends._core", reason="the compiled backend is not built")

CODE = """
{imports}
fastrnn.set_num_threads(3)
(found,) = [pool for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "fastrnn"]
assert found["num_threads"] == 3, found
assert found["version"] == fastrnn.__version__, found
with threadpoolctl.threadpool_limits(1):
    assert fastrnn.get_num_threads() == 1
assert fastrnn.get_num_threads() == 3
with threadpoolctl.threadpool_limits({{"fastrnn": 2}}):
    assert fastrnn.get_num_threads() == 2
with threadpoolctl.threadpool_limits(1, user_api="blas"):
    assert fastrnn.get_num_threads() == 3
"""


@pytest.mark.parametrize("imports", ["import fastrnn, threadpoolctl", "import threadpoolctl, fastrnn"])
def test_listed_and_limited(imports: str) -> None:
    done = subprocess.run([sys.executable, "-c", CODE.format(imports=imports)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
