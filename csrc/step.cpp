#include "step.hpp"

#include <cstring>

#include "fpmode.hpp"
#include "memory.hpp"
#include "places.hpp"
#include "plan.hpp"

namespace fastrnn {
namespace {

// Another process has it elsewhere, as a rule: steppers are not for files.
const char anchor = 0;
uint64_t mark() { return reinterpret_cast<uintptr_t>(&anchor) ^ 0x7374657070657200u; }

// A single layer or a stack of them, forward, on one thread, with no option besides: what the short way does.
bool is_plain(const Plan& plan) {
  fastrnn_problem plain{};
  plain.struct_size = plan.p.struct_size;
  plain.cell = plan.p.cell;
  plain.activation = plan.p.activation;
  plain.dtype = plan.p.dtype;
  plain.T = plain.D = 1;
  plain.N = plan.p.N;
  plain.I = plan.p.I;
  plain.H = plan.p.H;
  plain.L = plan.p.L;
  plain.bias = plan.p.bias;
  plain.isa = plan.p.isa;
  plain.threads = plan.p.threads;
  return std::memcmp(&plain, &plan.p, sizeof plain) == 0 && plan.threads == 1 && plan.p.N > 0;
}

// Pieces of the general way's workspace of one step, which has more of them.
void lay_out(const Plan& plan, StepPlan& step) {
  Arena arena(nullptr);
  const auto take = [&](int64_t count, int64_t item) {
    const int64_t at = arena.used();
    arena.take(count, item);
    return at;
  };
  const int64_t N = plan.p.N, Hp = step.layout[0].hidden_padded;
  step.tables = take(5 * N + 2, 8);
  // The cell reads and writes whole vectors of c.
  step.c = plan.has_c && plan.p.H != Hp ? take(N * Hp, plan.item) : -1;
  step.y = plan.p.L > 1 ? take(N * plan.p.H, plan.item) : 0;
  step.scratch = plan.two_phase ? take(3 * N * Hp, plan.item) : 0;
}

// c [N,H] of the caller's <-> rows of whole vectors, whose ends stay zero.
void widen(const StepPlan& step, const char* from, char* to) {
  const int64_t row = step.p.H * step.item, padded = step.layout[0].hidden_padded * step.item;
  for (int64_t n = 0; n < step.p.N; ++n) {
    std::memcpy(to + n * padded, from + n * row, size_of(row));
    std::memset(to + n * padded + row, 0, size_of(padded - row));
  }
}
void narrow(const StepPlan& step, const char* from, char* to) {
  const int64_t row = step.p.H * step.item, padded = step.layout[0].hidden_padded * step.item;
  for (int64_t n = 0; n < step.p.N; ++n) std::memcpy(to + n * row, from + n * padded, size_of(row));
}

struct Rows {
  const char* base;
  int64_t stride;  // bytes
};

// What the kernel reads of a call with tables, but for these, and nothing else: clearing all 600 bytes took 20 of 126 ns (LSTM
// 1->16, Zen 4).
inline void begin_step(const StepPlan& step, int64_t layer, const fastrnn_step_args& a,
                       RowSource& source, ForwardArgs& f) {
  source.n_begin = 0;
  source.n_end = step.p.N;
  f.layout = step.layout[layer == 0 ? 0 : 1];
  f.activation = static_cast<Activation>(step.p.activation);
  f.rows = &source;
  f.packed = bytes(a.packed) + (layer == 0 ? 0 : step.packed[0] + (layer - 1) * step.packed[1]);
  f.unpacked = nullptr;
  f.depth = step.p.H;
  f.ahead = 0;
  f.projection = f.gates = nullptr;
  f.scratch = bytes(a.workspace) + step.scratch;
  f.team.size = 1;
  f.team.phase = 0;
}

// Layers on a single row, and small ones. So much of a step is waiting that the preparations of the next one fit into it, as long
// as they are few: a processor looks 320 instructions ahead (Zen 4), of which the kernel has 290. LSTM 1->16 takes 66 ns this
// way, 10 more with tables in between, and 63 by the kernel alone.
void step_row(const StepPlan& step, const fastrnn_step_args& a) {
  const int64_t row = step.p.H * step.item, last = step.p.L - 1;
  const char *x = bytes(a.x), *packed = bytes(a.packed);
  char *h = bytes(a.h), *c = bytes(a.c);
  const FlushSubnormals flush;  // waits for all arithmetic under way
  for (int64_t layer = 0; layer <= last; ++layer) {
    step.row_kernel(step.layout[layer != 0], static_cast<Activation>(step.p.activation), packed, x,
                    h, c, layer == last ? a.y : h);
    packed += step.packed[layer != 0];
    x = h;
    h += row;
    if (c != nullptr) c += row;
  }
}

// One layer: x -> y; h and c [N,H] in place.
void step_layer(const StepPlan& step, const fastrnn_step_args& a, int64_t layer, Rows x, char* y,
                int64_t y_stride) {
  const int64_t N = step.p.N, row = step.p.H * step.item;
  char* workspace = bytes(a.workspace);
  char* h = bytes(a.h) + layer * N * row;
  char* c = a.c == nullptr ? nullptr : bytes(a.c) + layer * N * row;
  char* wide = c != nullptr && step.c >= 0 ? workspace + step.c : c;
  const int64_t c_row = wide == c ? row : step.layout[0].hidden_padded * step.item;
  if (wide != c) widen(step, c, wide);
  RowSource source;
  ForwardArgs f;
  begin_step(step, layer, a, source, f);
  const auto table = reinterpret_cast<const void**>(workspace + step.tables);
  f.tables.x = table;
  f.tables.h = f.tables.u = table + N;
  f.tables.c_in = table + 2 * N;
  f.tables.y = const_cast<void**>(table + 3 * N);
  f.tables.c_out = const_cast<void**>(table + 4 * N);
  f.tables.first = reinterpret_cast<int64_t*>(table + 5 * N);
  f.tables.tape_row = f.tables.first;
  f.tables.first[0] = 0;
  f.tables.first[1] = N;
  for (int64_t n = 0; n < N; ++n) {
    f.tables.x[n] = x.base + n * x.stride;
    f.tables.h[n] = h + n * row;
    f.tables.y[n] = y + n * y_stride;
    f.tables.c_in[n] = f.tables.c_out[n] = c == nullptr ? nullptr : wide + n * c_row;
  }
  step.kernel(f);
  if (wide != c) narrow(step, wide, c);
}

}  // namespace

fastrnn_status make_step(const Plan& plan, StepPlan& step) noexcept {
  if (plan.p.T != 1) return FASTRNN_BAD_PROBLEM;
  fastrnn_sizes sizes{};
  const fastrnn_status status = plan_sizes(plan, sizes);
  if (status != FASTRNN_OK) return status;
  step = {};
  step.p = plan.p;
  step.item = plan.item;
  step.all_packed = sizes.packed;
  step.workspace = sizes.forward_workspace;
  step.x_bytes = plan.p.I * plan.item;
  step.y_bytes = plan.p.D * plan.p.H * plan.item;
  step.h_bytes = plan.p.L * plan.p.N * step.y_bytes;
  if (is_plain(plan)) {
    step.kernel = plan.kernels->step;
    for (int64_t kind = 0; kind < 2; ++kind) {
      step.layout[kind] = plan.layout(kind, 0);
      step.packed[kind] = plan.packed_elements(kind) * plan.item;
    }
    lay_out(plan, step);
    if (plan.p.N == 1 && step.layout[0].panels <= plan.kernels->step_row_panels)
      step.row_kernel = plan.kernels->step_row;
  }
  step.mark = mark();
  return FASTRNN_OK;
}

fastrnn_forward_args as_forward(const fastrnn_step_args& a) noexcept {
  fastrnn_forward_args f{};
  f.struct_size = sizeof f;
  f.packed = a.packed;
  f.x = a.x;
  f.x_n = a.x_n;
  f.y = a.y;
  f.y_n = a.y_n;
  f.h0 = f.hn = a.h;
  f.c0 = f.cn = a.c;
  f.workspace = a.workspace;
  return f;
}

bool is_made(const StepPlan& step) noexcept { return step.mark == mark(); }

void run_step(const StepPlan& step, const fastrnn_step_args& a) noexcept {
  if (step.row_kernel != nullptr) return step_row(step, a);
  const FlushSubnormals flush;
  const int64_t row = step.p.H * step.item, last = step.p.L - 1;
  Rows x{bytes(a.x), a.x_n * step.item};
  for (int64_t layer = 0; layer < last; ++layer) {
    step_layer(step, a, layer, x, bytes(a.workspace) + step.y, row);
    x = {bytes(a.h) + layer * step.p.N * row, row};
  }
  step_layer(step, a, last, x, bytes(a.y), a.y_n * step.item);
}

}  // namespace fastrnn
