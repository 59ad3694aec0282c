"""The arrows of docs/architecture.md, held by reading imports and includes, and a few rules that every source obeys."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

import fastrnn

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "fastrnn"
CSRC = ROOT / "csrc"
LINES, TEST_LINES = 480, 600  # about 400 is the aim; a file that needs more than this holds more than one thing
LONGER = {"_numba_kernels.py": 520}  # in one file for the sake of Numba's cache

# Module -> the modules of the package it may import; all may import _spec. `*`: any.
PYTHON_ARROWS: dict[str, set[str]] = {
    "__init__": {"*"},
    "__main__": {"*"},
    "_demo": {"training", "layers", "_characters", "_demo_report", "_progress", "_config", "_validate", "backends"},
    "_progress": set(),
    "_bench": {"_bench_cases", "_bench_systems", "_bench_table", "_progress", "_config", "backends"},
    "_bench_worker": {"_bench_cases", "_bench_measure", "_bench_systems", "_config", "backends"},
    "_bench_measure": {"_bench_cases", "_bench_systems", "backends"},
    "_bench_table": {"_bench_cases", "_bench_systems"},
    "_bench_systems": {"_bench_cases", "layers", "onnx.export", "_config", "backends"},
    "_bench_cases": set(),
    "_demo_report": set(),
    "_characters": {"training", "layers", "functional", "_tape", "_io", "_validate"},
    "training": {"_dense", "_weights", "_validate"},
    "_dense": {"_io", "_weights", "_validate"},
    "diagnostics": {
        "_diagnostics_plots",
        "_packed",
        "_recurrent",
        "_tape",
        "_validate",
        "backends",
        "backends._general",
        "backends._numpy",
        "backends._schedule",
        "backends._stack",
    },
    "_diagnostics_plots": {"_validate"},
    "sequences": {"_layouts", "_validate", "_validate_sequences"},
    "_layouts": {"_validate", "_validate_sequences"},
    "_validate_sequences": {"_validate"},
    "layers": {"functional", "_recurrent", "_stream", "_io", "_weights", "_validate", "backends"},
    "_draws": {"backends"},
    "_recurrent": {
        "_draws",
        "functional",
        "_stream",
        "_io",
        "_gates",
        "_weights",
        "_validate",
        "_validate_regularisers",
        "backends",
    },
    "_stream": {"functional", "_io", "_validate", "backends"},
    "_io": {"_validate"},
    "functional": {
        "_gates",
        "_outputs",
        "_packed",
        "_tape",
        "_validate",
        "_validate_regularisers",
        "_weights",
        "backends",
    },
    "_outputs": {"backends"},
    "_tape": {"_packed", "_weights", "_validate", "backends"},
    "_packed": {"_layouts", "_packing", "_validate"},
    "_packing": set(),
    "_validate_regularisers": {"_validate"},
    "_weights": {"_validate", "backends"},
    "_config": {"_validate", "backends"},
    "_gates": {"_validate"},
    "_paths": set(),
    "numba": {"layers", "_validate", "backends"},
    "_validate": {"_validate_cells"},
    "_validate_cells": set(),
    "_spec": set(),
    "torch": {"torch.modules", "torch.cache", "torch.patch", "torch.report"},
    "torch.__main__": {"torch.patch", "torch.report"},
    "torch.sb3": {"torch.routes", "torch.autograd", "torch.cache", "torch.report"},
    "torch.patch": {
        "torch.sb3",
        "torch.compile",
        "torch.shortcut",
        "torch.routes",
        "torch.autograd",
        "torch.report",
        "backends",
    },
    "torch.shortcut": {"torch.routes", "torch.autograd", "torch.cache"},
    "torch.modules": {
        "torch.patch",
        "torch.compile",
        "torch.shortcut",
        "torch.routes",
        "torch.autograd",
        "torch.draws",
        "torch.report",
        "_validate",
        "_validate_regularisers",
    },
    "torch.compile": {"torch.routes", "torch.autograd", "torch.call", "torch.draws", "torch.cache"},
    "torch.routes": {"_packing", "torch.call", "torch.draws", "torch.cache", "torch.report"},
    "torch.autograd": {"backends", "torch.call", "torch.draws", "torch.second_order", "torch.cache"},
    "torch.second_order": {"torch.call", "torch.draws", "torch.reference"},
    "torch.call": {"_packing", "torch.draws", "torch.cache", "_validate"},
    "torch.draws": {"_packing"},
    "torch.reference": set(),
    "torch.cache": {"backends"},
    "torch.report": set(),
    "weights": {"_io", "_keras", "_validate", "layers", "onnx.layers"},
    "_keras": {"_gates", "_hdf5"},
    "_hdf5": set(),
    "onnx": {"onnx.backend", "onnx.export", "onnx.layers", "onnx.report", "onnx.session"},
    "onnx.backend": {"onnx.session"},
    "onnx.report": {"onnx.session", "onnx.kernel", "onnx.models", "onnx.moves", "onnx.operators", "backends"},
    "onnx.layers": {
        "layers",
        "onnx.session",
        "onnx.stacks",
        "onnx.kernel",
        "onnx.models",
        "onnx.operators",
        "_validate",
    },
    "onnx.stacks": {"onnx.moves", "onnx.operators"},
    "onnx.session": {"onnx.evaluator", "onnx.kernel", "onnx.models", "onnx.moves", "onnx.operators"},
    "onnx.evaluator": {"onnx.kernel", "onnx.operators"},
    "onnx.kernel": {"onnx.operators", "functional", "sequences", "_gates", "_validate", "backends"},
    "onnx.operators": set(),
    "onnx.models": {"onnx.operators"},
    "onnx.moves": set(),
    "onnx.export": {"_gates", "_recurrent"},
    "backends._threadpools": set(),
    # its modules are imported by name, when they are needed
    "backends": {"_packing", "backends._threadpools"},
    "backends._core": {"_packing"},
    "backends._numba": {"backends._numba_kernels", "backends._schedule", "backends._stack"},
    "backends._numba_kernels": set(),
    "backends._numpy": {"backends._schedule", "backends._stack"},
    "backends._general": {"backends._activations", "backends._numpy", "backends._schedule", "backends._stack"},
    "backends._activations": {"backends._schedule"},
    "backends._stack": {"_packing", "backends._schedule"},
    "backends._schedule": set(),
}

# Stem of a file in csrc/ -> the stems of our own headers it may include; all may include types.
CPP_ARROWS: dict[str, set[str]] = {
    "api": {"fastrnn", "check", "plan", "memory", "driver", "step", "probe", "threads", "cpu"},
    "check": {"fastrnn", "plan", "memory", "step"},
    "step": {"fastrnn", "fpmode", "plan", "memory", "places", "table"},
    "driver": {
        "fastrnn",
        "memory",
        "plan",
        "places",
        "rows",
        "sequence",
        "threads",
        "wavefront",
        "forward_calls",
        "table",
    },
    "driver_backward": {"driver", "memory", "plan", "places", "rows", "threads", "segments", "table"},
    "segments": {"fastrnn", "memory", "places", "rows", "forward_calls"},
    "forward_calls": {"memory", "places", "rows", "sequence", "threads"},
    "places": {"fastrnn", "fpmode", "memory", "sequence"},
    "memory": {"plan", "rows", "sequence"},
    "plan": {"cores", "fastrnn", "cpu", "table"},
    "wavefront": {"threads"},
    "probe": {"fastrnn", "cpu", "cores", "table", "threads"},
    "rows": {"sequence"},
    "sequence": {"fastrnn"},
    "threads": {"cores", "fpmode", "team"},
    "team": set(),
    "cores": set(),
    "fpmode": set(),
    "cpu": {"fastrnn", "table", "fastrnn_isas"},
    "table": set(),
    "types": set(),
    "fastrnn": set(),
    "capsule": {"fastrnn"},
}
KERNEL_HEADERS = {"arm_neon.h", "cstddef", "cstdint", "cstring", "immintrin.h"}


def python_files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py")) + sorted(PACKAGE.rglob("*.pyx")) + sorted(PACKAGE.rglob("*.pyi"))


def cpp_files() -> list[Path]:
    return sorted(path for path in CSRC.rglob("*") if path.suffix in (".h", ".hpp", ".cpp"))


def sources() -> list[Path]:
    scripts = [path for folder in ("tests", "bench") for path in sorted((ROOT / folder).rglob("*.py"))]
    return [*python_files(), *cpp_files(), *scripts]


def name_of(path: Path) -> str:
    """src/fastrnn/backends/_numpy.py -> backends._numpy; a package is named by its folder."""
    parts = list(path.relative_to(PACKAGE).with_suffix("").parts)
    if len(parts) > 1 and parts[-1] == "__init__":
        parts.pop()
    return ".".join(parts)


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def statements(path: Path) -> list[ast.Import | ast.ImportFrom]:
    """The import statements of a file, wherever they stand; Cython is not Python, so there they are found by line."""
    text = path.read_text("utf-8")
    if path.suffix == ".pyx":
        text = "\n".join(re.findall(r"^[ \t]*((?:import|from \S+ import) [\w., ]+)$", text, re.MULTILINE))
    return [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Import | ast.ImportFrom)]


def imports(path: Path) -> set[str]:
    """Modules of the package that a file imports, as `name_of` names them."""
    names = {name_of(file) for file in python_files()}
    package = list(path.relative_to(PACKAGE).parent.parts)
    found = set()
    for node in statements(path):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        else:
            above = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join(["fastrnn", *above] if node.level else []) + ("." if node.level and node.module else "")
            module += node.module or ""
            targets = [f"{module}.{alias.name}" for alias in node.names]
        for target in targets:
            if target.split(".")[0] != "fastrnn":
                continue
            inside = target.split(".")[1:]
            while inside and ".".join(inside) not in names:
                inside.pop()
            found.add(".".join(inside) or "__init__")
    return found


def includes(path: Path) -> tuple[set[str], set[str]]:
    """What stands in quotes and what stands in angle brackets after #include."""
    found = re.findall(r'^\s*#\s*include\s*(["<])([^">]+)[">]', path.read_text("utf-8"), re.MULTILINE)
    return {name for mark, name in found if mark == '"'}, {name for mark, name in found if mark == "<"}


@pytest.mark.parametrize("path", python_files(), ids=relative)
def test_imports_follow_the_arrows(path: Path) -> None:
    name = name_of(path)
    assert name in PYTHON_ARROWS, "a new module: give it its place in docs/architecture.md and in PYTHON_ARROWS"
    allowed = PYTHON_ARROWS[name]
    if "*" not in allowed:
        assert imports(path) - {name} <= allowed | {"_spec"}


def test_no_python_cycle() -> None:
    graph = {name_of(path): imports(path) for path in python_files() if name_of(path) not in ("__init__", "__main__")}
    done: set[str] = set()
    while len(done) < len(graph):
        ready = {name for name, needs in graph.items() if name not in done and needs - {name} <= done}
        assert ready, f"modules that import each other: {sorted(set(graph) - done)}"
        done |= ready


def test_import_loads_nothing_heavy() -> None:
    """`import fastrnn` costs what NumPy costs; packages of the extras are imported where they are used."""
    heavy = {"numba", "torch", "tqdm", "matplotlib", "safetensors", "onnx"}
    code = f"import sys, fastrnn; print(*{heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.mark.parametrize("path", cpp_files(), ids=relative)
def test_includes_follow_the_arrows(path: Path) -> None:
    ours, system = includes(path)
    stems = {Path(name).stem for name in ours}
    if path.parent.name == "kernels":
        kernels = {file.stem for file in (CSRC / "kernels").iterdir()}
        assert stems <= kernels | {"rows", "table", "team", "types"}
        assert system <= KERNEL_HEADERS, "kernels use no STL: its templates would be shared between instruction sets"
        return
    assert path.stem in CPP_ARROWS, "a new file: give it its place in docs/architecture.md and in CPP_ARROWS"
    assert not any(name.startswith("kernels/") for name in ours), "kernels are reached through the table only"
    assert stems - {path.stem} <= CPP_ARROWS[path.stem] | {"types"}
    if path.suffix == ".h":
        assert system <= {"stddef.h", "stdint.h"}, "the public header is C and needs nothing else"


def test_cython_sees_the_public_header_only() -> None:
    for path in [*PACKAGE.rglob("*.pyx"), *PACKAGE.rglob("*.pxd")]:
        headers = set(re.findall(r'extern from "([^"]+)"', path.read_text("utf-8")))
        assert headers <= {"fastrnn/fastrnn.h", "fastrnn/capsule.h"}, relative(path)


def test_core_neither_prints_nor_aborts() -> None:
    words = re.compile(r"\b(abort|exit|_exit|terminate|printf|fprintf|puts|perror|cout|cerr|throw|assert)\b\s*[(<;]?")
    for path in cpp_files():
        code = re.sub(r"//[^\n]*|/\*.*?\*/|static_assert", "", path.read_text("utf-8"), flags=re.DOTALL)
        assert not words.search(code), f"{relative(path)}: {words.search(code)}"


@pytest.mark.parametrize("path", sources(), ids=relative)
def test_source_rules(path: Path) -> None:
    data = path.read_bytes()
    assert data.isascii(), "sources are ASCII"
    lines = data.count(b"\n")
    assert lines <= (TEST_LINES if ROOT / "tests" in path.parents else LONGER.get(path.name, LINES))
    assert not data or data.endswith(b"\n")
    unfinished = [b"NotImplemented" + b"Error", b"TO" + b"DO", b"FIX" + b"ME"]
    assert not [word for word in unfinished if word in data], "finished code only"


def test_version_is_written_once() -> None:
    written = re.findall(r'^__version__ = "(.*)"$', (PACKAGE / "__init__.py").read_text("utf-8"), re.MULTILINE)
    assert written == [fastrnn.__version__]
    for name in ("pyproject.toml", "CMakeLists.txt"):
        text = (ROOT / name).read_text("utf-8")
        assert not re.search(r"^\s*version\s*=\s*\"|project\([^)]*VERSION \d", text, re.MULTILINE), name
    assert f"## {fastrnn.__version__} " in (ROOT / "CHANGELOG.md").read_text("utf-8")
    try:
        installed = version("fastrnn")
    except PackageNotFoundError:
        return  # run from the source tree
    assert installed == fastrnn.__version__
