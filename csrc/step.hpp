// fastrnn_step: one step of every row, its states in the caller's own arrays, with nothing left to decide.
//
// At T=1 the general way spends more on the plan, on where memory lies and on tables than a small layer's arithmetic takes: 320 of
// 384 ns (LSTM 1->16, Zen 4). All of that is the same at every step, so it is worked out once, into plain memory of the
// caller's, which holds no pointer into the caller's arrays. Kernels, order of arithmetic and bits are those of fastrnn_forward.
#pragma once

#include "fastrnn/fastrnn.h"
#include "plan.hpp"
#include "table.hpp"

namespace fastrnn {

using RowKernel = decltype(CellKernels::step_row);

// What a fastrnn_stepper holds.
struct StepPlan {
  uint64_t mark;  // of this library in this process: others' memory is refused
  fastrnn_problem p;
  void (*kernel)(ForwardArgs&);       // null: fastrnn_forward does it, which knows every option
  RowKernel row_kernel;               // null: no single rows of layers this large
  int64_t item;                       // bytes of an element, and so on
  int64_t packed[2];                  // of the first layer's weights, of each other's
  int64_t all_packed, workspace;      // of the caller's arrays
  int64_t x_bytes, y_bytes, h_bytes;  // one row of x and y, dense; all of h
  int64_t tables, c, y, scratch;  // offsets in the workspace; c: -1 where c is used in its place
  Layout layout[2];
};
static_assert(sizeof(StepPlan) <= sizeof(fastrnn_stepper));

fastrnn_status make_step(const Plan& plan, StepPlan& step) noexcept;
bool is_made(const StepPlan& step) noexcept;
void run_step(const StepPlan& step, const fastrnn_step_args& args) noexcept;  // kernel is not null
fastrnn_forward_args as_forward(const fastrnn_step_args& args) noexcept;      // otherwise

}  // namespace fastrnn
