/* fastrnn's functions for extension modules of Python that do not link against it: a table in a capsule of the installed package.
 *
 *   const fastrnn_api* api = fastrnn_import();   once, with the GIL; null: a Python exception is set
 *   api->forward(&problem, &args);               from any thread, with or without the GIL
 *
 * Include Python.h first. Types and meanings are those of fastrnn.h.
 */
#ifndef FASTRNN_CAPSULE_H
#define FASTRNN_CAPSULE_H

#include "fastrnn/fastrnn.h"

#define FASTRNN_CAPSULE "fastrnn.backends._core.api"

/* Grows at its end only. */
typedef struct fastrnn_api {
  uint32_t struct_size;
  uint32_t abi_version;
  fastrnn_status (*plan)(const fastrnn_problem*, fastrnn_sizes*);
  fastrnn_status (*pack)(const fastrnn_problem*, const void*, void*, void*);
  fastrnn_status (*forward)(const fastrnn_problem*, const fastrnn_forward_args*);
  fastrnn_status (*backward)(const fastrnn_problem*, const fastrnn_backward_args*);
  fastrnn_status (*make_stepper)(const fastrnn_problem*, fastrnn_stepper*);
  fastrnn_status (*step)(const fastrnn_stepper*, const fastrnn_step_args*);
  int32_t (*isa_count)(void);
  const char* (*isa_name)(int32_t);
  int32_t (*isa_runnable)(int32_t);
  fastrnn_status (*isa_active)(int32_t*);
  fastrnn_status (*set_isa)(const char*);
  int32_t (*get_num_threads)(void);
  void (*set_num_threads)(int32_t);
  const char* (*status_text)(fastrnn_status);
  const char* (*version)(void);
} fastrnn_api;

#ifdef Py_PYTHON_H
static inline const fastrnn_api* fastrnn_import(void) {
  const fastrnn_api* api;
  PyObject* module = PyImport_ImportModule(
      "fastrnn.backends._core"); /* a capsule's own import stops at `fastrnn` */
  if (module == NULL) return NULL;
  api = (const fastrnn_api*)PyCapsule_Import(FASTRNN_CAPSULE, 0);
  Py_DECREF(module);
  if (api == NULL) return NULL;
  if (api->abi_version != FASTRNN_ABI_VERSION || api->struct_size < sizeof(fastrnn_api)) {
    PyErr_Format(PyExc_ImportError,
                 "fastrnn %s has ABI %u with a table of %u bytes; this module was built for ABI %d "
                 "and %u bytes",
                 api->version(), (unsigned)api->abi_version, (unsigned)api->struct_size,
                 FASTRNN_ABI_VERSION, (unsigned)sizeof(fastrnn_api));
    return NULL;
  }
  return api;
}
#endif

#endif
