"""What the README promises: its commands stand where `.ci/run` looks for them, and its examples run."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text("utf-8") if (ROOT / "README.md").exists() else ""


def test_readme_has_both_commands_near_the_top() -> None:
    top = README[:2000]
    assert 'pip install ".[demo]" && python -m fastrnn demo\n' in top
    assert 'pip install ".[test]" && python -m pytest tests -q\n' in top


def test_quick_start_runs() -> None:
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names: dict[str, Any] = {}
    exec(blocks[0], names)
    assert names["y"].shape == (100, 8, 64)
    assert names["y_t"].shape == (8, 64)
    assert names["h"].shape == names["c"].shape == (2, 8, 64)
    exec(blocks[2], names)
    assert names["flow"].norms["h_l0"].shape == (100,)
    names["torch_lstm"] = type("Torch", (), {"state_dict": lambda self: {}})()
    with pytest.raises(ValueError, match="weight_ih_l0"):  # strict: an empty mapping names what is missing
        exec(blocks[1], names)


def test_links_of_the_readme_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target


def test_benchmark_section_can_be_filled() -> None:
    assert README.count("<!-- bench:begin -->") == README.count("<!-- bench:end -->") == 1


@pytest.mark.skipif(sys.version_info < (3, 11), reason="tomllib is in the standard library from Python 3.11 on")
def test_extras_have_lower_bounds_only() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    assert set(extras) == {"numba", "demo", "plot", "test", "torch", "onnx", "bench", "dev"}
    assert len(project["dependencies"]) == 1, "NumPy and nothing else"
    wanted = [*project["dependencies"], *(name for names in extras.values() for name in names)]
    for requirement in wanted:
        assert re.fullmatch(r"[\w.-]+>=[\d.]+|fastrnn\[[\w,]+\]", requirement), requirement
