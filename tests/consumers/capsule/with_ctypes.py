"""The functions of the core from ctypes: each is a capsule of fastrnn.backends._core, and no library has to be found.

cffi takes the same addresses: ``ffi.cast("int32_t (*)(void)", address("fastrnn_get_num_threads"))``.
"""

import ctypes

from fastrnn.backends import _core


def address(name: str) -> int:
    get_name, get_pointer = ctypes.pythonapi.PyCapsule_GetName, ctypes.pythonapi.PyCapsule_GetPointer
    get_name.restype, get_name.argtypes = ctypes.c_char_p, [ctypes.py_object]
    get_pointer.restype, get_pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    capsule = _core.__pyx_capi__[name]
    return get_pointer(capsule, get_name(capsule))


set_num_threads = ctypes.CFUNCTYPE(None, ctypes.c_int32)(address("fastrnn_set_num_threads"))
get_num_threads = ctypes.CFUNCTYPE(ctypes.c_int32)(address("fastrnn_get_num_threads"))
status_text = ctypes.CFUNCTYPE(ctypes.c_char_p, ctypes.c_int)(address("fastrnn_status_text"))
plan = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)(address("fastrnn_plan"))

set_num_threads(2)
print(get_num_threads(), "threads;", status_text(plan(None, None)).decode())
