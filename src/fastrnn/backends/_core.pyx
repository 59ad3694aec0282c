# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The compiled backend: memory, strides and the GIL around the C interface, nothing else.

Arguments have been checked by `fastrnn._validate` and made to fit by `fastrnn.functional`; a status other than ok that
still comes back from C becomes an exception here.
"""

import os

import numpy as np

cimport numpy as cnp
from libc.stdint cimport uintptr_t
from libc.stdlib cimport free
from libc.string cimport memcmp, memcpy, memset
from posix.stdlib cimport posix_memalign

cnp.import_array()

NAME = "cpp"

# Below this many operations (about 20 microseconds at 50 GFLOP/s) a call is shorter than the GIL's hand-over could save.
cdef double RELEASE_WORK = 1e6
cdef enum:
    LINE = 64
    HUGE_PAGE = 2 << 20
    KEPT = 1 << 20  # bytes of workspace kept from one small call to the next, at most


# What `force_split` set: 0 while the plan chooses.
cdef uint32_t forced_split = 0
# What `force_packing` set: -1 while the plan chooses.
cdef int forced_packing = -1
# What `force_segment` set: 0 while the plan chooses.
cdef uint32_t forced_segment = 0
SPLITS = ("chosen", "none", "batch", "hidden", "layers")
PROBES = ("fma", "read", "call", "phase")  # as in fastrnn_probe_kind


cdef check(fastrnn_status status):
    if status == FASTRNN_OK:
        return
    text = fastrnn_status_text(status).decode()
    if status == FASTRNN_TOO_LARGE:
        raise MemoryError(f"fastrnn: {text}")
    raise ValueError(f"fastrnn: {text}")


cdef extern from *:
    """
    // A name to know this library by among the others that are called _core: see _threadpools.py.
    extern "C" {
    __attribute__((visibility("default"))) extern const char fastrnn_python_core;
    const char fastrnn_python_core = 1;
    }
    #if defined(__linux__)
    #include <sys/mman.h>
    #endif
    static void fastrnn_huge_pages(void* memory, size_t bytes) {
    #if defined(MADV_HUGEPAGE)
      madvise(memory, bytes, MADV_HUGEPAGE);
    #else
      (void)memory;
      (void)bytes;
    #endif
    }
    """
    void fastrnn_huge_pages(void* memory, size_t bytes) noexcept nogil


include "_memory.pxi"


# Workspace of small calls, of whatever layer: they hold the GIL from first to last.
cdef Buffer kept = Buffer(0)


cdef class Packed:
    """Immutable snapshot of a stack's weights, in the panels of one instruction set.

    Panels are made when they are first asked for, from a copy of the weights or a buffer that nobody writes.
    """

    cdef readonly object spec
    cdef readonly str isa
    cdef object weights
    cdef Buffer forward
    cdef Buffer backward
    cdef Buffer step_workspace    # of the last large step, if no other uses it now
    cdef fastrnn_problem problem  # T and N of the last call
    cdef fastrnn_sizes sizes      # for them
    cdef fastrnn_stepper stepper  # for them, if has_stepper
    cdef bint has_stepper
    cdef int64_t h_rows           # L*D
    cdef int type_num             # NumPy's number of the dtype
    cdef bint zoned               # inference is not the plain one
    cdef bint met                 # a forward has done without panels

    @property
    def backend(self):
        return NAME

    def in_force(self):
        """Whether `pack` still packs for this instruction set."""
        cdef int32_t active = -1
        return fastrnn_isa_active(&active) == FASTRNN_OK and active == self.problem.isa

    def infer_small(self, x, state, lengths, reset, mask, out, bint batch_first):
        """(y, state) of an ordinary small inference; None if it is not one."""
        if lengths is not None or reset is not None or mask is not None:
            return None
        return infer_small(self, x, state, out, batch_first)

    def step_small(self, x, out, h, c):
        """The output of one ordinary step, of any size, `out` if given, from x (N, I) or (I,); None if it is not one.

        h and c (L, N, H) are the stream's own: read and written.
        """
        return step_small(self, x, out, h, c)

    def forward_plain(self, x, state):
        """(y, h, c, h0, c0, tape) of an ordinary training forward of x (T, N, I), of any size; None if it is not one.

        h0 and c0 are copies of the state that was given; of what is not there c and they are None.
        """
        return forward_plain(self, x, state)

    def backward_plain(self, Buffer tape not None, x, y, h0, c0, dy, tuple into, bint accumulate):
        """(dx, dh0, dc0, dweights) of an ordinary backward, in `into` if it is not None; None if it is not one.

        x to c0 are what a forward of `forward_plain` had and gave; dy may be None, or anything.
        """
        return backward_plain(self, tape, x, y, h0, c0, dy, into, accumulate)

    cdef plan(
        self, int64_t steps, int64_t batch, int64_t rows, bint retain, uint32_t save, uint32_t segment,
        uint32_t regularisers, bint unpacked=False
    ):
        # Under the GIL; callers copy problem and sizes before they release it. With `unpacked` one plan serves a call and
        # those that do not mind: only a forward's workspace is larger.
        cdef uint32_t threads = <uint32_t>fastrnn_get_num_threads()
        if (
            self.problem.T == steps and self.problem.N == batch and self.problem.rows == rows
            and self.problem.retain == retain
            and self.problem.threads == threads and self.problem.split == forced_split
            and self.problem.save == save and self.problem.segment == segment
            and self.problem.regularisers == regularisers
            and (self.problem.unpacked or not unpacked)
        ):
            return
        cdef fastrnn_problem problem = self.problem
        problem.T = steps
        problem.N = batch
        problem.rows = rows
        problem.retain = retain
        problem.threads = threads
        problem.split = forced_split
        problem.save = save
        problem.segment = segment
        problem.regularisers = regularisers
        problem.unpacked = unpacked
        check(fastrnn_plan(&problem, &self.sizes))
        self.problem = problem
        self.has_stepper = False

    cdef bint small(self) noexcept:
        """Whether the call that was planned is over before the GIL could change hands."""
        return self.sizes.work <= RELEASE_WORK

    cdef void* panels(self) except NULL:
        """Weights packed for forward."""
        if self.forward is None:
            made = Buffer(self.sizes.packed)
            check(fastrnn_pack(&self.problem, cnp.PyArray_DATA(self.weights), made.memory, NULL))
            if self.forward is None:  # never replaced: another thread may be reading it without the GIL
                self.forward = made
        return self.forward.memory

    cdef bint unpacked_for(self, int64_t steps, Buffer tape):
        """Whether a call would rather do without panels: the first one with a tape, in training often the only one."""
        if tape is None or steps != 1 or forced_packing == 1:
            return False
        return forced_packing == 0 or not (self.met or self.forward is not None)

    cdef Buffer backward_panels(self, bint unpacked):
        """Weights packed for backward; None where a call does without: chosen by `unpacked` if there are none, or forced."""
        if forced_packing == 0 or (forced_packing < 0 and unpacked and self.backward is None):
            return None
        if self.backward is None:
            backward = Buffer(self.sizes.packed_backward)
            check(fastrnn_pack(&self.problem, cnp.PyArray_DATA(self.weights), NULL, backward.memory))
            self.backward = backward
        return self.backward


cdef Buffer room(int64_t nbytes, double work):
    """Workspace of a call by its own sizes; small calls, of which only one can run, share theirs."""
    global kept
    if work > RELEASE_WORK or nbytes > KEPT:
        return Buffer(nbytes)
    if kept.nbytes < nbytes:
        kept = Buffer(nbytes)
    return kept


cdef uint32_t cell_code(spec):
    if spec.cell == "rnn":
        return FASTRNN_RNN
    if spec.cell == "lstm":
        return FASTRNN_LSTM
    return FASTRNN_GRU if spec.reset_after else FASTRNN_GRU_RESET_BEFORE


cdef uint32_t activation_code(spec):
    if spec.exact:
        return FASTRNN_CLAMP
    return FASTRNN_RELU if spec.cell == "rnn" and spec.nonlinearity == "relu" else FASTRNN_STANDARD


def pack(spec, weights):
    """Weights (weight_count,) of a Spec -> Packed, for the active instruction set."""
    cdef Packed packed = Packed()
    cdef fastrnn_problem* p = &packed.problem
    memset(p, 0, sizeof(fastrnn_problem))
    p.struct_size = sizeof(fastrnn_problem)
    packed.sizes.struct_size = sizeof(fastrnn_sizes)
    p.cell = cell_code(spec)
    p.activation = activation_code(spec)
    p.dtype = FASTRNN_F32 if spec.dtype_name == "float32" else FASTRNN_F64
    p.T = p.N = 1
    p.threads = <uint32_t>fastrnn_get_num_threads()
    p.I = spec.input_size
    p.H = spec.hidden_size
    p.L = spec.num_layers
    p.D = spec.directions
    p.bias = spec.bias
    check(fastrnn_isa_active(&p.isa))
    check(fastrnn_plan(p, &packed.sizes))
    packed.spec = spec
    packed.isa = fastrnn_isa_name(p.isa).decode()
    packed.h_rows = p.L * p.D
    packed.zoned = spec.zoneout != (0.0, 0.0)
    packed.type_num = cnp.NPY_FLOAT if p.dtype == FASTRNN_F32 else cnp.NPY_DOUBLE
    own = weights.base is None or type(weights.base) is Buffer
    frozen = own and not weights.flags.writeable  # a layer's own buffer, which nobody writes again
    packed.weights = weights if frozen else np.array(weights, copy=True, order="C")
    return packed


cdef inline given(argument):
    """Raise unless it is there; Cython's `not None` is for functions that C does not call."""
    if argument is None:
        raise TypeError("fastrnn: packed weights and tape must be given, not None")


cpdef make_tape(
    Packed packed, int64_t steps, int64_t batch, reuse=None, bint recompute=False, int64_t rows=0
):
    """Memory for what backward needs of `steps` x `batch`, or packed `rows`; that of `reuse` if it is large enough."""
    cdef uint32_t save = FASTRNN_SAVE_RECOMPUTE if recompute else FASTRNN_SAVE_ALL
    cdef uint32_t segment = forced_segment
    given(packed)
    packed.plan(steps, batch, rows, False, save, segment, 0)  # a tape does not depend on what regularises
    cdef Buffer tape
    if isinstance(reuse, Buffer) and (<Buffer>reuse).nbytes >= packed.sizes.tape:
        tape = <Buffer>reuse
    else:
        tape = Buffer(packed.sizes.tape)
    tape.save = save
    tape.segment = segment
    return tape


include "_arrays.pxi"
include "_arguments.pxi"


cpdef forward(
    Packed packed, x, y, h0, c0, hn, cn, lengths, reset, mask, dropout, Buffer tape, packing=None, regular=None
):
    """One call over a whole sequence; see `fastrnn.backends.Backend`."""
    cdef fastrnn_forward_args a
    cdef fastrnn_problem problem
    cdef fastrnn_sizes sizes
    cdef fastrnn_status status
    given(packed)
    memset(&a, 0, sizeof(a))
    cdef Extent e = extent(x, packing)
    cdef bint unpacked = packed.unpacked_for(e.steps, tape)
    if tape is None:
        packed.plan(e.steps, e.batch, e.rows, False, FASTRNN_SAVE_ALL, 0, regularisers_of(regular))
    else:
        packed.plan(e.steps, e.batch, e.rows, False, tape.save, tape.segment, regularisers_of(regular), unpacked)
    problem, sizes = packed.problem, packed.sizes  # before an allocation lets another thread plan
    if tape is not None and tape.nbytes < sizes.tape:
        raise ValueError("fastrnn: the tape's memory is too small for this call")
    a.struct_size = sizeof(a)
    if unpacked and sizes.unpacked_forward:
        packed.met = True
        a.weights = cnp.PyArray_DATA(packed.weights)
    else:
        a.packed = packed.panels()
    a.x, a.x_t, a.x_n = data(x), stride(x, 0), stride(x, 1)
    a.y, a.y_t, a.y_n = data(y), stride(y, 0), stride(y, 1)
    a.h0, a.c0, a.hn, a.cn = data(h0), data(c0), data(hn), data(cn)
    set_rows(&a, lengths, packing)
    a.reset = <const uint8_t*>data(reset)
    a.mask = <const uint8_t*>data(mask)
    a.dropout = data(dropout)
    if regular is not None:
        regularise(&a, regular)
    a.tape = NULL if tape is None else tape.memory
    cdef Buffer workspace = room(sizes.forward_workspace, sizes.work)
    a.workspace = workspace.memory
    if sizes.work > RELEASE_WORK:
        with nogil:
            status = fastrnn_forward(&problem, &a)
    else:
        status = fastrnn_forward(&problem, &a)
    if status != FASTRNN_OK:
        check(status)


cpdef backward(
    Packed packed, Buffer tape, x, y, h0, c0, dy, dhn, dcn, dx, dh0, dc0, dweights, lengths, reset, mask,
    dropout, bint retain, bint accumulate, packing=None, regular=None, dh_all=None, dc_all=None
):
    """Gradients of one forward call; see `fastrnn.backends.Backend`.

    dh_all, dc_all (L*D, T, N, H): those of every state on the way, if they are wanted; padded also of packed rows.
    """
    cdef fastrnn_backward_args a
    cdef fastrnn_problem problem
    cdef fastrnn_sizes sizes
    cdef fastrnn_status status
    given(packed)
    given(tape)
    memset(&a, 0, sizeof(a))
    cdef Extent e = extent(x, packing)
    packed.plan(e.steps, e.batch, e.rows, retain, tape.save, tape.segment, regularisers_of(regular))
    problem, sizes = packed.problem, packed.sizes  # before an allocation lets another thread plan
    if tape.nbytes < sizes.tape:
        raise ValueError("fastrnn: the tape's memory is too small for this call")
    cdef Buffer panels = packed.backward_panels(sizes.unpacked_backward)
    cdef Buffer workspace = room(sizes.backward_workspace, sizes.work)
    a.struct_size = sizeof(a)
    a.accumulate = accumulate
    a.packed_backward = NULL if panels is None else panels.memory
    a.weights = cnp.PyArray_DATA(packed.weights)
    a.packed = packed.panels() if tape.save == FASTRNN_SAVE_RECOMPUTE else NULL
    a.x, a.x_t, a.x_n = data(x), stride(x, 0), stride(x, 1)
    a.y, a.y_t, a.y_n = data(y), stride(y, 0), stride(y, 1)
    a.h0, a.c0 = data(h0), data(c0)
    a.dy, a.dy_t, a.dy_n = data(dy), stride(dy, 0), stride(dy, 1)
    a.dhn, a.dcn = data(dhn), data(dcn)
    a.dx, a.dx_t, a.dx_n = data(dx), stride(dx, 0), stride(dx, 1)
    a.dh0, a.dc0, a.dweights = data(dh0), data(dc0), data(dweights)
    a.dh_all, a.dc_all = data(dh_all), data(dc_all)
    set_rows(&a, lengths, packing)
    a.reset = <const uint8_t*>data(reset)
    a.mask = <const uint8_t*>data(mask)
    a.dropout = data(dropout)
    if regular is not None:
        regularise(&a, regular)
    a.tape = tape.memory
    a.workspace = workspace.memory
    if sizes.work > RELEASE_WORK:
        with nogil:
            status = fastrnn_backward(&problem, &a)
    else:
        status = fastrnn_backward(&problem, &a)
    if status != FASTRNN_OK:
        check(status)


include "_probe.pxi"
include "_small.pxi"
include "_tensors.pxi"
include "_abi.pxi"


def spare_memory():
    """Bytes of large blocks that were given back and are kept for the next call."""
    return spare_bytes


def release_memory():
    """Gives those blocks back to the system."""
    while spares > 0:
        free(drop_spare(0).memory)


def config():
    """Facts about this build and this machine."""
    cdef int32_t active = -1
    names = [fastrnn_isa_name(i).decode() for i in range(fastrnn_isa_count())]
    runnable = [name for i, name in enumerate(names) if fastrnn_isa_runnable(i)]
    check(fastrnn_isa_active(&active))
    return {
        "isas_built": names,
        "isas_runnable": runnable,
        "isa_active": names[active],
        "compiler": fastrnn_compiler().decode(),
        "core_version": fastrnn_version().decode(),
    }


def set_num_threads(int32_t n):
    fastrnn_set_num_threads(n)


def get_num_threads():
    return fastrnn_get_num_threads()


def isa_active():
    """Name of the instruction set the next packed weights are made for."""
    cdef int32_t active = -1
    check(fastrnn_isa_active(&active))
    return fastrnn_isa_name(active).decode()


def force_isa(name):
    """For tests: pack for this instruction set from now on; None: choose automatically again.

    Raises
    ------
    ValueError
        It was not built, or cannot run here.
    """
    cdef bytes encoded
    cdef fastrnn_status status
    if name is None:
        status = fastrnn_set_isa(NULL)
    else:
        encoded = name.encode()
        status = fastrnn_set_isa(encoded)
    if status != FASTRNN_OK:
        raise ValueError(isa_error("force_isa", name, status))


def force_split(name):
    """For tests and measurements: how threads share a call; None: the plan chooses again.

    Raises
    ------
    ValueError
        No such way.
    """
    global forced_split
    if name is not None and name not in SPLITS:
        raise ValueError(f"force_split: got {name!r}, it must be one of {SPLITS} or None")
    forced_split = 0 if name is None else SPLITS.index(name)


def force_segment(steps):
    """For tests: the steps between two checkpoints of tapes made from now on; None: the plan chooses again."""
    global forced_segment
    forced_segment = 0 if steps is None else steps


def force_packing(packing):
    """For tests: whether weights are packed for training calls, True or False; None: the plan chooses again."""
    global forced_packing
    forced_packing = -1 if packing is None else packing


cdef isa_error(source, name, fastrnn_status status):
    names = [fastrnn_isa_name(i).decode() for i in range(fastrnn_isa_count())]
    runnable = [n for i, n in enumerate(names) if fastrnn_isa_runnable(i)]
    why = "was not built" if status == FASTRNN_UNKNOWN_ISA else "cannot run on this CPU"
    return f"{source}: instruction set {name!r} {why}; it must be one of {runnable}"


# A forced instruction set that is not there is an error at import, never a silent other one.
cdef int32_t _index = -1
cdef fastrnn_status _status = fastrnn_isa_active(&_index)
if _status != FASTRNN_OK:
    raise ValueError(isa_error("FASTRNN_ISA", os.environ.get("FASTRNN_ISA"), _status))
