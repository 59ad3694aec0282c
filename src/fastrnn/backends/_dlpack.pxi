# Part of _core.pyx: a look at tensors of a library that this module is not compiled against, and tensors for it.
#
# DLPack's table of C functions (`__dlpack_c_exchange_api__` of newer versions of PyTorch) tells address, shape, strides, dtype and
# device in one call of 0.05 us; asked for one by one they take 0.3. With it a training step of one row takes 12 us less, 2 of them
# because a tensor around our memory takes 0.35 us instead of 0.55 (LSTM, I=H=64, 2-vCPU Zen 4). Without it, it is one by one.
#
# The structs are those of dlpack.h, version 1.

from cpython.pycapsule cimport PyCapsule_GetPointer
from cpython.ref cimport Py_DECREF, Py_INCREF, PyObject
from libc.stdint cimport uint16_t, uint64_t
from libc.stdlib cimport malloc


cdef extern from "Python.h":
    bint Py_IsInitialized() nogil


cdef struct DLDevice:
    int32_t device_type  # 1 is this machine's memory
    int32_t device_id

cdef struct DLDataType:
    uint8_t code  # 2 is floating point
    uint8_t bits
    uint16_t lanes

cdef struct DLTensor:
    void* data
    DLDevice device
    int32_t ndim
    DLDataType dtype
    int64_t* shape
    int64_t* strides
    uint64_t byte_offset

cdef struct DLManagedTensorVersioned:
    uint32_t major
    uint32_t minor
    void* manager_ctx
    void (*deleter)(DLManagedTensorVersioned*) noexcept nogil
    uint64_t flags
    DLTensor dl_tensor

cdef struct DLPackExchangeAPI:
    uint32_t major
    uint32_t minor
    void* prev_api
    void* managed_tensor_allocator
    void* managed_tensor_from_py_object_no_sync
    int (*managed_tensor_to_py_object_no_sync)(DLManagedTensorVersioned*, PyObject**) except -1
    int (*dltensor_from_py_object_no_sync)(PyObject*, DLTensor*) except -1
    void* current_work_stream

cdef struct Look:  # of a tensor of up to 4 axes
    char* data
    int bits  # of each number; 0 if they are no floating-point numbers in this machine's memory
    int ndim
    int64_t[4] shape
    int64_t[4] strides

cdef struct Lent:  # an object's memory, as long as a tensor needs it
    DLManagedTensorVersioned managed
    int64_t[6] sizes


UNSEEN = (RuntimeError, BufferError)


cdef void drop(void* owner) noexcept with gil:
    Py_DECREF(<object>owner)

cdef void give_array_back(DLManagedTensorVersioned* managed) noexcept nogil:
    if Py_IsInitialized():  # before the GIL is asked for: after the interpreter's end nobody has it
        drop(managed.manager_ctx)
    free(managed)


cdef class Library:
    """What this module knows of a library of tensors: what it is given here.

    Parameters
    ----------
    kinds : set of type
        Types of tensors that are memory and no more.
    floats : dict
        dtype -> bits of a number.
    from_numpy, empty_like : callable
        A tensor around an array; a new one like another.
    exchange : capsule or None
        DLPack's table of functions for all `kinds`.
    """

    cdef object kinds
    cdef dict floats
    cdef object from_numpy
    cdef object empty_like
    cdef DLPackExchangeAPI* exchange

    def __init__(self, kinds, dict floats not None, from_numpy, empty_like, exchange):
        self.kinds, self.floats, self.from_numpy, self.empty_like = kinds, floats, from_numpy, empty_like
        self.exchange = NULL
        if exchange is not None:
            self.exchange = <DLPackExchangeAPI*>PyCapsule_GetPointer(exchange, "dlpack_exchange_api")
            if self.exchange.major != 1 or self.exchange.dltensor_from_py_object_no_sync == NULL:
                self.exchange = NULL

    cdef bint look(self, tensor, Look* look) except -1:
        """Whether it is a tensor that can be looked at, and the look.

        What has no memory has the address 0 or raises one of `UNSEEN`, and so does what DLPack has no words for.
        """
        cdef DLTensor t
        cdef int i
        if type(tensor) not in self.kinds:
            return False
        if self.exchange == NULL:
            return self.look_long(tensor, look)
        self.exchange.dltensor_from_py_object_no_sync(<PyObject*>tensor, &t)
        look.data, look.ndim = <char*>t.data + t.byte_offset, t.ndim
        look.bits = t.dtype.bits if t.dtype.code == 2 and t.dtype.lanes == 1 and t.device.device_type == 1 else 0
        if t.ndim > 4:
            return False
        for i in range(t.ndim):
            look.shape[i], look.strides[i] = t.shape[i], t.strides[i]
        return True

    cdef bint look_long(self, tensor, Look* look) except -1:
        """The same, attribute by attribute."""
        shape, strides = tuple(tensor.shape), tensor.stride()
        look.data, look.ndim = <char*><size_t>tensor.data_ptr(), <int>len(shape)
        look.bits = self.floats.get(tensor.dtype, 0) if tensor.is_cpu else 0
        if look.ndim > 4:
            return False
        for i in range(look.ndim):
            look.shape[i], look.strides[i] = shape[i], strides[i]
        return True

    cdef tensor(self, cnp.ndarray array):
        """A tensor around an array of up to 3 axes."""
        return self.around(
            array, cnp.PyArray_DATA(array), cnp.PyArray_NDIM(array), cnp.PyArray_DIMS(array), cnp.PyArray_TYPE(array),
            cnp.PyArray_STRIDES(array)
        )

    cdef around(self, owner, void* data, int ndim, cnp.npy_intp* dims, int type_num, cnp.npy_intp* strides=NULL):
        """A tensor of up to 3 axes on memory that is there as long as `owner`: dense, or with strides of so many bytes."""
        cdef PyObject* made = NULL
        cdef int i
        cdef int64_t step = 1
        if self.exchange == NULL:
            array = cnp.PyArray_New(np.ndarray, ndim, dims, type_num, strides, data, 0, cnp.NPY_ARRAY_WRITEABLE, None)
            cnp.set_array_base(array, owner)
            return self.from_numpy(array)
        cdef Lent* lent = <Lent*>malloc(sizeof(Lent))
        if lent == NULL:
            raise MemoryError
        memset(lent, 0, sizeof(Lent))
        cdef DLTensor* t = &lent.managed.dl_tensor
        lent.managed.major = 1
        lent.managed.deleter = give_array_back
        t.data, t.ndim, t.shape, t.strides = data, ndim, lent.sizes, lent.sizes + 3
        t.device.device_type = 1
        t.dtype.code, t.dtype.bits, t.dtype.lanes = 2, 32 if type_num == cnp.NPY_FLOAT else 64, 1
        for i in range(ndim - 1, -1, -1):
            t.shape[i], t.strides[i] = dims[i], step if strides == NULL else strides[i] // (t.dtype.bits // 8)
            step *= t.shape[i]
        lent.managed.manager_ctx = <void*>owner
        Py_INCREF(owner)  # the deleter's
        try:
            self.exchange.managed_tensor_to_py_object_no_sync(&lent.managed, &made)
        except BaseException:
            give_array_back(&lent.managed)
            raise
        tensor = <object>made
        Py_DECREF(tensor)  # of two references, that of `made`
        return tensor
