#include "plan.hpp"

#include <cmath>

#include "cpu.hpp"
#include "rows.hpp"
#include "cores.hpp"

namespace fastrnn {
namespace {

constexpr int64_t line = 64;

struct CellFacts {
  int64_t gates, columns, w_gates, u_gates;
  bool interleaved, has_c, keeps_gates, two_phase;
};
constexpr CellFacts facts[cell_count] = {
    {1, 1, 1, 1, false, false, false, false},  // rnn
    {4, 4, 4, 4, true, true, true, false},     // lstm
    {3, 4, 3, 3, true, false, true, false},    // gru
    {3, 3, 3, 3, true, false, true, true},     // gru_reset_before
};

int64_t round_up(int64_t a, int64_t b) { return (a + b - 1) / b * b; }
int64_t clamp(int64_t a, int64_t low, int64_t high) { return a < low ? low : a > high ? high : a; }

int64_t row_table_bytes_aligned(int64_t rows, int64_t steps, bool held) {
  return round_up(row_tables_bytes(rows, steps, held), line);
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
  void* piece = base_ == nullptr ? nullptr : base_ + used_;
  used_ = end;
  return piece;
}

Layout Plan::layout(int64_t layer, int64_t rows) const noexcept {
  Layout out{};
  out.I = layer_input(layer);
  out.H = p.H;
  out.lanes = lanes;
  out.unit_panel = interleaved ? lanes : 4 * lanes;
  out.panels = (p.H + out.unit_panel - 1) / out.unit_panel;
  out.hidden_padded = round_up(p.H, lanes);
  out.input_padded = round_up(out.I, lanes);
  const CellFacts& cell = facts[p.cell];
  out.panel_size = out.unit_panel * (columns + out.I * cell.w_gates + p.H * cell.u_gates);
  out.rows = rows;
  return out;
}

int64_t Plan::packed_elements(int64_t layer) const noexcept {
  const CellFacts& cell = facts[p.cell];
  return round_up(p.H, lanes) * (columns + layer_input(layer) * cell.w_gates + p.H * cell.u_gates);
}
int64_t Plan::packed_backward_hh(int64_t) const noexcept {
  return facts[p.cell].u_gates * p.H * round_up(p.H, lanes);
}
int64_t Plan::packed_backward_ih(int64_t layer) const noexcept {
  return facts[p.cell].w_gates * p.H * round_up(layer_input(layer), lanes);
}
int64_t Plan::weight_elements(int64_t layer) const noexcept {
  return gates * p.H * (layer_input(layer) + p.H + (p.bias != 0 ? 2 : 0));
}

// x enters the step's own product where that costs nothing: few inputs or one step (no second pass over xg), or enough rows to hide the
// second stream of weights, all of which stay in L2. Otherwise W would be streamed at every step: at H=I=1024, N=1 that is
// 10 % of the FMA peak instead of 30 %.
bool Plan::projects(int64_t layer) const noexcept {
  const int64_t I = layer_input(layer), rows = (p.N + slices - 1) / slices;
  if (I <= 16 || p.T == 1) return false;
  const int64_t l2 = int64_t{1} << 20;
  return rows < 6 || packed_elements(layer) * item > l2;
}

// Projected: xg of a chunk within 256 KB of L2, or within an eighth of U, beside whose stream it costs nothing, since every
// chunk streams W once more; at most 256 steps, and 24 rows if T has them, four row blocks for each panel.
// Otherwise only the row tables depend on it: 256 rows of them are 24 KB.
int64_t Plan::chunk_steps(int64_t layer) const noexcept {
  const int64_t rows = clamp((p.N + slices - 1) / slices, 1, p.N > 0 ? p.N : 1);
  int64_t steps = clamp(256 / rows, 1, 256);
  if (projects(layer)) {
    const int64_t step_bytes = rows * facts[p.cell].w_gates * round_up(p.H, lanes) * item;
    const int64_t l2_share = int64_t{256} << 10, u_share = gates * p.H * p.H * item / 8;
    steps = clamp((l2_share > u_share ? l2_share : u_share) / step_bytes, 1, 256);
    const int64_t enough = (24 + rows - 1) / rows;
    if (steps < enough) steps = enough;
  }
  if (wavefront && steps > wave_steps) steps = wave_steps;
  return clamp(steps, 1, p.T > 0 ? p.T : 1);
}

DirectionTape TapeMemory::at(const Plan& plan, int64_t layer, int64_t direction) const noexcept {
  const int64_t index = layer * plan.p.D + direction, rows = plan.p.T * plan.p.N;
  const int64_t Hp = round_up(plan.p.H, plan.lanes);
  DirectionTape out{};
  if (plan.saves_gates()) out.gates = gates + round_up(rows * 4 * Hp * plan.item, line) * index;
  if (plan.has_c) out.c = c + round_up(plan.c_rows() * Hp * plan.item, line) * index;
  return out;
}

bool Plan::saves_gates() const noexcept { return keeps_gates && !recompute; }
int64_t Plan::c_rows() const noexcept { return (recompute ? segments : p.T) * p.N; }
bool Plan::has_tape() const noexcept { return saves_gates() || has_c || p.L > 1; }

void* TapeMemory::y(const Plan& plan, int64_t layer) const noexcept {
  return ys + layer * round_up(plan.p.T * plan.p.N * plan.p.D * plan.p.H * plan.item, line);
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
  const int64_t slice = (plan.p.N + plan.slices - 1) / plan.slices,
                Hp = round_up(plan.p.H, plan.lanes);
  for (int64_t layer = 0; layer < (plan.p.L > 1 ? 2 : 1);
       ++layer) {  // the first layer's needs and the others'
    const int64_t steps = plan.chunk_steps(layer);
    const int64_t tables = row_table_bytes_aligned(steps * slice, steps, true);
    if (tables > out.table_bytes) out.table_bytes = tables;
    if (!plan.projects(layer)) continue;
    const int64_t panel_columns =
        facts[plan.p.cell].w_gates * (plan.interleaved ? Hp : round_up(plan.p.H, 4 * plan.lanes));
    const int64_t bytes = round_up(steps * slice * panel_columns * plan.item, line);
    if (bytes > out.projection_bytes) out.projection_bytes = bytes;
  }
  out.scratch_bytes = plan.two_phase ? round_up(3 * slice * Hp * plan.item, line) : 0;
  for (int64_t d = 0; d < plan.p.D; ++d) {
    out.tables[d] = arena.take(plan.slices, out.table_bytes);
    out.projection[d] = arena.take(plan.slices, out.projection_bytes);
    out.scratch[d] = arena.take(plan.slices, out.scratch_bytes);
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
  const int64_t N = plan.p.N, rows = plan.segment * N, Hp = round_up(plan.p.H, plan.lanes);
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
  const int64_t LD = plan.p.L * plan.p.D, rows = plan.p.T * plan.p.N,
                Hp = round_up(plan.p.H, plan.lanes);
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
  const int64_t D = plan.p.D, L = plan.p.L, rows = plan.p.T * plan.p.N,
                Hp = round_up(plan.p.H, plan.lanes);
  ForwardMemory out{};
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
  return out;
}

BackwardMemory backward_memory(const Plan& plan, Arena& arena) noexcept {
  const int64_t D = plan.p.D, L = plan.p.L, N = plan.p.N, rows = plan.p.T * N,
                segment_rows = plan.segment * N, Hp = round_up(plan.p.H, plan.lanes);
  const CellFacts& cell = facts[plan.p.cell];
  BackwardMemory out{};
  out.zero_bytes = Hp * plan.item;
  out.zero = arena.take(Hp, plan.item);
  const int64_t widest = L > 1 && plan.layer_input(1) > plan.p.I ? plan.layer_input(1) : plan.p.I;
  const int64_t unit_panel = plan.interleaved ? plan.lanes : 4 * plan.lanes;
  const int64_t sums =
      round_up(plan.p.H, unit_panel) * (widest * cell.w_gates + plan.p.H * cell.u_gates + 4);
  for (int64_t d = 0; d < D; ++d) {
    take_states(plan, arena, plan.segments, out.direction[d]);
    out.tables[d] = arena.take(1, row_table_bytes_aligned(segment_rows, plan.segment, true));
    const int64_t width = plan.keeps_gates ? 4 * Hp : Hp;
    const bool own = !plan.keeps_gates || (plan.saves_gates() && plan.p.retain != 0);
    out.dgates[d] = take_pieces(arena, own ? 1 : 0, segment_rows, width, plan.item);
    out.dh[d] = take_pieces(arena, 1, N, Hp, plan.item);
    out.dc[d] = take_pieces(arena, plan.has_c ? 1 : 0, N, Hp, plan.item);
    out.rh[d] = take_pieces(arena, plan.two_phase ? 1 : 0, segment_rows, Hp, plan.item);
    out.drh[d] = take_pieces(arena, plan.two_phase ? 1 : 0, N, Hp, plan.item);
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

// A few for each thread, so that they can be claimed.
int64_t Plan::shares() const noexcept { return threads == 1 ? 1 : 4 * int64_t{threads}; }

double Plan::work() const noexcept {
  const double first = static_cast<double>(p.I + p.H), others = static_cast<double>(p.L - 1);
  const double widths = first + others * static_cast<double>((p.D + 1) * p.H);
  return 2.0 * widths * static_cast<double>(gates * p.H * p.D) * static_cast<double>(p.T) *
         static_cast<double>(p.N);
}

// Constants, from a 2-core Zen 4 at 3.7 GHz (118 GFLOP/s a core in float32):
// - 2.5e6 operations take 25 to 50 microseconds alone; waking a sleeping worker takes 5 to 10, so less is not shared.
// - A slice keeps at least 4 rows: a tile of 4 rows reaches 95 % of the FMA peak, one of 2 rows 72 %.
// - Up to 4 slices a thread, of at least 12 rows (two full tiles): claimed one by one, a slice that a busy neighbour holds up
//   costs a quarter. More would stream the weights more often: slices of 8 rows took 74 ms instead of 65 at N=64, T=50,
//   I=H=512, and 143 instead of 118 at N=64, T=20, I=H=1024 (two threads, inference).
// - The hand-over of a phase costs 0.05 to 0.2 microseconds. Half of 128 KB of weights takes 0.6 (L2, 30 bytes a cycle): below
//   that the hidden split has nothing to win. Each thread needs a block of 4 vectors of units for backward.
// - The wavefront hands over once a block; a sixteenth of T loses 1/17 to its slope with two layers, and hand-overs of 0.2
//   microseconds are lost in blocks of 2 and more. Three layers keep two threads busy for 3 of 4 turns, 1122 microseconds
//   against 1043 of the hidden split (GRU, N=1, T=200, I=H=128), two layers always: 833 against 899 (LSTM). Where every
//   layer's weights would leave a core's L2, the hidden split is better, a half of them may not: 3183 against 3591 (H=256).
void choose_split(Plan& plan) noexcept {
  const fastrnn_problem& p = plan.p;
  const int64_t threads = clamp(p.threads, 1, most_threads);
  const uint32_t split = p.split;
  plan.threads = plan.wanted_threads = static_cast<int>(threads);
  plan.slices = 1;
  plan.hidden_split = plan.wavefront = false;
  if (threads == 1 || p.T == 0 || p.N == 0) return;
  const bool chosen = split == FASTRNN_SPLIT_CHOSEN;
  if (chosen && plan.work() < 2.5e6) {
    plan.threads = 1;
    return;
  }
  const int64_t per_direction = (threads + p.D - 1) / p.D;
  if (split == FASTRNN_SPLIT_BATCH || (chosen && p.N >= 4 * per_direction && per_direction > 1)) {
    const int64_t fine = clamp(p.N / 12 / per_direction, 1, 4) * per_direction;
    plan.slices = fine < p.N ? fine : p.N;
    return;
  }
  const int64_t step_bytes = plan.gates * p.H * p.H * plan.item;
  const bool worth = step_bytes >= (int64_t{128} << 10) && p.H >= 4 * plan.lanes * 2 && p.D == 1;
  plan.hidden_split = split == FASTRNN_SPLIT_HIDDEN || (chosen && worth);
  const bool in_l2 = plan.packed_elements(p.L - 1) * plan.item <= (int64_t{1} << 20);
  const bool stacked = p.L > 1 && p.D == 1;
  const bool fits = in_l2 && (!worth || p.L % threads == 0);
  plan.wavefront = stacked && (split == FASTRNN_SPLIT_LAYERS || (chosen && fits && p.T >= 16));
  plan.wave_steps = clamp(p.T / 16, 1, 256);
}

// A segment's gates, c, dG and the products' sums are used while they are in cache, and its dW is one product:
// - at least 256 rows, over which the sums' way through memory is 1 % of the product (gradients.hpp, block_rows);
// - at least 1 MB of gates, what a core's L2 holds: the work of a small H is not cut into pieces shorter than their tables;
// - at least sqrt(T/5) steps: the T/S checkpoints of c [N][H] and the 5 S rows [N][H] of a segment are then fewest together.
void choose_segment(Plan& plan) noexcept {
  const int64_t T = plan.p.T > 0 ? plan.p.T : 1, N = plan.p.N > 0 ? plan.p.N : 1;
  int64_t steps = T;
  plan.recompute = plan.p.save == FASTRNN_SAVE_RECOMPUTE && plan.keeps_gates;
  if (plan.p.save == FASTRNN_SAVE_RECOMPUTE) {
    steps = plan.p.segment;
    if (steps == 0) {
      const int64_t row_bytes = 4 * round_up(plan.p.H, plan.lanes) * plan.item,
                    cached = (int64_t{1} << 20) / row_bytes, rows = cached > 256 ? cached : 256;
      steps = (rows + N - 1) / N;
      const auto balanced = static_cast<int64_t>(std::ceil(std::sqrt(static_cast<double>(T) / 5)));
      if (plan.has_c && steps < balanced) steps = balanced;
    }
  }
  plan.segment = clamp(steps, 1, T);
  plan.segments = (T + plan.segment - 1) / plan.segment;
}

namespace {

bool in_range(const fastrnn_problem& p) {
  return p.cell < cell_count && p.activation < activation_count && p.dtype < dtype_count &&
         p.T >= 0 && p.N >= 0 && p.I >= 1 && p.H >= 1 && p.L >= 1 && (p.D == 1 || p.D == 2) &&
         p.bias <= 1 && p.split <= FASTRNN_SPLIT_LAYERS && p.save <= FASTRNN_SAVE_RECOMPUTE;
}

// Every size below is at most a small multiple of these products. 2^56 leaves room for it, and is far above any memory.
bool fits(const fastrnn_problem& p) {
  constexpr int64_t limit = int64_t{1} << 56;
  if (p.T >= limit || p.N >= limit || p.I >= (limit >> 8) || p.H >= (limit >> 8) || p.L >= limit)
    return false;
  const int64_t a[] = {p.T + 1, p.N + 1}, b[] = {4 * 8, p.D, p.L};
  const auto bounded = [](int64_t start, const int64_t* factors, int count) {
    int64_t product = start;
    for (int i = 0; i < count; ++i) {
      if (__builtin_mul_overflow(product, factors[i], &product) || product > limit)
        return int64_t{-1};
    }
    return product;
  };
  const int64_t width = (p.I > 2 * p.H ? p.I : 2 * p.H) + 64;
  const int64_t per_row = bounded(width, b, 3);
  if (per_row < 0 || bounded(per_row, a, 2) < 0) return false;
  const int64_t c[] = {p.H + 64};
  return bounded(per_row, c, 1) >= 0;
}

}  // namespace

fastrnn_status make_plan(const fastrnn_problem& problem, Plan& plan,
                         fastrnn_sizes* sizes) noexcept {
  if (problem.struct_size != sizeof(fastrnn_problem)) return FASTRNN_BAD_STRUCT_SIZE;
  if (sizes != nullptr && sizes->struct_size != sizeof(fastrnn_sizes))
    return FASTRNN_BAD_STRUCT_SIZE;
  if (!in_range(problem)) return FASTRNN_BAD_PROBLEM;
  if (problem.activation == FASTRNN_RELU && problem.cell != FASTRNN_RNN) return FASTRNN_UNSUPPORTED;
  if (!fits(problem)) return FASTRNN_TOO_LARGE;
  plan = Plan{};
  plan.p = problem;
  plan.isa = problem.isa;
  if (problem.isa < 0) {
    const fastrnn_status status = isa_active(plan.isa);
    if (status != FASTRNN_OK) return status;
  } else if (!isa_runnable(problem.isa)) {
    return problem.isa < isa_count() ? FASTRNN_ISA_NOT_RUNNABLE : FASTRNN_UNKNOWN_ISA;
  }
  const KernelTable& table = isa_table(plan.isa);
  plan.kernels = &table.cells[problem.cell][problem.dtype];
  const CellFacts& cell = facts[problem.cell];
  plan.item = problem.dtype == FASTRNN_F32 ? 4 : 8;
  plan.lanes = static_cast<int64_t>(table.vector_bytes) / plan.item;
  plan.gates = cell.gates;
  plan.columns = cell.columns;
  plan.interleaved = cell.interleaved;
  plan.has_c = cell.has_c;
  plan.keeps_gates = cell.keeps_gates;
  plan.two_phase = cell.two_phase;
  choose_split(plan);
  choose_segment(plan);
  if (sizes == nullptr) return FASTRNN_OK;

  sizes->threads = static_cast<uint32_t>(plan.threads);
  const int64_t L = problem.L, D = problem.D;
  const auto total = [&](auto per_direction) {
    return plan.offset(L - 1, D - 1, per_direction) + per_direction(L - 1);
  };
  sizes->weights = total([&](int64_t l) { return plan.weight_elements(l); });
  sizes->packed = plan.item * total([&](int64_t l) { return plan.packed_elements(l); });
  sizes->packed_backward = plan.item * total([&](int64_t l) {
                             return plan.packed_backward_hh(l) + plan.packed_backward_ih(l);
                           });
  Arena tape(nullptr), forward(nullptr), backward(nullptr);
  tape_memory(plan, tape);
  forward_memory(plan, forward);
  backward_memory(plan, backward);
  if (tape.overflow() || forward.overflow() || backward.overflow()) return FASTRNN_TOO_LARGE;
  sizes->tape = tape.used();
  sizes->forward_workspace = forward.used();
  sizes->backward_workspace = backward.used();
  sizes->work = plan.work();
  return FASTRNN_OK;
}

}  // namespace fastrnn
