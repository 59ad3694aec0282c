"""Types of the compiled backend; what the functions do is written in `Backend` of this package's `__init__`."""

from collections.abc import Callable, Sequence
from typing import Any, final

import numpy.typing as npt

from .._packing import Packing
from .._spec import Regularisers, Spec

Array = npt.NDArray[Any]
NAME: str
SPLITS: tuple[str, ...]
PROBES: tuple[str, ...]
UNSEEN: tuple[type[Exception], ...]

@final
class Buffer:
    def __init__(self, nbytes: int) -> None: ...
    @property
    def nbytes(self) -> int: ...

@final
class Packed:
    @property
    def spec(self) -> Spec: ...
    @property
    def backend(self) -> str: ...
    @property
    def isa(self) -> str: ...
    def in_force(self) -> bool: ...
    def infer_small(
        self, x: object, state: object, lengths: object, reset: object, mask: object, out: object, batch_first: bool
    ) -> tuple[Array, Any] | None: ...
    def step_small(self, x: object, out: object, h: Array, c: Array | None) -> Array | None: ...
    def forward_plain(
        self, x: object, state: object
    ) -> tuple[Array, Array, Array | None, Array | None, Array | None, Buffer] | None: ...
    def backward_plain(
        self,
        tape: Buffer,
        x: Array,
        y: Array,
        h0: Array | None,
        c0: Array | None,
        dy: object,
        into: tuple[Array, Array, Array | None, Array] | None,
        accumulate: bool,
    ) -> tuple[Array, Array, Array | None, Array] | None: ...

def pack(spec: Spec, weights: Array) -> Packed: ...
def make_tape(
    packed: Packed, steps: int, batch: int, reuse: object | None = None, recompute: bool = False, rows: int = 0
) -> Buffer: ...
def forward(
    packed: Packed,
    x: Array,
    y: Array,
    h0: Array | None,
    c0: Array | None,
    hn: Array,
    cn: Array | None,
    lengths: Array | None,
    reset: Array | None,
    mask: Array | None,
    dropout: Array | None,
    tape: Buffer | None,
    packing: Packing | None = None,
    regular: Regularisers | None = None,
) -> None: ...
def backward(
    packed: Packed,
    tape: Buffer,
    x: Array,
    y: Array,
    h0: Array | None,
    c0: Array | None,
    dy: Array | None,
    dhn: Array | None,
    dcn: Array | None,
    dx: Array | None,
    dh0: Array | None,
    dc0: Array | None,
    dweights: Array | None,
    lengths: Array | None,
    reset: Array | None,
    mask: Array | None,
    dropout: Array | None,
    retain: bool,
    accumulate: bool,
    packing: Packing | None = None,
    regular: Regularisers | None = None,
    dh_all: Array | None = None,
    dc_all: Array | None = None,
) -> None: ...
def probe(
    kind: str, repeats: int, *, dtype: str = "float32", threads: int = 1, buffer: Array | None = None
) -> float: ...
def see(tensor: object, double: bool, layer: bool = False) -> Array: ...

@final
class Library:
    def __init__(
        self,
        kinds: set[type],
        floats: dict[Any, int],
        from_numpy: Callable[[Array], Any],
        empty_like: Callable[[Any], Any],
        exchange: object | None,
    ) -> None: ...

@final
class Calls:
    def __init__(self, library: Library, packed: Packed, params: Sequence[Any], versions: list[int]) -> None: ...
    def unchanged(self, params: Sequence[Any], compare: bool) -> bool: ...
    def see(
        self, x: object, h0: object | None, c0: object | None, layout: str
    ) -> tuple[Array, Array | None, Array | None] | None: ...
    def infer(self, seen: tuple[Array, Array | None, Array | None], layout: str) -> tuple[Any, ...] | None: ...
    def forward(
        self, seen: tuple[Array, Array | None, Array | None], x: Any, h0: Any | None, layout: str
    ) -> tuple[tuple[Any, ...], tuple[Array, Buffer]] | None: ...
    def backward(
        self,
        tapes: list[tuple[Array, Buffer]],
        saved: tuple[Any, ...],
        given: tuple[Any | None, ...],
        wanted: tuple[bool, ...],
        layout: str,
    ) -> tuple[Any | None, ...] | None: ...

class Usual:
    def __init__(self, kind: type, methods: dict[str, Any]) -> None: ...
    def weights(self, module: Any) -> list[Any] | None: ...

def empty(shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array: ...
def copied(array: Array) -> Array: ...
def views(shapes: dict[str, tuple[int, ...]], flat: Array, writeable: bool) -> dict[str, Array]: ...
def spare_memory() -> int: ...
def release_memory() -> None: ...
def plain_weights(packed: Packed, batch_size: int) -> tuple[Array, Array, Array, Array, int]: ...
def config() -> dict[str, object]: ...
def set_num_threads(n: int) -> None: ...
def get_num_threads() -> int: ...
def isa_active() -> str: ...
def force_isa(name: str | None) -> None: ...
def force_split(name: str | None) -> None: ...
def force_segment(steps: int | None) -> None: ...
def force_packing(packing: bool | None) -> None: ...
