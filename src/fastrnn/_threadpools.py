"""The core's threads as one of the pools that threadpoolctl lists and limits."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from . import backends


def register() -> None:
    """Tell threadpoolctl of the core, if both are there.

    Loads both, since threadpoolctl knows loaded libraries only: `threadpool_limits(1)` shall hold for a layer whose
    first call comes inside it. 4 milliseconds without cached bytecode, beside NumPy's 70 to 110.
    """
    with suppress(ImportError, AttributeError, ValueError):  # why a core cannot be loaded is said when it is used
        import threadpoolctl

        core: Any = backends.load("cpp")
        threadpoolctl.register(_controller(threadpoolctl.LibController, core))


def _controller(base: Any, core: Any) -> Any:
    class Controller(base):  # type: ignore[misc]
        user_api = internal_api = "fastrnn"
        filename_prefixes = ("_core",)
        check_symbols = ("fastrnn_python_core",)

        def get_num_threads(self) -> int:
            return int(core.get_num_threads())

        def set_num_threads(self, num_threads: int) -> None:
            core.set_num_threads(num_threads)

        def get_version(self) -> str:
            return str(core.config()["core_version"])

    return Controller
