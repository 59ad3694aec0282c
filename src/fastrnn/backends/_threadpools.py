"""The core's threads as one of the pools that threadpoolctl lists and limits."""

from __future__ import annotations

from contextlib import suppress
from typing import Any


def register(core: Any) -> None:
    """Tell threadpoolctl, if it is installed, of the core, which has just been loaded.

    It knows loaded libraries only, so a limit that is to hold must be set after the core's first use, which
    `fastrnn.get_num_threads()` is too. Imported here and not waited for: 4 milliseconds, once, without cached bytecode.
    """
    with suppress(ImportError, AttributeError):  # AttributeError: a version before `register`
        import threadpoolctl

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
