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
