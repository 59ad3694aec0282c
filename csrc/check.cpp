#include "check.hpp"

#include "memory.hpp"
#include "step.hpp"

namespace fastrnn {
namespace {

// The arrays of one call. The first thing that is wrong with any is kept; after it, nothing is looked at.
class Arrays {
 public:
  explicit Arrays(int64_t item) noexcept : item_(item) {}

  void in(const void* p, int64_t bytes, int64_t alignment) noexcept {
    add(p, bytes, alignment, false);
  }
  void out(const void* p, int64_t bytes, int64_t alignment) noexcept {
    add(p, bytes, alignment, true);
  }

  // [T,N,width] with strides. Other arrays may lie between its rows: then its first row stands for it.
  void rows(const void* p, int64_t T, int64_t N, int64_t width, int64_t t, int64_t n,
            bool output) noexcept {
    if (p == nullptr || T == 0 || N == 0) return;
    const int64_t steps = T > 1 ? size(t) : 0, batch = N > 1 ? size(n) : 0;
    int64_t span_t = 0, span_n = 0, all = 0;
    if (steps < 0 || batch < 0 || __builtin_mul_overflow(steps, T - 1, &span_t) ||
        __builtin_mul_overflow(batch, N - 1, &span_n) ||
        __builtin_add_overflow(span_t, span_n, &all) || __builtin_add_overflow(all, width, &all) ||
        __builtin_mul_overflow(all, item_, &all)) {
      return fail(FASTRNN_TOO_LARGE);
    }
    // Rows of an output lie apart: the closer axis steps over a row, the other over all of that axis.
    const bool t_outer = N == 1 || (T > 1 && steps >= batch);
    const int64_t inner = t_outer ? (N > 1 ? batch : width) : (T > 1 ? steps : width);
    const int64_t below = (t_outer ? span_n : span_t) + width;
    const int64_t outer = t_outer ? (T > 1 ? steps : below) : (N > 1 ? batch : below);
    if (output && (inner < width || outer < below)) return fail(FASTRNN_OVERLAP);
    const bool ascending = (T == 1 || t >= 0) && (N == 1 || n >= 0);
    const bool dense = ascending && inner == width && outer == below;
    add(p, dense ? all : width * item_, item_, output);
  }

  // An output that may be an input exactly.
  void in_place(const void* input, const void* output, int64_t bytes, int64_t alignment) noexcept {
    out(output, bytes, alignment);
    if (input != output) in(input, bytes, alignment);
  }

  fastrnn_status status() noexcept {
    for (int i = 0; i < outputs_ && status_ == FASTRNN_OK; ++i) {
      const Range& a = output_[i];
      for (int j = i + 1; j < outputs_; ++j) meet(a, output_[j]);
      for (int j = 0; j < inputs_; ++j) meet(a, input_[j]);
    }
    return status_;
  }

 private:
  struct Range {
    uintptr_t begin, end;
  };
  static constexpr int most = 20;

  static int64_t size(int64_t stride) noexcept {
    return stride == INT64_MIN ? -1 : stride < 0 ? -stride : stride;
  }
  void fail(fastrnn_status why) noexcept {
    if (status_ == FASTRNN_OK) status_ = why;
  }
  void meet(const Range& a, const Range& b) noexcept {
    if (a.begin < b.end && b.begin < a.end) fail(FASTRNN_OVERLAP);
  }
  void add(const void* p, int64_t bytes, int64_t alignment, bool output) noexcept {
    if (p == nullptr) return;
    const auto begin = reinterpret_cast<uintptr_t>(p);
    if ((begin & static_cast<uintptr_t>(alignment - 1)) != 0) return fail(FASTRNN_MISALIGNED);
    if (bytes <= 0) return;
    const Range range{begin, begin + static_cast<uintptr_t>(bytes)};
    if (range.end < begin) return fail(FASTRNN_TOO_LARGE);
    (output ? output_[outputs_++] : input_[inputs_++]) = range;
  }

  int64_t item_;
  int inputs_ = 0, outputs_ = 0;
  fastrnn_status status_ = FASTRNN_OK;
  Range input_[most], output_[most];
};

int64_t state_bytes(const Plan& plan) {
  return plan.p.L * plan.p.D * plan.p.N * plan.p.H * plan.item;
}

// The tape, which may be absent.
fastrnn_status add_tape(const Plan& plan, const void* tape, Arrays& arrays) {
  if (tape == nullptr) return FASTRNN_OK;
  Arena arena(nullptr);
  tape_memory(plan, arena);
  arrays.out(tape, arena.used(), line);
  return arena.overflow() ? FASTRNN_TOO_LARGE : FASTRNN_OK;
}

// Bytes that zoneout's shares reach over; strides that overflow, or are negative, reach over everything.
template <class Args>
int64_t zoneout_bytes(const Plan& plan, const Args& a) {
  const int64_t counts[] = {plan.p.L * plan.p.D, plan.p.T, plan.p.N};
  const int64_t strides[] = {a.zoneout_k, a.zoneout_t, a.zoneout_n};
  int64_t elements = plan.p.H, bytes = 0;
  for (int i = 0; i < 3; ++i) {
    int64_t part = 0;
    if (counts[i] == 0) return 0;
    if (strides[i] < 0 || __builtin_mul_overflow(counts[i] - 1, strides[i], &part) ||
        __builtin_add_overflow(elements, part, &elements))
      return INT64_MAX;
  }
  return __builtin_mul_overflow(elements, plan.item, &bytes) ? INT64_MAX : bytes;
}

// What says which steps of which rows there are, and what regularises.
template <class Args>
void add_common(const Plan& plan, const Args& a, Arrays& arrays) {
  const int64_t cells = plan.rows();
  arrays.in(a.lengths, plan.p.N * 8, 8);
  arrays.in(a.offsets, (plan.p.N + 1) * 8, 8);
  arrays.in(a.batch_sizes, plan.p.T * 8, 8);
  arrays.in(a.places, plan.p.N * 8, 8);
  arrays.in(a.reset, cells, 1);
  arrays.in(a.mask, cells, 1);
  arrays.in(a.dropout, (plan.p.L - 1) * cells * plan.p.D * plan.p.H * plan.item, plan.item);
  arrays.in(a.recurrent_dropout, state_bytes(plan), plan.item);
  if (a.zoneout_h == nullptr && a.zoneout_c == nullptr) return;
  arrays.in(a.zoneout_h, zoneout_bytes(plan, a), plan.item);
  arrays.in(a.zoneout_c, zoneout_bytes(plan, a), plan.item);
}

}  // namespace

fastrnn_status check_pack(const Plan& plan, const void* weights, const void* packed,
                          const void* packed_backward) noexcept {
  Arrays arrays(plan.item);
  arrays.in(weights, all_weights(plan) * plan.item, plan.item);
  arrays.out(packed, packed_bytes(plan), line);
  arrays.out(packed_backward, packed_backward_bytes(plan), line);
  return arrays.status();
}

fastrnn_status check_forward(const Plan& plan, const fastrnn_forward_args& a,
                             const Arena& workspace) noexcept {
  const fastrnn_problem& p = plan.p;
  // Packed rows are [rows,..], whose second stride nobody looks at.
  const int64_t T = plan.packed() ? p.rows : p.T, N = plan.packed() ? 1 : p.N;
  const bool empty = T == 0 || N == 0;
  if (a.workspace == nullptr) return FASTRNN_NULL_POINTER;
  const bool unpacked = plan.unpacked_forward() && a.weights != nullptr;
  if (a.packed == nullptr && !unpacked) return FASTRNN_NULL_POINTER;
  if (!empty && (a.x == nullptr || a.y == nullptr)) return FASTRNN_NULL_POINTER;
  if (workspace.overflow()) return FASTRNN_TOO_LARGE;
  Arrays arrays(plan.item);
  arrays.in(a.packed, packed_bytes(plan), line);
  if (a.packed == nullptr) arrays.in(a.weights, all_weights(plan) * plan.item, plan.item);
  arrays.out(a.workspace, workspace.used(), line);
  if (add_tape(plan, a.tape, arrays) != FASTRNN_OK) return FASTRNN_TOO_LARGE;
  arrays.rows(a.x, T, N, p.I, a.x_t, a.x_n, false);
  arrays.rows(a.y, T, N, p.D * p.H, a.y_t, a.y_n, true);
  arrays.in_place(a.h0, a.hn, state_bytes(plan), plan.item);
  if (plan.has_c) arrays.in_place(a.c0, a.cn, state_bytes(plan), plan.item);
  add_common(plan, a, arrays);
  return arrays.status();
}

fastrnn_status check_backward(const Plan& plan, const fastrnn_backward_args& a,
                              const Arena& workspace) noexcept {
  const fastrnn_problem& p = plan.p;
  // Packed rows are [rows,..], whose second stride nobody looks at.
  const int64_t T = plan.packed() ? p.rows : p.T, N = plan.packed() ? 1 : p.N;
  const bool empty = T == 0 || N == 0;
  if (a.workspace == nullptr) return FASTRNN_NULL_POINTER;
  if (a.packed_backward == nullptr && a.weights == nullptr) return FASTRNN_NULL_POINTER;
  if (!empty && (a.x == nullptr || a.y == nullptr)) return FASTRNN_NULL_POINTER;
  if (!empty && a.tape == nullptr && plan.has_tape()) return FASTRNN_NULL_POINTER;
  if (plan.recompute && a.packed == nullptr) return FASTRNN_NULL_POINTER;
  if (plan.has_c && a.dc_all != nullptr && a.dh_all == nullptr) return FASTRNN_NULL_POINTER;
  if (workspace.overflow()) return FASTRNN_TOO_LARGE;
  Arrays arrays(plan.item);
  arrays.in(a.packed, packed_bytes(plan), line);
  arrays.in(a.packed_backward, packed_backward_bytes(plan), line);
  arrays.in(a.weights, all_weights(plan) * plan.item, plan.item);
  arrays.out(a.workspace, workspace.used(), line);
  if (add_tape(plan, a.tape, arrays) != FASTRNN_OK) return FASTRNN_TOO_LARGE;
  arrays.rows(a.x, T, N, p.I, a.x_t, a.x_n, false);
  arrays.rows(a.y, T, N, p.D * p.H, a.y_t, a.y_n, false);
  arrays.rows(a.dy, T, N, p.D * p.H, a.dy_t, a.dy_n, false);
  arrays.rows(a.dx, T, N, p.I, a.dx_t, a.dx_n, true);
  const int64_t states = state_bytes(plan);
  arrays.in(a.h0, states, plan.item);
  arrays.in(a.dhn, states, plan.item);
  arrays.out(a.dh0, states, plan.item);
  if (plan.has_c) {
    arrays.in(a.c0, states, plan.item);
    arrays.in(a.dcn, states, plan.item);
    arrays.out(a.dc0, states, plan.item);
  }
  arrays.out(a.dweights, all_weights(plan) * plan.item, plan.item);
  arrays.out(a.dh_all, plan.all_states_bytes(), plan.item);
  if (plan.has_c) arrays.out(a.dc_all, plan.all_states_bytes(), plan.item);
  add_common(plan, a, arrays);
  return arrays.status();
}

fastrnn_status check_step(const StepPlan& step, const fastrnn_step_args& a) noexcept {
  const fastrnn_problem& p = step.p;
  if (a.packed == nullptr || a.workspace == nullptr) return FASTRNN_NULL_POINTER;
  if (a.h == nullptr || (p.cell == FASTRNN_LSTM && a.c == nullptr)) return FASTRNN_NULL_POINTER;
  if (p.N > 0 && (a.x == nullptr || a.y == nullptr)) return FASTRNN_NULL_POINTER;
  Arrays arrays(step.item);
  arrays.in(a.packed, step.all_packed, line);
  arrays.out(a.workspace, step.workspace, line);
  arrays.rows(a.x, 1, p.N, p.I, 0, a.x_n, false);
  arrays.rows(a.y, 1, p.N, p.D * p.H, 0, a.y_n, true);
  arrays.out(a.h, step.h_bytes, step.item);
  if (p.cell == FASTRNN_LSTM) arrays.out(a.c, step.h_bytes, step.item);
  return arrays.status();
}

}  // namespace fastrnn
