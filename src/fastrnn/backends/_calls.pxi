# Part of _core.pyx: calls on tensors.
#
# As in _small.pxi every function asks one question, "is this the ordinary call?", and answers None if it is not: the
# Python of `fastrnn.torch` then does all that there is to do. With all of it a training step of one row (LSTM, I=H=64) takes 150
# us where it took 195, an inference 24 where it took 33 (2-vCPU Zen 4).


cdef struct Mark:  # of a parameter, as in fastrnn.torch.cache
    Look look
    int64_t version


# Bytes of y that a tape has its own copy of, 1.5 us for all of them: as long as it takes to keep an alias of the output with its
# version, and to ask for both in backward.
cdef enum:
    COPIED = 64 << 10


cdef bint same_look(Look* a, Look* b) noexcept:
    cdef int i
    if a.data != b.data or a.bits != b.bits or a.ndim != b.ndim:
        return False
    for i in range(a.ndim):
        if a.shape[i] != b.shape[i] or a.strides[i] != b.strides[i]:
            return False
    return True


cdef bint is_dense(Look* look) noexcept:
    """Whether the numbers lie in C order without holes. An axis of length 1 may have any stride."""
    cdef int64_t step = 1
    cdef int i
    for i in range(look.ndim - 1, -1, -1):
        if look.shape[i] != 1 and look.strides[i] != step:
            return False
        step *= look.shape[i]
    return True


cdef class Calls:
    """Ordinary calls with these packed weights.

    Parameters
    ----------
    library : Library
        Whose tensors they are.
    packed : Packed
    params : sequence of tensor
        What was packed.
    versions : list of int
        Of each parameter.
    """

    cdef Library tensors  # those that it knows
    cdef Packed packed
    cdef tuple shapes  # of the weights
    cdef tuple state  # (N, a tensor as a state of so many rows is), of the last call without one
    cdef bint has_c
    cdef int bits     # of a number
    cdef Mark* marks
    cdef Py_ssize_t count

    def __cinit__(self, Library library not None, Packed packed not None, params, list versions not None):
        cdef Py_ssize_t i
        self.tensors, self.packed, self.shapes = library, packed, tuple(packed.spec.weight_shapes.values())
        self.has_c = packed.problem.cell == FASTRNN_LSTM
        self.bits = 32 if packed.type_num == cnp.NPY_FLOAT else 64
        self.marks = <Mark*>malloc(len(params) * sizeof(Mark))
        if self.marks == NULL:
            raise MemoryError
        for i in range(len(params)):
            if not library.look(params[i], &self.marks[i].look):
                raise TypeError("Calls: a parameter is no tensor to be looked at")
            self.marks[i].version = versions[i]
        self.count = len(params)

    def __dealloc__(self):
        free(self.marks)

    def unchanged(self, params, bint compare):
        """Whether each parameter still has its address, `_version`, shape, strides and dtype; with `compare` also its bits."""
        cdef Look look
        cdef Py_ssize_t i
        if len(params) != self.count:
            return False
        try:
            for i in range(self.count):
                tensor = params[i]
                if not self.tensors.look(tensor, &look) or not same_look(&look, &self.marks[i].look):
                    return False
                if <int64_t>tensor._version != self.marks[i].version:
                    return False
        except UNSEEN:  # also of a parameter made in inference mode, which has no version
            return False
        return self.same_bits() if compare else True

    cdef bint same_bits(self) noexcept:
        """Whether the parameters hold what was packed. Those that are not dense are packed at every call: they are rare."""
        cdef const char* kept = <const char*>cnp.PyArray_DATA(self.packed.weights)
        cdef Look* look
        cdef Py_ssize_t i
        cdef int64_t nbytes
        cdef int axis
        for i in range(self.count):
            look, nbytes = &self.marks[i].look, self.bits // 8
            for axis in range(look.ndim):
                nbytes *= look.shape[axis]
            if not is_dense(look) or memcmp(look.data, kept, <size_t>nbytes) != 0:
                return False
            kept += nbytes
        return True

    cdef cnp.ndarray seen(self, tensor, bint layer, bint copied):
        """The memory of a tensor as a dense 3-D array, with a leading axis of 1 if `layer`; None of another tensor.

        With `copied` it may have any strides; then it is a copy: a sum's gradient is one number with strides of 0.
        """
        cdef Look look
        cdef cnp.npy_intp[3] dims
        cdef cnp.npy_intp[3] steps
        cdef int i, axis = 1 if layer else 0
        if not self.tensors.look(tensor, &look) or look.bits != self.bits or look.ndim != 3 - axis or look.data == NULL:
            return None
        if <size_t>look.data % <size_t>(self.bits // 8) != 0:  # of bytes that were taken for numbers
            return None
        cdef bint dense = is_dense(&look)
        if not (dense or copied) or tensor.is_neg():
            return None
        dims[0], steps[0] = 1, 0
        for i in range(look.ndim):
            dims[axis + i], steps[axis + i] = look.shape[i], look.strides[i] * (self.bits // 8)
        if dense:
            return cnp.PyArray_SimpleNewFromData(3, dims, self.packed.type_num, look.data)
        return cnp.PyArray_GETCONTIGUOUS(
            cnp.PyArray_New(np.ndarray, 3, dims, self.packed.type_num, steps, look.data, 0, 0, None)
        )

    cdef bint is_state(self, cnp.ndarray array, int64_t batch) noexcept:
        return shaped(array, 3, self.packed.h_rows, batch, self.packed.problem.H)

    def see(self, x, h0, c0, str layout not None):
        """(x, h0, c0) as arrays of three axes, for as long as the tensors live; None if they are not ordinary.

        The layout of the tensors is "TNI", "NTI" (batch first) or "NI" (a cell). The array of x is (T, N, I), (N, T, I) or
        (1, N, I); those of h0 and c0 are (L*D, N, H).
        """
        cdef cnp.ndarray array, h = None, c = None
        cdef bint layer = layout == "NI"
        cdef int64_t batch
        if (c0 is not None) != (self.has_c and h0 is not None):
            return None
        try:
            array = self.seen(x, layer, False)
            if array is None or cnp.PyArray_SIZE(array) == 0 or cnp.PyArray_DIM(array, 2) != self.packed.problem.I:
                return None
            batch = cnp.PyArray_DIM(array, 0 if layout == "NTI" else 1)
            if h0 is not None:
                h = self.seen(h0, layer, False)
                if not self.is_state(h, batch):
                    return None
            if c0 is not None:
                c = self.seen(c0, layer, False)
                if not self.is_state(c, batch):
                    return None
        except UNSEEN:
            return None
        return array, h, c

    cdef tuple outputs(self, cnp.ndarray y, cnp.ndarray hn, cnp.ndarray cn, bint layer):
        """As tensors; of a cell y is none of them."""
        cdef Library library = self.tensors
        if layer:
            hn, cn = hn[0], None if cn is None else cn[0]
            return (library.tensor(hn),) if cn is None else (library.tensor(hn), library.tensor(cn))
        made, h = library.tensor(y), library.tensor(hn)
        return (made, h) if cn is None else (made, h, library.tensor(cn))

    def infer(self, tuple seen not None, str layout not None):
        """Outputs of a small inference: (y, h) or (y, h, c), of a cell (h,) or (h, c); None if it is large."""
        x, h0, c0 = seen
        cdef bint swapped = layout == "NTI"
        made = infer_small(self.packed, x, h0 if c0 is None else (h0, c0), None, swapped, False)
        if made is None:
            return None
        y, last = made
        hn, cn = last if self.has_c else (last, None)
        return self.outputs(cnp.PyArray_SwapAxes(y, 0, 1) if swapped else y, hn, cn, layout == "NI")

    cdef cnp.ndarray over(self, tensor, int64_t first, int64_t second, int64_t third):
        """The memory of a new tensor, whose own axes these may not be."""
        cdef Look look
        cdef cnp.npy_intp[3] dims
        self.tensors.look(tensor, &look)
        dims[0], dims[1], dims[2] = first, second, third
        return cnp.PyArray_SimpleNewFromData(3, dims, self.packed.type_num, look.data)

    cdef new_batch_first(self, like, int64_t steps, int64_t batch, int64_t features):
        """A tensor (N, T, features) on time-major memory, and no view, as `Call.new` of fastrnn.torch makes it."""
        return like.new_empty_strided((batch, steps, features), (features, batch * features, 1))

    def forward(self, tuple seen not None, x, h0, str layout not None):
        """(outputs, tape) of a training forward, None if y is large; x and h0 are the tensors that were seen.

        The outputs are the library's own, which may be resized. The tape holds a copy of y: what becomes of the output is
        nothing to backward, and nobody need be asked.
        """
        cdef Packed packed = self.packed
        cdef cnp.ndarray x_, h_, c_, y, hn, cn = None
        cdef int64_t H = packed.problem.H, rows = packed.h_rows, width = packed.problem.D * H
        x_, h_, c_ = seen
        cdef bint layer = layout == "NI", swapped = layout == "NTI"
        if swapped:
            x_ = cnp.PyArray_SwapAxes(x_, 0, 1)
        cdef int64_t steps = cnp.PyArray_DIM(x_, 0), batch = cnp.PyArray_DIM(x_, 1)
        if steps * batch * width > COPIED // (self.bits // 8):
            return None
        # Like another tensor 0.8 us, by its shape 1.3; among other work in between 1.6 and 5 (2-vCPU Zen 4).
        cdef tuple state = self.state
        if h0 is None and (state is None or state[0] != batch):
            self.state = state = batch, x.new_empty((rows, batch, H))
        made, made_y = self.tensors.empty_like, None
        like = made(state[1] if h0 is None else h0)
        cdef list outputs = [like]
        hn = self.over(like, rows, batch, H)
        if self.has_c:
            outputs.append(made(like))
            cn = self.over(outputs[1], rows, batch, H)
        if not layer:
            if swapped:
                made_y = self.new_batch_first(x, steps, batch, width)
            else:
                made_y = made(like) if steps == rows and width == H else x.new_empty((steps, batch, width))
            outputs.insert(0, made_y)
        y = new(packed, 3, steps, batch, width)
        tape = make_tape(packed, steps, batch)
        forward(packed, x_, y, h_, c_, hn, cn, None, None, None, None, tape)
        if not layer:
            memcpy(cnp.PyArray_DATA(self.over(made_y, steps, batch, width)), cnp.PyArray_DATA(y), cnp.PyArray_NBYTES(y))
        return tuple(outputs), (y, tape)

    def backward(
        self, list tapes not None, tuple saved not None, tuple given not None, tuple wanted not None, str layout not None
    ):
        """What `backward` of a node gives back, None if the call is not ordinary: gradients of x, h0, c0 and each weight.

        The tape is taken out of `tapes`, so of two threads only one gets it. `saved` begins with x, h0 and c0; `given` are
        the gradients of the outputs, None where there is none; `wanted`, as the result, begins with one that is no tensor.
        """
        cdef cnp.ndarray dy = None, dh = None, dc = None, dx = None, dh0 = None, dc0 = None, flat = None
        cdef Packed packed = self.packed
        cdef Library library = self.tensors
        cdef int64_t H = packed.problem.H, rows = packed.h_rows
        cdef bint layer = layout == "NI", swapped = layout == "NTI"
        cdef int first = 0 if layer else 1
        cdef cnp.ndarray x, h, c
        cdef int64_t steps, batch
        try:
            seen = self.see(saved[0], saved[1], saved[2], layout)
            if seen is None:
                return None
            x, h, c = seen
            if swapped:
                x = cnp.PyArray_SwapAxes(x, 0, 1)
            steps, batch = cnp.PyArray_DIM(x, 0), cnp.PyArray_DIM(x, 1)
            if not layer and given[0] is not None:
                dy = self.seen(given[0], False, True)
                if swapped and dy is not None:
                    dy = cnp.PyArray_SwapAxes(dy, 0, 1)
                if not shaped(dy, 3, steps, batch, packed.problem.D * H):
                    return None
            if given[first] is not None:
                dh = self.seen(given[first], layer, True)
                if not self.is_state(dh, batch):
                    return None
            if self.has_c and given[first + 1] is not None:
                dc = self.seen(given[first + 1], layer, True)
                if not self.is_state(dc, batch):
                    return None
        except UNSEEN:
            return None
        if not tapes or (dy is None and dh is None and dc is None):
            return None
        y, tape = tapes.pop()
        # Of PyTorch's own memory, which may be resized, as outputs are.
        cdef list grads = [None] * 4
        if wanted[1]:
            grads[1] = self.new_batch_first(saved[0], steps, batch, packed.problem.I) if swapped else library.empty_like(saved[0])
            dx = self.over(grads[1], steps, batch, packed.problem.I)
        if wanted[2]:
            grads[2] = library.empty_like(saved[1])
            dh0 = self.over(grads[2], rows, batch, H)
        if wanted[3]:
            grads[3] = library.empty_like(saved[2])
            dc0 = self.over(grads[3], rows, batch, H)
        if True in wanted[4:]:
            flat = empty((cnp.PyArray_SIZE(packed.weights),), x.dtype)
        backward(packed, tape, x, y, h, c, dy, dh, dc, dx, dh0, dc0, flat, None, None, None, None, False, False)
        if flat is None:
            grads += [None] * (len(wanted) - 4)
        else:
            self.cut(flat, wanted, grads)
        return tuple(grads)

    cdef cut(self, cnp.ndarray flat, tuple wanted, list grads):
        """Adds a tensor on its part of `flat` for each weight that is wanted, None for the others."""
        cdef cnp.npy_intp[2] dims
        cdef char* at = <char*>cnp.PyArray_DATA(flat)
        cdef tuple shape
        cdef int i, ndim, weight = 4
        cdef int64_t nbytes
        for shape in self.shapes:
            ndim, nbytes = <int>len(shape), self.bits // 8
            for i in range(ndim):
                dims[i] = shape[i]
                nbytes *= dims[i]
            grads.append(self.tensors.around(flat, at, ndim, dims, self.packed.type_num) if wanted[weight] else None)
            at += nbytes
            weight += 1
