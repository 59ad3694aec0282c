# Part of _core.pyx: measuring aids.

def probe(kind, int64_t repeats, *, dtype="float32", uint32_t threads=1, buffer=None):
    """A measuring aid: does work of a known amount, without the GIL, for the caller to time.

    Parameters
    ----------
    kind : {"fma", "read", "call", "phase"}
        Multiply-adds in registers; vector loads of a buffer; calls of the thread pool that
        every thread takes part in; phases of a team, which is what a step of a hidden split waits for.
    repeats : int
        How many rounds, passes over the buffer, calls or phases.
    dtype : {"float32", "float64"}
        Of "fma".
    threads : int
        Of "call" and "phase"; the other kinds run on the calling thread.
    buffer : ndarray, C-contiguous
        That "read" reads.

    Returns
    -------
    float
        The amount: floating-point operations, bytes, calls or phases.

    Raises
    ------
    ValueError
        Another kind or dtype, a negative number, or no contiguous buffer to read.
    """
    cdef fastrnn_probe p
    cdef fastrnn_status status
    cdef double work = 0
    if kind not in PROBES:
        raise ValueError(f"kind is {kind!r}; it must be one of {PROBES}")
    if dtype not in ("float32", "float64"):
        raise ValueError(f"dtype is {dtype!r}; it must be 'float32' or 'float64'")
    if repeats < 0:
        raise ValueError(f"repeats is {repeats}; it must be 0 or more")
    memset(&p, 0, sizeof(p))
    p.struct_size = sizeof(p)
    p.kind = PROBES.index(kind)
    p.dtype = FASTRNN_F32 if dtype == "float32" else FASTRNN_F64
    p.isa = -1
    p.threads = threads
    p.repeats = repeats
    if kind == "read":
        if not isinstance(buffer, np.ndarray) or not buffer.flags.c_contiguous:
            raise ValueError("buffer must be a C-contiguous array for kind 'read'")
        p.buffer, p.bytes = cnp.PyArray_DATA(buffer), buffer.nbytes
    with nogil:
        status = fastrnn_run_probe(&p, &work)
    check(status)
    return work
