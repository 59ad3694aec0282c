// fastrnn_step: one step of every row, its states in the caller's own arrays, with nothing left to decide.
//
// At T=1 the general way spends more on the plan, on where memory lies and on tables than a small layer's arithmetic takes: 320 of
// 384 ns (LSTM 1->16, Zen 4). All of that is the same at every step, so it is worked out once, into plain memory of the
// caller's, which holds no pointer into the caller's arrays. Kernels, order of arithmetic and bits are those of fastrnn_forward.
#pragma once

#include "fastrnn/fastrnn.h"
#include "memory.hpp"
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

// Whether nothing is wrong with a step of one row; if anything may be, the general way (check_step) says what. Here, and straight
// on, since a step's preparations hide behind the arithmetic of the one before only as far as a processor looks ahead: 66 instead
// of 70 ns in a function of its own that also asks each range whether it wraps around, 63 without any check (LSTM 1->16, Zen 4).
inline bool is_clean(const StepPlan& step, const fastrnn_step_args& a) {
  const auto at = [](const void* p) { return reinterpret_cast<uintptr_t>(p); };
  struct Bytes {
    uintptr_t begin, end;
    bool meets(const Bytes& other) const { return begin < other.end && other.begin < end; }
  };
  const auto range = [&](const void* p, int64_t bytes) {
    return Bytes{at(p), at(p) + static_cast<uintptr_t>(bytes)};
  };
  if (step.p.N != 1 || a.packed == nullptr || a.workspace == nullptr || a.x == nullptr ||
      a.y == nullptr || a.h == nullptr || (step.p.cell == FASTRNN_LSTM && a.c == nullptr))
    return false;
  const uintptr_t lines = at(a.packed) | at(a.workspace);
  const uintptr_t items = at(a.x) | at(a.y) | at(a.h) | at(a.c);
  if ((lines & (line - 1)) != 0 || (items & static_cast<uintptr_t>(step.item - 1)) != 0)
    return false;
  // Below the middle of all addresses no array of a step's size wraps around.
  if (static_cast<intptr_t>(lines | items) < 0) return false;
  const Bytes packed = range(a.packed, step.all_packed), work = range(a.workspace, step.workspace);
  const Bytes x = range(a.x, step.x_bytes), y = range(a.y, step.y_bytes);
  const Bytes h = range(a.h, step.h_bytes), c = range(a.c, step.h_bytes);  // null: meets nothing
  if (work.meets(packed) || work.meets(x) || work.meets(y) || work.meets(h) || work.meets(c))
    return false;
  if (h.meets(packed) || h.meets(x) || h.meets(y) || h.meets(c)) return false;
  return !(c.meets(packed) || c.meets(x) || c.meets(y) || y.meets(packed) || y.meets(x));
}

}  // namespace fastrnn
