# Part of _core.pyx.
#
# The small path: a call whose arithmetic takes a microsecond or two. These functions ask one question, "is this the
# ordinary small call?" (plain arrays of the right dtype and shape, little work), and answer None if it is not: the general
# path then converts, copies, or says what is wrong. From the last allocation (panels, workspace) to the end of the
# arithmetic nothing runs Python code, so the GIL is held, and no other thread can use the workspace. A step may be large: it
# gives the GIL away, with a plan and a workspace of its own, and still makes no array.


cdef cnp.ndarray plain_state(Packed packed, state, int index, int ndim, int64_t batch):
    """h or c of what a caller gave as a state, if it is plain and of the right shape; or None."""
    cdef cnp.ndarray array = None
    if packed.problem.cell != FASTRNN_LSTM:
        array = plain(packed, state)
    elif type(state) is tuple and len(<tuple>state) == 2:
        array = plain(packed, (<tuple>state)[index])
    return array if shaped(array, ndim, packed.h_rows, batch, packed.problem.H) else None


cdef Buffer borrow_workspace(Packed packed, bint small):
    """Workspace of the planned call; a step that gives the GIL away takes the snapshot's own along, if it is there."""
    cdef int64_t nbytes = packed.sizes.forward_workspace
    cdef Buffer workspace
    if small:
        return room(nbytes, packed.sizes.work)
    workspace, packed.step_workspace = packed.step_workspace, None
    return Buffer(nbytes) if workspace is None or workspace.nbytes < nbytes else workspace


cdef infer_small(Packed packed, given_x, state, out, bint batch_first, bint y_too=True):
    """(y, (hn, cn)), (y, hn); None of a call that is not ordinary.

    Without `y_too` y is a new array (T, N, D*H) also of a batch-first x, and `out` is not looked at.
    """
    cdef fastrnn_forward_args a
    cdef cnp.ndarray x = plain(packed, given_x), h0 = None, c0 = None, y, hn, cn = None
    cdef int64_t I = packed.problem.I, H = packed.problem.H, rows = packed.h_rows, width = packed.problem.D * H
    cdef int ndim = 0 if x is None else cnp.PyArray_NDIM(x)
    if packed.zoned or (ndim != 3 and ndim != 2):
        return None
    # Of an x without a batch axis, N is 1 and the second axis is left out: of y and the states too.
    cdef int64_t first = cnp.PyArray_DIM(x, 0), second = cnp.PyArray_DIM(x, 1) if ndim == 3 else 1
    cdef bint swapped = batch_first and ndim == 3
    cdef int64_t steps = second if swapped else first, batch = first if swapped else second
    if steps == 0 or batch == 0 or cnp.PyArray_DIM(x, ndim - 1) != I:
        return None
    packed.plan(steps, batch, 0, False, FASTRNN_SAVE_ALL, 0, 0)
    if not packed.small():
        return None

    cdef bint has_c = packed.problem.cell == FASTRNN_LSTM
    if state is not None:
        h0 = plain_state(packed, state, 0, ndim, batch)
        if has_c:
            c0 = plain_state(packed, state, 1, ndim, batch)
        if h0 is None or (has_c and c0 is None):
            return None
    if not y_too:
        y = new(packed, ndim, steps, batch, width)
    elif out is None:
        y = new(packed, ndim, first, second, width)
    else:
        y = plain(packed, out)
        if not shaped(y, ndim, first, second, width) or not cnp.PyArray_ISWRITEABLE(y):
            return None
        if not apart(y, x) or not apart(y, h0) or not apart(y, c0):
            return None
    hn = new(packed, ndim, rows, batch, H)
    if has_c:
        cn = new(packed, ndim, rows, batch, H)

    memset(&a, 0, sizeof(a))
    a.x, a.x_t, a.x_n = cnp.PyArray_DATA(x), second * I, I
    a.y, a.y_t, a.y_n = cnp.PyArray_DATA(y), (second if y_too else batch) * width, width
    if swapped:
        a.x_t, a.x_n = a.x_n, a.x_t
        if y_too:
            a.y_t, a.y_n = a.y_n, a.y_t
    a.h0, a.c0, a.hn, a.cn = data(h0), data(c0), data(hn), data(cn)
    cdef fastrnn_problem problem = packed.problem  # before an allocation lets another thread plan
    cdef Buffer workspace = borrow_workspace(packed, True)
    a.struct_size = sizeof(a)
    a.packed = packed.panels()
    a.workspace = workspace.memory
    cdef fastrnn_status status = fastrnn_forward(&problem, &a)
    if status != FASTRNN_OK:
        check(status)
    return (y, (hn, cn) if has_c else hn)


cdef step_small(Packed packed, given_x, out, cnp.ndarray h, cnp.ndarray c):
    cdef fastrnn_step_args a
    cdef cnp.ndarray x = plain(packed, given_x), y
    cdef int64_t I = packed.problem.I, H = packed.problem.H, batch = cnp.PyArray_DIM(h, 1)
    cdef int ndim = 0 if x is None else cnp.PyArray_NDIM(x)
    if packed.zoned or (ndim != 2 and (ndim != 1 or batch != 1)) or not shaped(x, ndim, batch, 0, I):
        return None
    packed.plan(1, batch, 0, False, FASTRNN_SAVE_ALL, 0, 0)
    if out is None:
        y = new(packed, ndim, batch, 0, H)
    else:
        y = plain(packed, out)
        if not shaped(y, ndim, batch, 0, H) or not cnp.PyArray_ISWRITEABLE(y) or not apart(y, x):
            return None
    if not packed.has_stepper:
        check(fastrnn_make_stepper(&packed.problem, &packed.stepper))
        packed.has_stepper = True
    cdef bint small = packed.small()
    cdef fastrnn_stepper stepper = packed.stepper  # before an allocation lets another thread plan
    cdef Buffer workspace = borrow_workspace(packed, small)
    memset(&a, 0, sizeof(a))
    a.struct_size = sizeof(a)
    a.packed, a.workspace = packed.panels(), workspace.memory
    a.x, a.x_n = cnp.PyArray_DATA(x), I
    a.y, a.y_n = cnp.PyArray_DATA(y), H
    a.h, a.c = data(h), data(c)
    cdef fastrnn_status status
    if small:
        status = fastrnn_step(&stepper, &a)
    else:
        with nogil:
            status = fastrnn_step(&stepper, &a)
        packed.step_workspace = workspace
    if status != FASTRNN_OK:
        check(status)
    return y


cdef forward_plain(Packed packed, given_x, state):
    cdef cnp.ndarray x = plain(packed, given_x), h0 = None, c0 = None, y, hn, cn = None
    if packed.zoned or x is None or cnp.PyArray_NDIM(x) != 3:
        return None
    cdef int64_t H = packed.problem.H, rows = packed.h_rows
    cdef int64_t steps = cnp.PyArray_DIM(x, 0), batch = cnp.PyArray_DIM(x, 1)
    cdef bint has_c = packed.problem.cell == FASTRNN_LSTM
    if steps == 0 or batch == 0 or cnp.PyArray_DIM(x, 2) != packed.problem.I:
        return None
    if state is not None:
        h0 = plain_state(packed, state, 0, 3, batch)
        if has_c:
            c0 = plain_state(packed, state, 1, 3, batch)
        if h0 is None or (has_c and c0 is None):
            return None
        h0, c0 = h0.copy(), None if c0 is None else c0.copy()
    y = empty((steps, batch, packed.problem.D * H), x.dtype)
    hn = new(packed, 3, rows, batch, H)
    if has_c:
        cn = new(packed, 3, rows, batch, H)
    tape = make_tape(packed, steps, batch)
    forward(packed, x, y, h0, c0, hn, cn, None, None, None, None, tape)
    return y, hn, cn, h0, c0, tape


cdef bint fits_into(Packed packed, cnp.ndarray x, cnp.ndarray dy, dx, dh0, dc0, dweights):
    """Whether gradients of an earlier backward are plain arrays of the right shape, and none is x or dy."""
    cdef int64_t batch = cnp.PyArray_DIM(x, 1), H = packed.problem.H, rows = packed.h_rows
    cdef cnp.ndarray into
    if packed.problem.cell == FASTRNN_LSTM and dc0 is None:
        return False
    for part in (dx, dh0, dc0, dweights):
        if part is None:
            continue
        into = plain(packed, part)
        if into is None or not apart(into, x) or not apart(into, dy):
            return False
    if not shaped(<cnp.ndarray?>dx, 3, cnp.PyArray_DIM(x, 0), batch, packed.problem.I):
        return False
    return shaped(<cnp.ndarray?>dh0, 3, rows, batch, H) and (dc0 is None or shaped(<cnp.ndarray?>dc0, 3, rows, batch, H))


cdef backward_plain(Packed packed, Buffer tape, cnp.ndarray x, cnp.ndarray y, h0, c0, given_dy, tuple into, bint accumulate):
    cdef cnp.ndarray dy = None, dx, dh0, dc0 = None, dweights
    cdef int64_t steps = cnp.PyArray_DIM(x, 0), batch = cnp.PyArray_DIM(x, 1)
    cdef int64_t H = packed.problem.H, rows = packed.h_rows
    given(x)
    given(y)
    if given_dy is not None:
        dy = plain(packed, given_dy)
        if not shaped(dy, 3, steps, batch, packed.problem.D * H):
            return None
    if into is not None:
        dx, dh0, dc0, dweights = into
        if not fits_into(packed, x, dy, dx, dh0, dc0, dweights):
            return None
        backward(
            packed, tape, x, y, h0, c0, dy, None, None, dx, dh0, dc0, dweights, None, None, None, None, False, accumulate
        )
        return into
    dtype = x.dtype
    dx = empty((steps, batch, packed.problem.I), dtype)
    dh0 = new(packed, 3, rows, batch, H)
    if packed.problem.cell == FASTRNN_LSTM:
        dc0 = new(packed, 3, rows, batch, H)
    dweights = empty((cnp.PyArray_SIZE(packed.weights),), dtype)
    backward(
        packed, tape, x, y, h0, c0, dy, None, None, dx, dh0, dc0, dweights, None, None, None, None, False, False
    )
    return dx, dh0, dc0, dweights
