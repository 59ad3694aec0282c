"""Named arrays and a dictionary of options in one file: .npz without pickle, or .safetensors.

A file is written beside its place and moved there when complete, so an interrupted save leaves the old file.
"""

from __future__ import annotations

import io
import json
import math
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

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
    path = _path(path)
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
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        # With the permissions of any other file, which those that `tempfile` makes do not have.
        with temporary.open("xb") as file:
            file.write(data)
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from error  # not the name that nobody has heard of
    except BaseException:
        temporary.unlink(missing_ok=True)
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
    path = _path(path)
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
    with path.open("rb") as file:  # a file that is missing or closed to us is told as such
        try:
            arrays = _entries(file)
        except OSError as error:  # a damaged archive can point to places where there is no file
            raise ValueError(str(error)) from error
    if KEY not in arrays:
        message = f"no entry {KEY!r}; weights saved by others go through load_state_dict"
        raise ValueError(message)
    return arrays, str(arrays.pop(KEY)[()])


def _entries(file: IO[bytes]) -> dict[str, Array]:
    """What `np.savez` wrote. `np.load` makes arrays as large as an entry says, whatever there is."""
    arrays = {}
    import zipfile  # 10 milliseconds, with the compressors that it imports

    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        compressed = any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
        if compressed or sum(entry.file_size for entry in entries) > os.fstat(file.fileno()).st_size:
            message = "its entries are compressed or larger than the file; those that fastrnn writes never are"
            raise ValueError(message)
        for entry in entries:
            with archive.open(entry) as stream:
                if np.lib.format.read_magic(stream) != (1, 0):
                    message = f"entry {entry.filename!r} is in another version of the .npy format than 1.0"
                    raise ValueError(message)
                shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
                data = stream.read()
            if dtype.hasobject or 0 in shape or math.prod(shape) * dtype.itemsize != len(data):
                message = f"entry {entry.filename!r} has {len(data)} bytes for shape {shape} of {dtype}"
                raise ValueError(message)
            array = np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")
            arrays[entry.filename.removesuffix(".npy")] = array
    return arrays


def _read_safetensors(path: Path) -> tuple[dict[str, Array], str]:
    with _safetensors(path).safe_open(path, framework="np") as file:
        text = (file.metadata() or {}).get(KEY)
        if text is None:
            message = f"no metadata {KEY!r}; weights saved by others go through load_state_dict"
            raise ValueError(message)
        return {name: file.get_tensor(name) for name in file.keys()}, text  # noqa: SIM118 - it cannot be iterated over


def read_arrays(path: Path) -> dict[str, Array]:
    """All arrays of a .safetensors file, whoever wrote it.

    Raises
    ------
    OSError, ImportError, ValueError
        As `read`.
    """
    try:
        with _safetensors(path).safe_open(path, framework="np") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it cannot be iterated over
    except (OSError, ImportError, MemoryError):
        raise
    except Exception as error:  # safetensors has its own, and TypeError for what NumPy has not: bfloat16
        message = f"{path} is damaged or holds what NumPy has not: {error}"
        raise ValueError(message) from error


def _path(path: object) -> Path:
    if isinstance(path, str | os.PathLike):
        return Path(path)
    message = f"path is {path!r} ({type(path).__name__}); it must be a str or a path-like object"
    raise TypeError(message)


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
