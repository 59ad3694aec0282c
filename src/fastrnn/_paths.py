"""Where the files lie that other people's builds need."""

from __future__ import annotations

from pathlib import Path

__all__ = ["cmake_dir", "get_include"]

PACKAGE = Path(__file__).resolve().parent
SOURCES = PACKAGE.parents[1]  # of a source tree that is used in its place


def first_with(name: str, *folders: Path) -> str:
    for folder in folders:
        if (folder / name).is_file():
            return str(folder)
    message = (
        f"fastrnn: {name} is not installed: this is a pure wheel (FASTRNN_PURE=1), which has no compiled core to call. "
        "Install fastrnn with a C++ compiler and without that variable."
    )
    raise RuntimeError(message)


def get_include() -> str:
    """The folder to compile with, as in ``-I``, for ``#include "fastrnn/fastrnn.h"`` and ``"fastrnn/capsule.h"``.

    Returns
    -------
    str
        An absolute path.

    Raises
    ------
    RuntimeError
        A pure wheel is installed, which has no compiled core and no headers.
    """
    return first_with("fastrnn/fastrnn.h", PACKAGE / "include", SOURCES / "csrc" / "include")


def cmake_dir() -> str:
    """The folder in which CMake's ``find_package(fastrnn)`` finds the target ``fastrnn::headers``.

    It has the headers and the importer of the capsule; there is no library to link.

    Returns
    -------
    str
        An absolute path, for ``fastrnn_DIR`` or ``CMAKE_PREFIX_PATH``.

    Raises
    ------
    RuntimeError
        A pure wheel is installed, which has no compiled core and no headers.
    """
    return first_with("fastrnn-config.cmake", PACKAGE / "cmake", SOURCES / "cmake" / "wheel")
