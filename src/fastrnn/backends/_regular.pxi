# Part of _core.pyx: `Regularisers` (see _spec.py) as the C interface takes them.


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
