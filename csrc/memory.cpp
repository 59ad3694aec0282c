#include "memory.hpp"

#include "rows.hpp"

namespace fastrnn {
namespace {

int64_t row_table_bytes_aligned(const Plan& plan, int64_t rows, int64_t steps) {
  return round_up(row_tables_bytes(rows, steps, true, plan.regular()), line);
}

}  // namespace

void* Arena::take(int64_t count, int64_t item) noexcept {
  int64_t bytes = 0, end = 0;
  if (__builtin_mul_overflow(count, item, &bytes) ||
      __builtin_add_overflow(bytes, line - 1, &bytes) ||
      __builtin_add_overflow(used_, bytes / line * line, &end)) {
    overflow_ = true;
    return nullptr;
  }
  // In integers: the base may be any number of a caller's that has not been checked yet.
  void* piece =
      base_ == 0 ? nullptr : reinterpret_cast<void*>(base_ + static_cast<uintptr_t>(used_));
  used_ = end;
  return piece;
}

DirectionTape TapeMemory::at(const Plan& plan, int64_t layer, int64_t direction) const noexcept {
  const int64_t index = layer * plan.p.D + direction, rows = plan.rows();
  const int64_t Hp = round_up(plan.p.H, plan.lanes);
  DirectionTape out{};
  if (plan.saves_gates()) out.gates = gates + round_up(rows * 4 * Hp * plan.item, line) * index;
  if (plan.has_c) out.c = c + round_up(plan.c_rows() * Hp * plan.item, line) * index;
  return out;
}

void* TapeMemory::y(const Plan& plan, int64_t layer) const noexcept {
  return ys + layer * round_up(plan.rows() * plan.p.D * plan.p.H * plan.item, line);
}

namespace {

// count pieces of [rows][width] elements each, every one on a line of its own; null where count is 0.
void* take_pieces(Arena& arena, int64_t count, int64_t rows, int64_t width, int64_t item) {
  if (count == 0) return nullptr;
  int64_t elements = 0, bytes = 0;
  if (__builtin_mul_overflow(rows, width, &elements) ||
      __builtin_mul_overflow(elements, item, &bytes) ||
      __builtin_add_overflow(bytes, line - 1, &bytes)) {
    return arena.take(INT64_MAX, INT64_MAX);  // sets overflow
  }
  return arena.take(count, bytes / line * line);
}

void take_sequence(const Plan& plan, Arena& arena, SequenceMemory& out) {
  const auto take = [&](int64_t count) { return static_cast<int64_t*>(arena.take(count, 8)); };
  out.order = take(plan.p.N);
  out.lengths = take(plan.packed() ? plan.p.N : 0);
  out.step_of = take(plan.packed() ? plan.p.T : 0);
}

const void** take_pointers(Arena& arena, int64_t count) {
  return static_cast<const void**>(arena.take(count, 8));
}
void take_states(const Plan& plan, Arena& arena, int64_t segments, DirectionForward& out) {
  const int64_t Hp = round_up(plan.p.H, plan.lanes), N = plan.p.N;
  out.h_of = take_pointers(arena, segments * N);
  out.c_of = plan.has_c ? take_pointers(arena, segments * N) : nullptr;
  out.c = plan.has_c ? take_pieces(arena, 1, N, Hp, plan.item) : nullptr;
}

void take_loop(const Plan& plan, Arena& arena, LoopMemory& out) {
  const int64_t Hp = round_up(plan.p.H, plan.lanes);
  for (int64_t layer = 0; layer < (plan.p.L > 1 ? 2 : 1);
       ++layer) {  // the first layer's needs and the others'
    const int64_t steps = plan.chunk_steps(layer);
    const int64_t rows = plan.chunk_rows(layer);
    const int64_t tables = row_table_bytes_aligned(plan, rows, steps);
    if (tables > out.table_bytes) out.table_bytes = tables;
    if (!plan.projects(layer)) continue;
    const int64_t panel_columns =
        plan.w_gates * (plan.interleaved ? Hp : round_up(plan.p.H, 4 * plan.lanes));
    const int64_t bytes = round_up(rows * panel_columns * plan.item, line);
    if (bytes > out.projection_bytes) out.projection_bytes = bytes;
  }
  out.scratch_bytes = plan.two_phase ? round_up(3 * plan.p.N * Hp * plan.item, line) : 0;
  out.state_bytes = round_up(plan.p.N * Hp * plan.item, line);
  for (int64_t d = 0; d < plan.p.D; ++d) {
    out.tables[d] = arena.take(plan.slices, out.table_bytes);
    out.projection[d] = arena.take(plan.slices, out.projection_bytes);
    out.scratch[d] = arena.take(plan.slices, out.scratch_bytes);
    out.masked[d] = arena.take(plan.masked ? plan.slices : 0, out.state_bytes);
    out.c_new[d] = arena.take(plan.zoned && plan.has_c ? plan.slices : 0, out.state_bytes);
  }
}

LayerMemory take_layer(const Plan& plan, Arena& arena) {
  LayerMemory out{};
  for (int64_t d = 0; d < plan.p.D; ++d) take_states(plan, arena, 1, out.direction[d]);
  take_loop(plan, arena, out.loop);
  return out;
}

void take_recompute(const Plan& plan, Arena& arena, RecomputeMemory& out) {
  if (!plan.recompute) return;
  const int64_t N = plan.p.N, rows = plan.segment_rows(), Hp = round_up(plan.p.H, plan.lanes);
  take_loop(plan, arena, out.loop);
  for (int64_t d = 0; d < plan.p.D; ++d) {
    out.h_of[d] = take_pointers(arena, N);
    out.c_of[d] = plan.has_c ? take_pointers(arena, N) : nullptr;
    out.gates[d] = take_pieces(arena, 1, rows, 4 * Hp, plan.item);
    out.c[d] = take_pieces(arena, plan.has_c ? 1 : 0, rows, Hp, plan.item);
    out.spare[d] = take_pieces(arena, 1, N, Hp, plan.item);
  }
}

}  // namespace

TapeMemory tape_memory(const Plan& plan, Arena& arena) noexcept {
  const int64_t LD = plan.p.L * plan.p.D, rows = plan.rows(), Hp = round_up(plan.p.H, plan.lanes);
  TapeMemory out{};
  out.gates =
      static_cast<char*>(take_pieces(arena, plan.saves_gates() ? LD : 0, rows, 4 * Hp, plan.item));
  out.c = static_cast<char*>(take_pieces(arena, plan.has_c ? LD : 0, plan.c_rows(), Hp, plan.item));
  out.ys =
      static_cast<char*>(take_pieces(arena, plan.p.L - 1, rows, plan.p.D * plan.p.H, plan.item));
  return out;
}

LayerMemory ForwardMemory::layer(const Plan& plan, int64_t layer) const noexcept {
  Arena arena(layers + (plan.wavefront ? layer * layer_bytes : 0));
  return take_layer(plan, arena);
}

ForwardMemory forward_memory(const Plan& plan, Arena& arena) noexcept {
  const int64_t D = plan.p.D, L = plan.p.L, rows = plan.rows(), Hp = round_up(plan.p.H, plan.lanes);
  ForwardMemory out{};
  take_sequence(plan, arena, out.sequence);
  out.zero_bytes = Hp * plan.item;
  out.zero = arena.take(Hp, plan.item);
  Arena one(nullptr);
  take_layer(plan, one);
  out.layer_bytes = one.used();
  out.layers = static_cast<char*>(arena.take(plan.wavefront ? L : 1, out.layer_bytes));
  if (plan.wavefront) {
    out.wave = arena.take(L, line);
    out.calls = static_cast<ForwardCall*>(arena.take(L, sizeof(ForwardCall)));
  }
  out.inner = plan.wavefront || L < 3 ? L - 1 : 2;
  out.ys = static_cast<char*>(take_pieces(arena, out.inner, rows, D * plan.p.H, plan.item));
  out.y_bytes = round_up(rows * D * plan.p.H * plan.item, line);
  out.dropped = take_pieces(arena, L > 1 ? 1 : 0, rows, D * plan.p.H, plan.item);
  const int64_t panels = plan.unpacked_forward() ? D : 0;
  out.panel_bytes = round_up(plan.widest_panel() * plan.item, line);
  out.panels = static_cast<char*>(arena.take(panels, out.panel_bytes));
  return out;
}

BackwardMemory backward_memory(const Plan& plan, Arena& arena) noexcept {
  const int64_t D = plan.p.D, L = plan.p.L, N = plan.p.N, rows = plan.rows(),
                segment_rows = plan.segment_rows(), Hp = round_up(plan.p.H, plan.lanes);
  BackwardMemory out{};
  take_sequence(plan, arena, out.sequence);
  out.zero_bytes = Hp * plan.item;
  out.zero = arena.take(Hp, plan.item);
  const int64_t widest = L > 1 && plan.layer_input(1) > plan.p.I ? plan.layer_input(1) : plan.p.I;
  const int64_t unit_panel = plan.interleaved ? plan.lanes : 4 * plan.lanes;
  const int64_t sums =
      round_up(plan.p.H, unit_panel) * (widest * plan.w_gates + plan.p.H * plan.u_gates + 4);
  for (int64_t d = 0; d < D; ++d) {
    take_states(plan, arena, plan.segments, out.direction[d]);
    out.tables[d] = arena.take(1, row_table_bytes_aligned(plan, segment_rows, plan.segment));
    const int64_t width = plan.keeps_gates ? 4 * Hp : Hp;
    const bool own = !plan.keeps_gates || (plan.saves_gates() && plan.p.retain != 0);
    out.dgates[d] = take_pieces(arena, own ? 1 : 0, segment_rows, width, plan.item);
    out.dh[d] = take_pieces(arena, 1, N, Hp, plan.item);
    out.dc[d] = take_pieces(arena, plan.has_c ? 1 : 0, N, Hp, plan.item);
    out.rh[d] = take_pieces(arena, plan.two_phase ? 1 : 0, segment_rows, Hp, plan.item);
    out.drh[d] = take_pieces(arena, plan.two_phase ? 1 : 0, N, Hp, plan.item);
    out.masked[d] = take_pieces(arena, plan.masked ? 1 : 0, segment_rows, Hp, plan.item);
    out.du[d] = take_pieces(arena, plan.masked ? 1 : 0, N, Hp, plan.item);
    out.panels[d] = arena.take(sums, plan.item);
    const bool wide = (widest > plan.p.H ? widest : plan.p.H) * plan.item > outer_whole_bytes;
    out.copies[d] =
        arena.take(wide ? plan.shares() : 0, round_up(outer_part_rows * outer_part_bytes, line));
  }
  take_recompute(plan, arena, out.again);
  for (int64_t i = 0; i < (L > 2 ? 2 : L - 1); ++i)
    out.dys[i] = take_pieces(arena, 1, rows, D * plan.p.H, plan.item);
  out.dropped = take_pieces(arena, L > 1 ? 1 : 0, rows, D * plan.p.H, plan.item);
  return out;
}

namespace {

template <class F>
int64_t total(const Plan& plan, F per_direction) {
  const int64_t L = plan.p.L, D = plan.p.D;
  return plan.offset(L - 1, D - 1, per_direction) + per_direction(L - 1);
}

}  // namespace

int64_t all_weights(const Plan& plan) noexcept {
  return total(plan, [&](int64_t l) { return plan.weight_elements(l); });
}
int64_t packed_bytes(const Plan& plan) noexcept {
  return plan.item * total(plan, [&](int64_t l) { return plan.packed_elements(l); });
}
int64_t packed_backward_bytes(const Plan& plan) noexcept {
  return plan.item * total(plan, [&](int64_t l) {
           return plan.packed_backward_hh(l) + plan.packed_backward_ih(l);
         });
}

fastrnn_status plan_sizes(const Plan& plan, fastrnn_sizes& sizes) noexcept {
  sizes.threads = static_cast<uint32_t>(plan.threads);
  sizes.weights = all_weights(plan);
  sizes.packed = packed_bytes(plan);
  sizes.packed_backward = packed_backward_bytes(plan);
  Arena tape(nullptr), forward(nullptr), backward(nullptr);
  tape_memory(plan, tape);
  forward_memory(plan, forward);
  backward_memory(plan, backward);
  if (tape.overflow() || forward.overflow() || backward.overflow()) return FASTRNN_TOO_LARGE;
  sizes.tape = tape.used();
  sizes.forward_workspace = forward.used();
  sizes.backward_workspace = backward.used();
  sizes.work = plan.work();
  sizes.unpacked_backward = plan.unpacked_backward() ? 1 : 0;
  sizes.unpacked_forward = plan.unpacked_forward() ? 1 : 0;
  return FASTRNN_OK;
}

}  // namespace fastrnn
