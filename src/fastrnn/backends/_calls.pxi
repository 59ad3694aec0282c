# Part of _core.pyx: calls on tensors of a library that this module is not compiled against.
#
# As in _small.pxi every function asks one question, "is this the ordinary call?", and answers None if it is not: the
# Python of `fastrnn.torch` then does all that there is to do. Between tensors and tensors there is no line of Python here:
# of a training step of one row and 64 units, 170 us, it was 40 (2-vCPU Zen 4).


cdef class Calls:
    """Ordinary calls with these packed weights, on tensors that are PyTorch's.

    Parameters
    ----------
    packed : Packed
    dtype : object
        Of the tensors: that of the weights.
    kinds : set of type
        Types of tensors that are memory and no more.
    from_numpy : callable
        Makes a tensor of an array, whose memory it keeps.
    """

    cdef Packed packed
    cdef object dtype
    cdef object kinds
    cdef object from_numpy
    cdef dict shapes  # of the weights
    cdef bint has_c

    def __init__(self, Packed packed not None, dtype, kinds, from_numpy):
        self.packed, self.dtype, self.kinds, self.from_numpy = packed, dtype, kinds, from_numpy
        self.shapes = packed.spec.weight_shapes
        self.has_c = packed.problem.cell == FASTRNN_LSTM

    cdef cnp.ndarray look(self, tensor, bint layer):
        """The memory of a dense tensor as a 3-D array, with a leading axis of 1 if `layer`; None of another tensor.

        As `see` gives it, but the strides are not asked for. What has no memory of its own has no address either: asking a
        sparse or a wrapped tensor for it is a RuntimeError.
        """
        cdef cnp.npy_intp[3] dims
        if type(tensor) not in self.kinds or tensor.dtype is not self.dtype or not tensor.is_cpu:
            return None
        if not tensor.is_contiguous() or tensor.is_neg():
            return None
        cdef tuple shape = <tuple>tensor.shape  # unchecked: a subclass of tuple
        if len(shape) != (2 if layer else 3):
            return None
        dims[0] = 1 if layer else shape[0]
        dims[1], dims[2] = shape[len(shape) - 2], shape[len(shape) - 1]
        cdef size_t address = tensor.data_ptr()
        if address == 0:
            return None
        return cnp.PyArray_SimpleNewFromData(3, dims, self.packed.type_num, <void*>address)

    cdef cnp.ndarray look_dense(self, tensor, bint layer):
        """The same of a gradient, which may be a number with strides of 0: a sum's. Then it is a copy."""
        if type(tensor) not in self.kinds or tensor.is_contiguous():
            return self.look(tensor, layer)
        if tensor.dtype is not self.dtype or not tensor.is_cpu or tensor.is_neg() or tensor.dim() != (2 if layer else 3):
            return None
        if tensor.data_ptr() == 0:
            return None
        return cnp.PyArray_GETCONTIGUOUS(see(tensor, self.packed.type_num == cnp.NPY_DOUBLE, layer))

    cdef bint is_state(self, cnp.ndarray array, int64_t batch) noexcept:
        return shaped(array, 3, self.packed.h_rows, batch, self.packed.problem.H)

    def see(self, x, h0, c0, bint layer):
        """(x, h0, c0) as arrays (T, N, I) and (L*D, N, H), for as long as the tensors live; None if they are not ordinary.

        x, h0 and c0 are of two axes if `layer`: those of a cell.
        """
        cdef cnp.ndarray h = None, c = None
        try:
            seen = self.look(x, layer)
            if seen is None or cnp.PyArray_SIZE(seen) == 0 or cnp.PyArray_DIM(seen, 2) != self.packed.problem.I:
                return None
            batch = cnp.PyArray_DIM(seen, 1)
            if h0 is not None:
                h = self.look(h0, layer)
                if not self.is_state(h, batch):
                    return None
            if (c0 is not None) != (self.has_c and h0 is not None):
                return None
            if c0 is not None:
                c = self.look(c0, layer)
                if not self.is_state(c, batch):
                    return None
        except RuntimeError:
            return None
        return seen, h, c

    cdef tuple tensors(self, cnp.ndarray y, cnp.ndarray hn, cnp.ndarray cn, bint layer):
        """Outputs as tensors; of a cell y is none of them."""
        if layer:
            hn, cn = hn[0], None if cn is None else cn[0]
        made, h = self.from_numpy, self.from_numpy(hn)
        if layer:
            return (h,) if cn is None else (h, made(cn))
        return (made(y), h) if cn is None else (made(y), h, made(cn))

    def infer(self, tuple seen not None, bint layer):
        """Outputs of a small inference: (y, h) or (y, h, c), of a cell (h,) or (h, c); None if it is large."""
        x, h0, c0 = seen
        made = infer_small(self.packed, x, h0 if c0 is None else (h0, c0), None, False)
        if made is None:
            return None
        y, last = made
        hn, cn = last if self.has_c else (last, None)
        return self.tensors(y, hn, cn, layer)

    def forward(self, tuple seen not None, bint layer):
        """(outputs, y (T, N, D*H), tape) of a small training forward; None if it is large."""
        x, h0, c0 = seen
        self.packed.plan(cnp.PyArray_DIM(x, 0), cnp.PyArray_DIM(x, 1), 0, False, FASTRNN_SAVE_ALL, 0, 0)
        if not self.packed.small():
            return None
        y, hn, cn, tape = forward_plain(self.packed, x, h0, c0)
        outputs = self.tensors(y, hn, cn, layer)
        return outputs, self.from_numpy(y) if layer else outputs[0], tape

    def backward(self, list tapes not None, x, y, h0, c0, tuple given not None, tuple wanted not None, bint layer):
        """Gradients of x, h0, c0 and each weight, None where `wanted` says no; None if the call is not ordinary.

        The tape is taken out of `tapes`, so of two threads only one gets it. x to c0 are the forward's, y (T, N, D*H);
        `given` are the gradients of its outputs, None where there is none.
        """
        cdef cnp.ndarray x_, y_, h_ = None, c_ = None, dy = None, dh = None, dc = None
        cdef cnp.ndarray dx = None, dh0 = None, dc0 = None, flat = None
        cdef Packed packed = self.packed
        cdef int first = 0 if layer else 1
        try:
            seen = self.see(x, h0, c0, layer)
            y_ = self.look(y, False)
            if seen is None or y_ is None:
                return None
            x_, h_, c_ = seen
            steps, batch = cnp.PyArray_DIM(x_, 0), cnp.PyArray_DIM(x_, 1)
            if not layer and given[0] is not None:
                dy = self.look_dense(given[0], False)
                if not shaped(dy, 3, steps, batch, packed.problem.D * packed.problem.H):
                    return None
            if given[first] is not None:
                dh = self.look_dense(given[first], layer)
                if not self.is_state(dh, batch):
                    return None
            if self.has_c and given[first + 1] is not None:
                dc = self.look_dense(given[first + 1], layer)
                if not self.is_state(dc, batch):
                    return None
        except RuntimeError:
            return None
        if not tapes or (dy is None and dh is None and dc is None):
            return None
        tape = tapes.pop()
        if wanted[0]:
            dx = new(packed, 3, steps, batch, packed.problem.I)
        if wanted[1]:
            dh0 = new(packed, 3, packed.h_rows, batch, packed.problem.H)
        if wanted[2]:
            dc0 = new(packed, 3, packed.h_rows, batch, packed.problem.H)
        if True in wanted[3:]:
            flat = empty((cnp.PyArray_SIZE(packed.weights),), x_.dtype)
        backward(
            packed, tape, x_, y_, h_, c_, dy, dh, dc, dx, dh0, dc0, flat, None, None, None, None, False, False
        )
        made = self.from_numpy
        grads = [None if d is None else made(d[0] if layer else d) for d in (dx, dh0, dc0)]
        if flat is None:
            return grads + [None] * (len(wanted) - 3)
        for want, view in zip(wanted[3:], views(self.shapes, flat, True).values()):
            grads.append(made(view) if want else None)
        return grads


def unchanged(params, list marks):
    """Whether each tensor's `data_ptr`, `_version`, `shape`, `dtype` and `stride` are those of its mark."""
    cdef tuple mark
    cdef Py_ssize_t i, count = len(marks)
    if len(params) != count:
        return False
    try:
        for i in range(count):
            tensor, mark = params[i], <tuple>marks[i]
            if tensor.data_ptr() != mark[0] or tensor._version != mark[1] or tensor.dtype is not mark[3]:
                return False
            if tensor.shape != mark[2] or tensor.stride() != mark[4]:
                return False
    except RuntimeError:  # made in inference mode, or without memory
        return False
    return True
