"""Large blocks are kept for the next call: a bounded amount, and only a block that fits is used again."""

from __future__ import annotations

import pytest

_core = pytest.importorskip("fastrnn.backends._core", reason="the compiled backend is not built")

MB = 1 << 20


@pytest.fixture(autouse=True)
def _start_with_none() -> None:
    _core.release_memory()
    assert _core.spare_memory() == 0


def test_a_large_block_is_used_again() -> None:
    block = _core.Buffer(40 * MB)
    del block
    assert _core.spare_memory() == 40 * MB
    again = _core.Buffer(39 * MB)
    assert _core.spare_memory() == 0
    assert again.nbytes == 39 * MB
    del again
    assert _core.spare_memory() == 40 * MB, "it kept its size"


def test_no_block_is_used_for_much_less() -> None:
    block = _core.Buffer(64 * MB)
    del block
    small = _core.Buffer(2 * MB)
    assert _core.spare_memory() == 64 * MB
    del small


def test_what_is_kept_is_bounded() -> None:
    blocks = [_core.Buffer((30 + i) * MB) for i in range(24)]
    del blocks
    assert _core.spare_memory() <= 256 * MB
    huge = _core.Buffer(257 * MB)
    del huge
    assert _core.spare_memory() <= 256 * MB
