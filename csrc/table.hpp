// The one contract between driver and kernels: what an instruction set's unit exports.
#pragma once

#include "types.hpp"

namespace fastrnn {

// One cell in one dtype; the activation is an argument. Kernels allocate nothing and call nothing that throws.
struct CellKernels {
  void (*pack)(const PackArgs&, int64_t share,
               int64_t shares);              // the share'th of equal shares of the panels
  void (*forward)(const ForwardArgs&);       // inference: nothing kept
  void (*forward_tape)(const ForwardArgs&);  // writes gates and c
  void (*backward)(const BackwardArgs&);     // the time loop: dgates, dh0, dc0
  void (*input_grad)(const InputGradArgs&, int64_t row_begin, int64_t row_end);
  void (*weight_grad)(const WeightGradArgs&, int64_t panel_begin, int64_t panel_end);
  void (*step)(
      ForwardArgs&);  // inference, one step whose rows are tabled, h in place; no projection
  // Likewise of one row, without tables: x [I], h and c [H] in place, y [H]; for layers of at most so many panels.
  void (*step_row)(const Layout&, Activation, const void* packed, const void* x, void* h, void* c,
                   void* y);
  int64_t step_row_panels;
};

// Work of a known amount, for measuring (kernels/probe.hpp).
struct ProbeKernels {
  void (*fma[dtype_count])(int64_t rounds, void* sink);  // sink: [vector_bytes] out
  void (*read)(const void* data, int64_t bytes, int64_t repeats, void* sink);
  double fma_operations[dtype_count];  // of one round
  int64_t read_block;                  // bytes; what is left over of `bytes` is not read
};

struct KernelTable {
  uint32_t vector_bytes;
  ProbeKernels probe;
  CellKernels cells[cell_count][dtype_count];
};

}  // namespace fastrnn
