# Part of _core.pyx: arrays looked at and made in C, where the same in Python would take as long as a small call.


cdef inline void* data(array) noexcept:
    return NULL if array is None else cnp.PyArray_DATA(<cnp.ndarray>array)


cdef inline int64_t stride(array, int axis) noexcept:
    """In elements. An axis of length 1 or 0 may have any stride, and NumPy then says anything."""
    if array is None or cnp.PyArray_DIM(array, axis) <= 1:
        return 0
    return cnp.PyArray_STRIDE(array, axis) // cnp.PyArray_ITEMSIZE(array)


cdef inline cnp.ndarray plain(Packed packed, array):
    """The array itself if it is no subclass, of the stack's dtype, C-contiguous, aligned, of native byte order; or None."""
    if type(array) is not cnp.ndarray:
        return None
    cdef cnp.ndarray a = <cnp.ndarray>array
    return a if cnp.PyArray_TYPE(a) == packed.type_num and cnp.PyArray_ISCARRAY_RO(a) else None


cdef inline bint shaped(cnp.ndarray array, int ndim, int64_t first, int64_t second, int64_t third) noexcept:
    """Whether an array, which may be None, is (first, second, third), (first, third) or (third,)."""
    if array is None or cnp.PyArray_NDIM(array) != ndim:
        return False
    cdef cnp.npy_intp* dims = cnp.PyArray_DIMS(array)
    if dims[ndim - 1] != third or (ndim > 1 and dims[0] != first):
        return False
    return ndim < 3 or dims[1] == second


cdef inline cnp.ndarray new(Packed packed, int ndim, int64_t first, int64_t second, int64_t third):
    """A new array of one of these shapes."""
    cdef cnp.npy_intp[3] dims
    dims[0], dims[1] = first, second
    dims[ndim - 1] = third
    return cnp.PyArray_SimpleNew(ndim, dims, packed.type_num)


cdef inline bint apart(cnp.ndarray a, cnp.ndarray b) noexcept:
    """Whether two contiguous arrays, or an array and None, have no byte in common."""
    if b is None:
        return True
    cdef char* a_data = <char*>cnp.PyArray_DATA(a)
    cdef char* b_data = <char*>cnp.PyArray_DATA(b)
    return a_data + cnp.PyArray_NBYTES(a) <= b_data or b_data + cnp.PyArray_NBYTES(b) <= a_data


cpdef empty(tuple shape, dtype):
    """As np.empty; a large array lies in a block that is kept for the next one when this dies."""
    cdef int64_t count = 1, size
    cdef cnp.npy_intp[3] dims
    cdef int i, ndim = <int>len(shape)
    if ndim > 3:
        return np.empty(shape, dtype)
    for i in range(ndim):
        size = shape[i]
        if size <= 0 or size > SPARE_LIMIT // count:  # nothing to keep, too much, or what np.empty refuses
            return np.empty(shape, dtype)
        count *= size
        dims[i] = size
    cdef cnp.dtype kind = dtype if isinstance(dtype, cnp.dtype) else np.dtype(dtype)
    if count * kind.itemsize < SPARE_FROM:  # with NumPy's function in C: np.empty takes twice as long
        return cnp.PyArray_SimpleNew(ndim, dims, kind.num)
    if count * kind.itemsize > SPARE_LIMIT:
        return np.empty(shape, dtype)
    cdef Buffer block = Buffer(count * kind.itemsize)
    array = cnp.PyArray_SimpleNewFromData(ndim, dims, kind.num, block.memory)
    cnp.set_array_base(array, block)
    return array


def copied(cnp.ndarray array not None):
    """A copy of a contiguous array, where `empty` has its memory from."""
    if not cnp.PyArray_IS_C_CONTIGUOUS(array):
        raise ValueError("copied: the array is not contiguous")
    cdef cnp.ndarray copy = empty((<object>array).shape, array.dtype)
    cdef size_t nbytes = <size_t>cnp.PyArray_NBYTES(array)
    cdef void* to = cnp.PyArray_DATA(copy)
    cdef const void* source = cnp.PyArray_DATA(array)
    if nbytes < SPARE_FROM:
        memcpy(to, source, nbytes)
    else:
        with nogil:
            memcpy(to, source, nbytes)
    return copy


def views(dict shapes not None, cnp.ndarray flat not None, bint writeable):
    """Views of a contiguous buffer by name, one shape after the other; of a read-only one read-only ones.

    0.5 microseconds for four, sliced and reshaped 1.8 (2-vCPU Zen 4).

    Raises
    ------
    ValueError
        The buffer is not contiguous, or is shorter than the shapes together; a shape has more than 4 axes.
    """
    cdef cnp.npy_intp[4] dims
    cdef int64_t item = cnp.PyArray_ITEMSIZE(flat), left = cnp.PyArray_SIZE(flat), count
    cdef char* at = <char*>cnp.PyArray_DATA(flat)
    cdef int i, ndim, flags = cnp.NPY_ARRAY_CARRAY
    cdef tuple shape
    cdef dict out = {}
    if not (writeable and cnp.PyArray_ISWRITEABLE(flat)):
        flags = cnp.NPY_ARRAY_CARRAY_RO
    if not cnp.PyArray_IS_C_CONTIGUOUS(flat):
        raise ValueError("views: the buffer is not contiguous")
    for name, shape in shapes.items():
        ndim, count = <int>len(shape), 1
        if ndim > 4:
            raise ValueError(f"views: {name} has {ndim} axes; it must have 4 at most")
        for i in range(ndim):
            dims[i] = shape[i]
            if dims[i] < 0 or (dims[i] > 0 and count > left // dims[i]):
                raise ValueError(f"views: {name} of shape {shape} is longer than what is left of the buffer")
            count *= dims[i]
        view = cnp.PyArray_New(np.ndarray, ndim, dims, cnp.PyArray_TYPE(flat), NULL, at, <int>item, flags, None)
        cnp.set_array_base(view, flat)
        out[name] = view
        at += count * item
        left -= count
    return out
