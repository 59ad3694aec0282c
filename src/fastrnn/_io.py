"""Named arrays and a dictionary of options in one file: .npz without pickle, or .safetensors.

A file is written beside its place and moved there when complete, so an interrupted save leaves the old file.
"""

from __future__ import annotations

import io
import json
import os
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

KEY = "fastrnn"  # where the options are: an entry of the .npz, a key of the metadata of .safetensors


def write(path: str | os.PathLike[str], arrays: Mapping[str, Array], options: Mapping[str, Any]) -> None:
    """Write arrays and options; the suffix of the path decides the format.

    Raises
    ------
    ValueError
        Another suffix than .npz and .safetensors.
    ImportError
        .safetensors without the package of that name.
    """
    path = Path(path)
    text = json.dumps(dict(options))
    if _suffix(path) == ".npz":
        buffer = io.BytesIO()
        everything: dict[str, Any] = {KEY: np.array(text), **arrays}
        np.savez(buffer, **everything)
        data: bytes | memoryview = buffer.getbuffer()
    else:
        dense = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        data = _safetensors(path).numpy.save(dense, metadata={KEY: text})
    _replace(path, data)


def _replace(path: Path, data: bytes | memoryview) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)  # as open() would have made it; mkstemp makes it private
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def read(path: str | os.PathLike[str]) -> tuple[dict[str, Array], dict[str, Any]]:
    """Arrays and options of a file that `write` made. Nothing in the file is executed.

    Raises
    ------
    OSError
        The file cannot be read.
    ValueError
        Another suffix, a damaged file, or one that was not written by `write`.
    ImportError
        .safetensors without the package of that name.
    """
    path = Path(path)
    suffix = _suffix(path)
    try:
        arrays, text = _read_npz(path) if suffix == ".npz" else _read_safetensors(path)
        options = json.loads(text)
    except (OSError, ImportError, MemoryError):
        raise
    except Exception as error:  # zipfile, zlib, NumPy, json and safetensors each have their own
        message = f"{path} is damaged or was not saved by fastrnn: {error}"
        raise ValueError(message) from error
    if not isinstance(options, dict):
        message = f"{path} is damaged: its options are a {type(options).__name__}"
        raise ValueError(message)
    return arrays, options


def _read_npz(path: Path) -> tuple[dict[str, Array], str]:
    if not zipfile.is_zipfile(path):
        path.open("rb").close()  # a file that is missing or closed to us is told as such
        message = "no zip archive"
        raise ValueError(message)
    with np.load(path, allow_pickle=False) as archive:
        if KEY not in archive.files:
            message = f"no entry {KEY!r}; weights saved by others go through load_state_dict"
            raise ValueError(message)
        text = str(archive[KEY][()])
        return {name: archive[name] for name in archive.files if name != KEY}, text


def _read_safetensors(path: Path) -> tuple[dict[str, Array], str]:
    with _safetensors(path).safe_open(path, framework="np") as file:
        text = (file.metadata() or {}).get(KEY)
        if text is None:
            message = f"no metadata {KEY!r}; weights saved by others go through load_state_dict"
            raise ValueError(message)
        return {name: file.get_tensor(name) for name in file.keys()}, text  # noqa: SIM118 - it cannot be iterated over


def _suffix(path: Path) -> str:
    if path.suffix not in (".npz", ".safetensors"):
        message = f"path is {str(path)!r}; it must end in .npz or .safetensors"
        raise ValueError(message)
    return path.suffix


def _safetensors(path: Path) -> Any:
    try:
        import safetensors
        import safetensors.numpy
    except ImportError as error:
        message = f"{path} needs the package safetensors (pip install safetensors); .npz needs nothing"
        raise ImportError(message) from error
    return safetensors
