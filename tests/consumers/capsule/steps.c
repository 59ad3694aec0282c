/* An extension module that uses the functions of the installed fastrnn and links against nothing of it. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "fastrnn/capsule.h"

static const fastrnn_api* api;

/* sizes(I, H) -> (weights, packed bytes) of an LSTM. */
static PyObject* sizes(PyObject* self, PyObject* args) {
  long long I, H;
  (void)self;
  if (!PyArg_ParseTuple(args, "LL", &I, &H)) return NULL;
  fastrnn_problem problem = {.struct_size = sizeof problem, .cell = FASTRNN_LSTM, .T = 1, .N = 1, .I = I, .H = H,
                             .L = 1, .D = 1, .bias = 1, .isa = -1};
  fastrnn_sizes found = {.struct_size = sizeof found};
  const fastrnn_status status = api->plan(&problem, &found);
  if (status != FASTRNN_OK) return PyErr_Format(PyExc_ValueError, "%s", api->status_text(status));
  return Py_BuildValue("LL", (long long)found.weights, (long long)found.packed);
}

static PyMethodDef methods[] = {{"sizes", sizes, METH_VARARGS, "weights and packed bytes of an LSTM"}, {NULL, NULL, 0, NULL}};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "steps", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit_steps(void) {
  api = fastrnn_import();
  return api == NULL ? NULL : PyModule_Create(&module);
}
