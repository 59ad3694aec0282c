# Part of _core.pyx: packed rows, and `Regularisers` (see _spec.py), as the C interface takes them.


ctypedef fused args_t:
    fastrnn_forward_args
    fastrnn_backward_args


cdef struct Extent:
    int64_t steps
    int64_t batch
    int64_t rows  # packed, else 0


cdef Extent extent(x, packing):
    cdef Extent e
    if packing is None:
        e.steps, e.batch, e.rows = cnp.PyArray_DIM(x, 0), cnp.PyArray_DIM(x, 1), 0
    else:  # without any row T is 0, and nothing is packed
        e.steps, e.batch, e.rows = packing.steps, packing.batch, cnp.PyArray_DIM(x, 0)
    return e


cdef set_rows(args_t* a, lengths, packing):
    if packing is None or packing.steps == 0:
        a.lengths = <const int64_t*>data(lengths)
    else:
        a.offsets = <const int64_t*>data(packing.offsets)
        a.batch_sizes = <const int64_t*>data(packing.batch_sizes)
        a.places = <const int64_t*>data(packing.places)


cdef uint32_t regularisers_of(regular):
    """What a call's `Regularisers`, or None, need memory for."""
    cdef uint32_t bits = 0
    if regular is None:
        return 0
    if regular.mask is not None:
        bits |= FASTRNN_RECURRENT_DROPOUT
    if regular.zone_h is not None or regular.zone_c is not None:
        bits |= FASTRNN_ZONEOUT
    return bits


cdef regularise(args_t* a, regular):
    a.recurrent_dropout = data(regular.mask)
    a.zoneout_h, a.zoneout_c = data(regular.zone_h), data(regular.zone_c)
    any_zone = regular.zone_c if regular.zone_h is None else regular.zone_h
    a.zoneout_k, a.zoneout_t, a.zoneout_n = stride(any_zone, 0), stride(any_zone, 1), stride(any_zone, 2)
