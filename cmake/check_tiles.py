"""Disassembles the kernels of one instruction set and checks the inner loop of every register tile.

    python check_tiles.py --objdump objdump --isa avx512 --object isa_main.cpp.o
    python check_tiles.py --self-test

A tile of MR rows and NV vectors has, for each k, MR*NV fused multiply-adds, NV loads of a vector and MR broadcasts.
Compilers break this silently and keep the results right: GCC 12 folds a weight load into each multiply-add that uses it
(4 times the loads, 72-79 % of the multiply-adds' peak instead of 98), or keeps an accumulator on the stack. A loop may
be unrolled: all three numbers are then multiplied alike. A tile of a single row uses each weight once: there every
multiply-add has a weight as its memory operand, and nothing else is loaded but the row.

What is fetched ahead changes no result either, and GCC 12 drops the calls of a function that only prefetches, as one
without effect: such functions must be there, prefetch and be reached.

Every function of the object whose name ends in `_tile` must be known below; what was examined is printed. Exit status 1
and the faults on stderr if a loop is not what it must be.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from dataclasses import dataclass, field

# What is called a tile: template arguments as C++ spells them -> (MR, NV) of each product in its body.
TILES = {
    "project_tile": lambda a: [(int(a[2]), slots(a[1]))],
    "forward_tile": lambda a: [(int(a[2]), cell_slots(a[0], int(a[3]))[part]) for part in ("W", "U")],
    "second_tile": lambda a: [(int(a[2]), 1)],
    "product_tile": lambda a: [(int(a[1]), int(a[2]))],
    "input_tile": lambda a: [(int(a[1]), int(a[2]))],
    "outer_tile": lambda a: [(int(a[2]), slots(a[1]))],
}

# The same for tiles of one row: template arguments -> (panels, NV) of each product. RNN panels of 1 to 4 vectors.
SINGLE_TILES = {
    "single_tile": lambda a: [(int(a[2]), cell_slots(a[0], int(a[3]))[part]) for part in ("W", "U")],
    "step_tile": lambda a: [(int(a[1]), cell_slots(a[0], int(a[2]))[part]) for part in ("W", "U")],
}

# Functions, or classes of one function, that do nothing but prefetch; tiles that fetch the lines which they will write.
FETCHERS = ("fetch_ahead", "fetch_rows", "BlockAhead")
FETCHING_TILES = ("forward_tile", "input_tile")

FUNCTION = re.compile(r"^[0-9a-f]+ <(.*)>:$")
INSTRUCTION = re.compile(r"^\s*([0-9a-f]+):\t(?:\{\w+\} )?(\S+)\s*(.*?)\s*$")
MULTIPLY_ADD = re.compile(r"vfn?m(add|sub)(132|213|231)p[sd]")
VECTOR_MOVE = re.compile(r"vmov[au]p[sd]|vmovdq[au](8|16|32|64)?")
BROADCAST = re.compile(r"vbroadcasts[sd]|vmovddup|vpbroadcast[dq]")


@dataclass(frozen=True)
class Instruction:
    """One line of the listing in AT&T order: sources first, destination last."""

    address: int
    name: str
    operands: str

    @property
    def reads_memory(self) -> bool:
        """Whether the first source is in memory."""
        return "(" in re.split(r",(?![^(]*\))", self.operands)[0]


@dataclass
class Counts:
    """What a loop does, by kind."""

    multiply_adds: int = 0
    folded: int = 0
    loads: int = 0
    broadcasts: int = 0
    faults: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{self.multiply_adds} multiply-adds, {self.folded} of them with a load folded in, "
            f"{self.loads} vector loads, {self.broadcasts} broadcasts"
        )


def slots(text: str) -> int:
    """Vectors in Slots<0, 1, 3> or FirstSlots<2>."""
    inside = text[text.index("<") + 1 : text.rindex(">")]
    return int(inside) if "FirstSlots" in text else inside.count(",") + 1


def cell_slots(cell: str, vectors: int) -> dict[str, int]:
    """Vectors a k of W and of U, by cell."""
    if "Rnn" in cell:
        return {"W": vectors, "U": vectors}
    if "Lstm" in cell:
        return {"W": 4, "U": 4}
    return {"W": 3, "U": 2 if "ResetBefore" in cell else 3}


def template_arguments(signature: str) -> tuple[str, list[str]]:
    """`void ns::name<A, B<1, 2>, 3>(...)` -> (name, [A, B<1, 2>, 3])."""
    signature = signature.replace("(anonymous namespace)::", "")
    found = re.match(r"(?:[\w:]+ )*?(?:\w+::)*(\w+)<", signature)
    if not found:
        return "", []
    depth, begin, arguments = 0, found.end(), []
    for at in range(found.end(), len(signature)):
        letter = signature[at]
        if letter == "<":
            depth += 1
        elif letter in ",>" and depth == 0:
            arguments.append(signature[begin:at].strip())
            begin = at + 1
            if letter == ">":
                return found.group(1), arguments
        elif letter == ">":
            depth -= 1
    return "", []


def functions(listing: str) -> dict[str, list[Instruction]]:
    """The instructions of every function of a listing by objdump."""
    found: dict[str, list[Instruction]] = {}
    current: list[Instruction] = []
    for line in listing.splitlines():
        if head := FUNCTION.match(line):
            current = found.setdefault(head.group(1), [])
        elif code := INSTRUCTION.match(line):
            current.append(Instruction(int(code.group(1), 16), code.group(2), code.group(3)))
    return found


def inner_loops(body: list[Instruction]) -> list[list[Instruction]]:
    """The loops of one basic block, which a product's must be: from a jump's target to the jump, none between."""
    found = []
    for end, one in enumerate(body):
        target = re.match(r"([0-9a-f]+) <", one.operands)
        if not one.name.startswith("j") or not target:
            continue
        begin = next((i for i, other in enumerate(body) if other.address == int(target.group(1), 16)), end + 1)
        if begin <= end and not any(other.name.startswith(("j", "call", "ret")) for other in body[begin:end]):
            found.append(body[begin : end + 1])
    return found


def count(loop: list[Instruction]) -> Counts:
    """What a loop does, and what a tile's may not do."""
    counts = Counts()
    for one in loop:
        if MULTIPLY_ADD.fullmatch(one.name):
            counts.multiply_adds += 1
            counts.folded += "(" in one.operands
        elif BROADCAST.fullmatch(one.name):
            counts.broadcasts += one.reads_memory
        elif VECTOR_MOVE.fullmatch(one.name) and one.reads_memory:
            counts.loads += 1
        elif VECTOR_MOVE.fullmatch(one.name) and "(" in one.operands:
            counts.faults.append(f"a store: {one.name} {one.operands}")
        if "(%rsp" in one.operands and "mm" in one.operands:
            counts.faults.append(f"a register on the stack: {one.name} {one.operands}")
    return counts


def fits(counts: Counts, rows: int, vectors: int) -> bool:
    """Whether a loop is some k of a product of that shape, every load where it belongs."""
    times, rest = divmod(counts.multiply_adds, rows * vectors)
    return not rest and (counts.loads, counts.broadcasts, counts.folded) == (times * vectors, times * rows, 0)


def fits_single(counts: Counts, panels: int, vectors: int) -> bool:
    """The same for one row and several panels: every multiply-add loads its weight; a broadcast each k at most."""
    times, rest = divmod(counts.multiply_adds, panels * vectors)
    return not rest and counts.loads == 0 and counts.folded == counts.multiply_adds and counts.broadcasts <= times


def check(name: str, signature: str, arguments: list[str], body: list[Instruction]) -> tuple[list[str], int]:
    """Faults of one tile, and how many of its loops are products."""
    single = name in SINGLE_TILES
    expected = (SINGLE_TILES if single else TILES)[name](arguments)
    products = [counts for counts in map(count, inner_loops(body)) if counts.multiply_adds]
    faults = []
    for counts in products:
        if not any((fits_single if single else fits)(counts, *shape) for shape in expected):
            faults.append(f"{counts}, but a tile of {'panels' if single else 'rows'} x vectors {expected} was written")
        faults += counts.faults
    if len(products) < len(expected):
        faults.append(f"{len(products)} loops with multiply-adds, but {len(expected)} products were written")
    return [f"{signature}\n    {fault}" for fault in faults], len(products)


def check_fetches(found: dict[str, list[Instruction]]) -> list[str]:
    """Faults of what must prefetch: functions that are not there, do not, or that no other one calls or points to."""
    faults = []
    names = {signature: template_arguments(signature)[0] for signature in found}
    for wanted in FETCHERS:
        if wanted not in names.values():
            faults.append(f"no {wanted}: it was dropped, or became part of its callers")
    for signature, body in found.items():
        if names[signature] not in (*FETCHERS, *FETCHING_TILES):
            continue
        if not any(one.name.startswith("prefetch") for one in body):
            faults.append(f"{signature}\n    no prefetch in it")
        if names[signature] in FETCHERS and not any(
            f"<{signature}>" in one.operands for other, its in found.items() if other != signature for one in its
        ):
            faults.append(f"{signature}\n    nobody calls it")
    return faults


def examine(listing: str) -> tuple[list[str], dict[str, tuple[int, int]]]:
    """All faults, and (functions, loops) examined by name of tile."""
    faults: list[str] = []
    examined = dict.fromkeys([*TILES, *SINGLE_TILES], (0, 0))
    found_functions = functions(listing)
    for signature, body in found_functions.items():
        name, arguments = template_arguments(signature)
        if not name.endswith("_tile") or not body:
            continue
        if name not in examined:
            faults.append(f"{signature}\n    a tile that check_tiles.py does not know")
            continue
        found, loops = check(name, signature, arguments, body)
        faults += found
        examined[name] = (examined[name][0] + 1, examined[name][1] + loops)
    return faults + check_fetches(found_functions), examined


GOOD = """
0000000000000000 <void fastrnn::avx2::(anonymous namespace)::product_tile<float, 2, 1>(float const*)>:
   0:\tvbroadcastss (%rsi,%rdx,4),%ymm2
   6:\tvbroadcastss (%rdi,%rdx,4),%ymm1
   c:\tvmovups (%rax),%ymm3
  10:\tvfmadd231ps %ymm3,%ymm2,%ymm7
  15:\tvfmadd231ps %ymm3,%ymm1,%ymm6
  1a:\tcmp    %rdx,%rcx
  1d:\tjne    0 <void fastrnn::avx2::(anonymous namespace)::product_tile<float, 2, 1>(float const*)>
  1f:\tret
"""


FETCHES = """
0000000000000100 <void a::(anonymous namespace)::fetch_ahead<float>(long)>:
 100:\tprefetcht1 (%rsi)
 104:\tret
0000000000000110 <void a::(anonymous namespace)::fetch_rows<float>(long)>:
 110:\tprefetcht1 (%rsi)
 114:\tret
0000000000000120 <a::(anonymous namespace)::BlockAhead<float>::advance(long)>:
 120:\tprefetcht1 (%rsi)
 124:\tret
0000000000000130 <a::(anonymous namespace)::rest()>:
 130:\tcall   100 <void a::(anonymous namespace)::fetch_ahead<float>(long)>
 135:\tlea    0x1(%rip),%rbx        # 110 <void a::(anonymous namespace)::fetch_rows<float>(long)>
 13a:\tjmp    120 <a::(anonymous namespace)::BlockAhead<float>::advance(long)>
"""


def self_test() -> None:
    """The parser on a listing that is right, and on every fault it exists to find."""
    folded = GOOD.replace("vfmadd231ps %ymm3,%ymm2", "vfmadd231ps (%rax),%ymm2")
    spilled = GOOD.replace("  1a:\tcmp", "  19:\tvmovaps %ymm7,-0x18(%rsp)\n  1a:\tcmp")
    doubled = GOOD.replace("  10:\t", "   f:\tvmovups (%rax),%ymm4\n  10:\t")
    missing = GOOD.replace("jne    0 ", "jne    1f ")
    unknown = GOOD.replace("product_tile", "other_tile")
    unrolled = "".join(f"{line}\n" * (2 if re.search(r"vf|vb|vm", line) else 1) for line in GOOD.splitlines())
    idle = FETCHES.replace(" 110:\tprefetcht1 (%rsi)", " 110:\tnop")
    uncalled = re.sub(" 130:.*\n", "", FETCHES)
    dropped = FETCHES.replace("BlockAhead", "Other")
    for listing, wanted in (
        (FETCHES, ""), (idle, "no prefetch in it"), (uncalled, "nobody calls it"), (dropped, "no BlockAhead"),
    ):  # fmt: skip
        text = "\n".join(check_fetches(functions(listing)))
        assert (wanted in text) if wanted else not text, (wanted, text)
    for listing, wanted in (
        (GOOD, ""), (unrolled, ""), (folded, "1 of them with a load"), (spilled, "stack"), (doubled, "2 vector loads"),
        (missing, "0 loops"), (unknown, "does not know"),
    ):  # fmt: skip
        text = "\n".join(examine(listing + FETCHES)[0])
        assert (wanted in text) if wanted else not text, (wanted, text)
    signature = (
        "void a::(anonymous namespace)::x_tile<b::(anonymous namespace)::Gru<float>, true, 6, 4>(long) [clone .isra.0]"
    )
    assert template_arguments(signature) == ("x_tile", ["b::Gru<float>", "true", "6", "4"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objdump", default="objdump")
    parser.add_argument("--isa")
    parser.add_argument("--object")
    parser.add_argument("--self-test", action="store_true")
    arguments = parser.parse_args()
    if arguments.self_test:
        self_test()
        print("the parser finds what it must")
        return 0
    command = [arguments.objdump, "--disassemble", "--demangle", "--no-show-raw-insn", arguments.object]
    faults, examined = examine(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    faults += [f"no {name} in {arguments.object}" for name, (tiles, _) in examined.items() if not tiles]
    for fault in faults:
        print(fault, file=sys.stderr)
    text = ", ".join(f"{tiles} {name} ({loops} loops)" for name, (tiles, loops) in examined.items())
    print(f"{arguments.isa}: {text}: {len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
