"""The C interface of the core, for Cython: `from fastrnn.backends._core cimport fastrnn_forward, fastrnn_forward_args`.

Shapes and meanings are in fastrnn/fastrnn.h, which `fastrnn.get_include()` finds. Nothing is linked: the functions are those of
the loaded module, free of the GIL.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t


cdef extern from "fastrnn/fastrnn.h" nogil:
    ctypedef enum fastrnn_status:
        FASTRNN_OK
        FASTRNN_TOO_LARGE
        FASTRNN_UNKNOWN_ISA
        FASTRNN_ISA_NOT_RUNNABLE

    cdef enum:
        FASTRNN_ABI_VERSION
        FASTRNN_RNN
        FASTRNN_LSTM
        FASTRNN_GRU
        FASTRNN_GRU_RESET_BEFORE
        FASTRNN_STANDARD
        FASTRNN_RELU
        FASTRNN_CLAMP
        FASTRNN_F32
        FASTRNN_F64
        FASTRNN_SAVE_ALL
        FASTRNN_SAVE_RECOMPUTE
        FASTRNN_RECURRENT_DROPOUT
        FASTRNN_ZONEOUT

    ctypedef struct fastrnn_problem:
        uint32_t struct_size
        uint32_t cell
        uint32_t activation
        uint32_t dtype
        int64_t T
        int64_t N
        int64_t I
        int64_t H
        int64_t L
        int64_t rows
        uint32_t D
        uint32_t bias
        int32_t isa
        uint32_t retain
        uint32_t threads
        uint32_t split
        uint32_t save
        uint32_t segment
        uint32_t regularisers
        uint32_t unpacked

    ctypedef struct fastrnn_sizes:
        uint32_t struct_size
        uint32_t threads
        int64_t weights
        int64_t packed
        int64_t packed_backward
        int64_t tape
        int64_t forward_workspace
        int64_t backward_workspace
        double work
        uint32_t unpacked_backward
        uint32_t unpacked_forward

    ctypedef struct fastrnn_forward_args:
        uint32_t struct_size
        const void* packed
        const void* x
        int64_t x_t
        int64_t x_n
        void* y
        int64_t y_t
        int64_t y_n
        const void* h0
        const void* c0
        void* hn
        void* cn
        const int64_t* lengths
        const int64_t* offsets
        const int64_t* batch_sizes
        const int64_t* places
        const uint8_t* reset
        const uint8_t* mask
        const void* dropout
        const void* recurrent_dropout
        const void* zoneout_h
        const void* zoneout_c
        int64_t zoneout_k
        int64_t zoneout_t
        int64_t zoneout_n
        void* tape
        void* workspace
        const void* weights

    ctypedef struct fastrnn_backward_args:
        uint32_t struct_size
        uint32_t accumulate
        const void* packed_backward
        const void* weights
        const void* packed
        const void* x
        int64_t x_t
        int64_t x_n
        const void* y
        int64_t y_t
        int64_t y_n
        const void* h0
        const void* c0
        const void* dy
        int64_t dy_t
        int64_t dy_n
        const void* dhn
        const void* dcn
        void* dx
        int64_t dx_t
        int64_t dx_n
        void* dh0
        void* dc0
        void* dweights
        const int64_t* lengths
        const int64_t* offsets
        const int64_t* batch_sizes
        const int64_t* places
        const uint8_t* reset
        const uint8_t* mask
        const void* dropout
        const void* recurrent_dropout
        const void* zoneout_h
        const void* zoneout_c
        int64_t zoneout_k
        int64_t zoneout_t
        int64_t zoneout_n
        void* tape
        void* workspace
        void* dh_all
        void* dc_all

    ctypedef struct fastrnn_stepper:
        pass

    ctypedef struct fastrnn_step_args:
        uint32_t struct_size
        const void* packed
        const void* x
        int64_t x_n
        void* y
        int64_t y_n
        void* h
        void* c
        void* workspace

    # The library's own, which only the module itself can call; below are those for everybody.
    fastrnn_status c_plan "fastrnn_plan"(const fastrnn_problem*, fastrnn_sizes*)
    fastrnn_status c_pack "fastrnn_pack"(const fastrnn_problem*, const void*, void*, void*)
    fastrnn_status c_forward "fastrnn_forward"(const fastrnn_problem*, const fastrnn_forward_args*)
    fastrnn_status c_backward "fastrnn_backward"(const fastrnn_problem*, const fastrnn_backward_args*)
    fastrnn_status c_make_stepper "fastrnn_make_stepper"(const fastrnn_problem*, fastrnn_stepper*)
    fastrnn_status c_step "fastrnn_step"(const fastrnn_stepper*, const fastrnn_step_args*)
    const char* c_status_text "fastrnn_status_text"(fastrnn_status)
    int32_t c_get_num_threads "fastrnn_get_num_threads"()
    void c_set_num_threads "fastrnn_set_num_threads"(int32_t)

    int32_t fastrnn_isa_count()
    const char* fastrnn_isa_name(int32_t index)
    int32_t fastrnn_isa_runnable(int32_t index)
    fastrnn_status fastrnn_isa_active(int32_t* index)
    fastrnn_status fastrnn_set_isa(const char* name)

    ctypedef enum fastrnn_probe_kind:
        FASTRNN_PROBE_FMA
        FASTRNN_PROBE_READ
        FASTRNN_PROBE_CALL
        FASTRNN_PROBE_PHASE

    ctypedef struct fastrnn_probe:
        uint32_t struct_size
        uint32_t kind
        uint32_t dtype
        int32_t isa
        uint32_t threads
        int64_t repeats
        const void* buffer
        int64_t bytes

    fastrnn_status fastrnn_run_probe(const fastrnn_probe* probe, double* work)

    const char* fastrnn_version()
    const char* fastrnn_compiler()


cdef extern from "fastrnn/capsule.h" nogil:
    ctypedef struct fastrnn_api:
        uint32_t struct_size
        uint32_t abi_version
        fastrnn_status (*plan)(const fastrnn_problem*, fastrnn_sizes*) noexcept
        fastrnn_status (*pack)(const fastrnn_problem*, const void*, void*, void*) noexcept
        fastrnn_status (*forward)(const fastrnn_problem*, const fastrnn_forward_args*) noexcept
        fastrnn_status (*backward)(const fastrnn_problem*, const fastrnn_backward_args*) noexcept
        fastrnn_status (*make_stepper)(const fastrnn_problem*, fastrnn_stepper*) noexcept
        fastrnn_status (*step)(const fastrnn_stepper*, const fastrnn_step_args*) noexcept
        int32_t (*isa_count)() noexcept
        const char* (*isa_name)(int32_t) noexcept
        int32_t (*isa_runnable)(int32_t) noexcept
        fastrnn_status (*isa_active)(int32_t*) noexcept
        fastrnn_status (*set_isa)(const char*) noexcept
        int32_t (*get_num_threads)() noexcept
        void (*set_num_threads)(int32_t) noexcept
        const char* (*status_text)(fastrnn_status) noexcept
        const char* (*version)() noexcept


cdef fastrnn_status fastrnn_plan(const fastrnn_problem* problem, fastrnn_sizes* sizes) noexcept nogil
cdef fastrnn_status fastrnn_pack(
    const fastrnn_problem* problem, const void* weights, void* packed, void* packed_backward
) noexcept nogil
cdef fastrnn_status fastrnn_forward(const fastrnn_problem* problem, const fastrnn_forward_args* args) noexcept nogil
cdef fastrnn_status fastrnn_backward(const fastrnn_problem* problem, const fastrnn_backward_args* args) noexcept nogil
cdef fastrnn_status fastrnn_make_stepper(const fastrnn_problem* problem, fastrnn_stepper* stepper) noexcept nogil
cdef fastrnn_status fastrnn_step(const fastrnn_stepper* stepper, const fastrnn_step_args* args) noexcept nogil
cdef const char* fastrnn_status_text(fastrnn_status status) noexcept nogil
cdef int32_t fastrnn_get_num_threads() noexcept nogil
cdef void fastrnn_set_num_threads(int32_t threads) noexcept nogil

# With arguments instead of structs: see _abi.pxi.
cdef int64_t fastrnn_flat_size(const fastrnn_problem* given, int64_t T, int64_t N, int64_t which) noexcept nogil
cdef int64_t fastrnn_flat_step(
    const fastrnn_stepper* stepper, const void* packed, const void* x, int64_t x_n, void* y, int64_t y_n, void* h, void* c,
    void* workspace
) noexcept nogil
cdef int64_t fastrnn_flat_forward(
    const fastrnn_problem* given, int64_t T, int64_t N, const void* packed, const void* x, int64_t x_t, int64_t x_n, void* y,
    int64_t y_t, int64_t y_n, const void* h0, const void* c0, void* hn, void* cn, void* tape, void* workspace
) noexcept nogil
cdef int64_t fastrnn_flat_backward(
    const fastrnn_problem* given, int64_t T, int64_t N, const void* packed_backward, const void* x, int64_t x_t, int64_t x_n,
    const void* y, int64_t y_t, int64_t y_n, const void* h0, const void* c0, const void* dy, int64_t dy_t, int64_t dy_n,
    void* dx, int64_t dx_t, int64_t dx_n, void* dh0, void* dc0, void* dweights, void* tape, void* workspace
) noexcept nogil
