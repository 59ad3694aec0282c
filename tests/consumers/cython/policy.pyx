# cython: language_level=3
"""Steps of an LSTM from Cython: functions of fastrnn by cimport, without the GIL, and nothing to link."""

import numpy as np

from fastrnn.backends._core cimport (
    FASTRNN_F32, FASTRNN_LSTM, fastrnn_make_stepper, fastrnn_pack, fastrnn_plan, fastrnn_problem, fastrnn_sizes, fastrnn_status,
    fastrnn_status_text, fastrnn_step, fastrnn_step_args, fastrnn_stepper,
)
from libc.string cimport memset


cdef check(fastrnn_status status):
    if status != 0:
        raise ValueError(fastrnn_status_text(status).decode())


def aligned(nbytes):
    block = np.zeros(nbytes + 64, np.uint8)
    start = -block.ctypes.data % 64
    return block[start:start + nbytes]


def run(const float[::1] weights, const float[:, ::1] x, Py_ssize_t H):
    """x (T, I) -> y (T, H); weights in the order of state_dict."""
    cdef fastrnn_problem problem
    cdef fastrnn_sizes sizes
    cdef fastrnn_stepper stepper
    cdef fastrnn_step_args step
    cdef fastrnn_status status = <fastrnn_status>0
    cdef Py_ssize_t t
    memset(&problem, 0, sizeof(problem))
    memset(&step, 0, sizeof(step))
    problem.struct_size, sizes.struct_size, step.struct_size = sizeof(problem), sizeof(sizes), sizeof(step)
    problem.cell, problem.dtype = FASTRNN_LSTM, FASTRNN_F32
    problem.T = problem.N = problem.L = problem.D = problem.bias = 1
    problem.I, problem.H, problem.isa = x.shape[1], H, -1
    check(fastrnn_plan(&problem, &sizes))
    if weights.shape[0] != sizes.weights:
        raise ValueError(f"weights has {weights.shape[0]} elements; it must have {sizes.weights}")

    cdef unsigned char[::1] packed = aligned(sizes.packed), workspace = aligned(sizes.forward_workspace)
    cdef float[:, ::1] y = np.empty((x.shape[0], H), np.float32)
    cdef float[::1] h = np.zeros(H, np.float32), c = np.zeros(H, np.float32)
    check(fastrnn_pack(&problem, &weights[0], &packed[0], NULL))
    check(fastrnn_make_stepper(&problem, &stepper))
    step.packed, step.workspace, step.h, step.c = &packed[0], &workspace[0], &h[0], &c[0]
    step.x_n, step.y_n = problem.I, H
    with nogil:
        for t in range(x.shape[0]):
            step.x, step.y = &x[t, 0], &y[t, 0]
            status = fastrnn_step(&stepper, &step)
            if status != 0:
                break
    check(status)
    return np.asarray(y)
