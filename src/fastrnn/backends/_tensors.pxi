# Part of _core.pyx: memory of tensors that are not NumPy's.


def see(tensor, bint double, bint layer=False):
    """The memory of a strided tensor as an array, with a leading axis of 1 if `layer`.

    It is asked for its address, shape and strides alone, and so is not marked as shared: PyTorch may still resize its
    storage. The array holds nothing: it must not be used longer than the tensor. 0.5 us, where `detach().numpy()` takes
    1.1 (2-vCPU Zen 4).

    Raises
    ------
    ValueError
        It has more than 4 axes, or elements and no memory.
    """
    cdef cnp.npy_intp[5] dims
    cdef cnp.npy_intp[5] steps
    cdef tuple shape = tuple(tensor.shape), strides = tensor.stride()
    cdef Py_ssize_t size = len(shape), i, axis = layer
    cdef cnp.npy_intp item = 8 if double else 4, count = 1
    cdef size_t address = tensor.data_ptr()
    if size > 4:
        raise ValueError(f"a tensor has {size} axes; it must have 4 at most")
    for i in range(size):
        dims[axis] = shape[i]
        steps[axis] = item * <cnp.npy_intp>strides[i]
        count *= dims[axis]
        axis += 1
    if layer:
        dims[0], steps[0] = 1, item * count
    if address == 0 and count:
        raise ValueError("a tensor has elements but no memory: its storage was resized")
    return cnp.PyArray_New(
        np.ndarray, axis, dims, cnp.NPY_DOUBLE if double else cnp.NPY_FLOAT, steps, <void*>address, item,
        cnp.NPY_ARRAY_WRITEABLE, None
    )


include "_dlpack.pxi"
include "_calls.pxi"
include "_modules.pxi"
