# Part of _core.pyx: the C interface for other modules. Each function here is a capsule in __pyx_capi__, which `cimport` and Numba
# find by its name; `api` is a capsule that holds them all, see fastrnn/capsule.h.

from cpython.pycapsule cimport PyCapsule_New


cdef fastrnn_status fastrnn_plan(const fastrnn_problem* problem, fastrnn_sizes* sizes) noexcept nogil:
    return c_plan(problem, sizes)

cdef fastrnn_status fastrnn_pack(
    const fastrnn_problem* problem, const void* weights, void* packed, void* packed_backward
) noexcept nogil:
    return c_pack(problem, weights, packed, packed_backward)

cdef fastrnn_status fastrnn_forward(const fastrnn_problem* problem, const fastrnn_forward_args* args) noexcept nogil:
    return c_forward(problem, args)

cdef fastrnn_status fastrnn_backward(const fastrnn_problem* problem, const fastrnn_backward_args* args) noexcept nogil:
    return c_backward(problem, args)

cdef fastrnn_status fastrnn_make_stepper(const fastrnn_problem* problem, fastrnn_stepper* stepper) noexcept nogil:
    return c_make_stepper(problem, stepper)

cdef fastrnn_status fastrnn_step(const fastrnn_stepper* stepper, const fastrnn_step_args* args) noexcept nogil:
    return c_step(stepper, args)

cdef const char* fastrnn_status_text(fastrnn_status status) noexcept nogil:
    return c_status_text(status)

cdef int32_t fastrnn_get_num_threads() noexcept nogil:
    return c_get_num_threads()

cdef void fastrnn_set_num_threads(int32_t threads) noexcept nogil:
    c_set_num_threads(threads)


cdef fastrnn_api table
table.struct_size = sizeof(fastrnn_api)
table.abi_version = FASTRNN_ABI_VERSION
table.plan, table.pack = c_plan, c_pack
table.forward, table.backward = c_forward, c_backward
table.make_stepper, table.step = c_make_stepper, c_step
table.isa_count, table.isa_name = fastrnn_isa_count, fastrnn_isa_name
table.isa_runnable, table.isa_active, table.set_isa = fastrnn_isa_runnable, fastrnn_isa_active, fastrnn_set_isa
table.get_num_threads, table.set_num_threads = c_get_num_threads, c_set_num_threads
table.status_text, table.version = c_status_text, fastrnn_version
api = PyCapsule_New(&table, "fastrnn.backends._core.api", NULL)


# The same with arguments instead of structs, for callers that have no structs: `fastrnn.numba` finds them by name.

cdef int64_t fastrnn_flat_size(const fastrnn_problem* given, int64_t T, int64_t N, int64_t which) noexcept nogil:
    cdef fastrnn_problem problem = given[0]
    cdef fastrnn_sizes sizes
    problem.T, problem.N = T, N
    sizes.struct_size = sizeof(sizes)
    if c_plan(&problem, &sizes) != FASTRNN_OK:
        return -1
    return sizes.forward_workspace if which == 0 else sizes.backward_workspace if which == 1 else sizes.tape

cdef int64_t fastrnn_flat_step(
    const fastrnn_stepper* stepper, const void* packed, const void* x, int64_t x_n, void* y, int64_t y_n, void* h, void* c,
    void* workspace
) noexcept nogil:
    cdef fastrnn_step_args a
    a.struct_size = sizeof(a)
    a.packed, a.x, a.x_n, a.y, a.y_n, a.h, a.c, a.workspace = packed, x, x_n, y, y_n, h, c, workspace
    return c_step(stepper, &a)

cdef int64_t fastrnn_flat_forward(
    const fastrnn_problem* given, int64_t T, int64_t N, const void* packed, const void* x, int64_t x_t, int64_t x_n, void* y,
    int64_t y_t, int64_t y_n, const void* h0, const void* c0, void* hn, void* cn, void* tape, void* workspace
) noexcept nogil:
    cdef fastrnn_problem problem = given[0]
    cdef fastrnn_forward_args a
    memset(&a, 0, sizeof(a))
    problem.T, problem.N = T, N
    a.struct_size = sizeof(a)
    a.packed, a.tape, a.workspace = packed, tape, workspace
    a.x, a.x_t, a.x_n = x, x_t, x_n
    a.y, a.y_t, a.y_n = y, y_t, y_n
    a.h0, a.c0, a.hn, a.cn = h0, c0, hn, cn
    return c_forward(&problem, &a)

cdef int64_t fastrnn_flat_backward(
    const fastrnn_problem* given, int64_t T, int64_t N, const void* packed_backward, const void* x, int64_t x_t, int64_t x_n,
    const void* y, int64_t y_t, int64_t y_n, const void* h0, const void* c0, const void* dy, int64_t dy_t, int64_t dy_n,
    void* dx, int64_t dx_t, int64_t dx_n, void* dh0, void* dc0, void* dweights, void* tape, void* workspace
) noexcept nogil:
    cdef fastrnn_problem problem = given[0]
    cdef fastrnn_backward_args a
    memset(&a, 0, sizeof(a))
    problem.T, problem.N = T, N
    a.struct_size = sizeof(a)
    a.accumulate = 1
    a.packed_backward, a.tape, a.workspace = packed_backward, tape, workspace
    a.x, a.x_t, a.x_n = x, x_t, x_n
    a.y, a.y_t, a.y_n = y, y_t, y_n
    a.h0, a.c0 = h0, c0
    a.dy, a.dy_t, a.dy_n = dy, dy_t, dy_n
    a.dx, a.dx_t, a.dx_n = dx, dx_t, dx_n
    a.dh0, a.dc0, a.dweights = dh0, dc0, dweights
    return c_backward(&problem, &a)


cdef aligned_bytes(int64_t nbytes):
    """uint8 (nbytes,) on a 64-byte boundary."""
    block = np.zeros(nbytes + LINE, np.uint8)
    start = -block.ctypes.data % LINE
    return block[start:start + nbytes]


def plain_weights(Packed packed not None, int64_t batch_size):
    """(problem, stepper, packed, packed_backward) as arrays of bytes, and the bytes a step works in; one thread a call."""
    cdef fastrnn_problem problem = packed.problem
    cdef fastrnn_sizes sizes
    problem.T, problem.N = 1, batch_size
    problem.threads = 1
    problem.rows = 0
    problem.retain = problem.split = problem.save = problem.segment = problem.regularisers = problem.unpacked = 0
    sizes.struct_size = sizeof(sizes)
    check(fastrnn_plan(&problem, &sizes))
    parts = [aligned_bytes(n) for n in (sizeof(problem), sizeof(fastrnn_stepper), sizes.packed, sizes.packed_backward)]
    memcpy(cnp.PyArray_DATA(parts[0]), &problem, sizeof(problem))
    check(fastrnn_make_stepper(&problem, <fastrnn_stepper*>cnp.PyArray_DATA(parts[1])))
    check(fastrnn_pack(&problem, cnp.PyArray_DATA(packed.weights), cnp.PyArray_DATA(parts[2]), cnp.PyArray_DATA(parts[3])))
    return (*parts, sizes.forward_workspace)
