#include "plan.hpp"

#include <cmath>

#include "cpu.hpp"
#include "cores.hpp"

namespace fastrnn {
namespace {

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

int64_t clamp(int64_t a, int64_t low, int64_t high) { return a < low ? low : a > high ? high : a; }

}  // namespace

Layout Plan::layout(int64_t layer, int64_t rows) const noexcept {
  Layout out{};
  out.I = layer_input(layer);
  out.H = p.H;
  out.lanes = lanes;
  out.unit_panel = interleaved ? lanes : 4 * lanes;
  out.panels = (p.H + out.unit_panel - 1) / out.unit_panel;
  out.hidden_padded = round_up(p.H, lanes);
  out.input_padded = round_up(out.I, lanes);
  out.panel_size = out.unit_panel * (columns + out.I * w_gates + p.H * u_gates);
  out.rows = rows;
  return out;
}

int64_t Plan::widest_panel() const noexcept {
  const int64_t first = layout(0, 0).panel_size, other = p.L > 1 ? layout(1, 0).panel_size : 0;
  return first > other ? first : other;
}

int64_t Plan::packed_elements(int64_t layer) const noexcept {
  return round_up(p.H, lanes) * (columns + layer_input(layer) * w_gates + p.H * u_gates);
}
int64_t Plan::packed_backward_hh(int64_t) const noexcept {
  return u_gates * p.H * round_up(p.H, lanes);
}
int64_t Plan::packed_backward_ih(int64_t layer) const noexcept {
  return w_gates * p.H * round_up(layer_input(layer), lanes);
}
int64_t Plan::weight_elements(int64_t layer) const noexcept {
  return gates * p.H * (layer_input(layer) + p.H + (p.bias != 0 ? 2 : 0));
}

// Steps whose xg is within 256 KB of L2, or within an eighth of U, beside whose stream it costs nothing.
int64_t Plan::projected_steps(int64_t rows) const noexcept {
  const int64_t step_bytes = rows * w_gates * round_up(p.H, lanes) * item;
  const int64_t l2_share = l2_bytes / 4, u_share = gates * p.H * p.H * item / 8;
  return (l2_share > u_share ? l2_share : u_share) / step_bytes;
}

// x enters the step's own product where that costs nothing: few inputs or one step (no second pass over xg), or enough rows to
// hide the second stream of weights, all of which stay in L2. Otherwise W would be streamed at every step: at H=I=1024, N=1
// that is 10 % of the FMA peak instead of 30 %. With so many rows that one step's xg is too large it would be all the same, and
// xg a way through memory besides: projected, N=64 to 256 at I=H=256 took 1.00 to 1.05 of the time, N=100 at 300->700 1.04
// (LSTM).
bool Plan::projects(int64_t layer) const noexcept {
  const int64_t I = layer_input(layer), rows = (p.N + slices - 1) / slices;
  if (I <= 16 || p.T == 1 || rows == 0) return false;
  return rows < 6 || (packed_elements(layer) * item > l2_bytes && projected_steps(rows) >= 2);
}

// At most 256 steps; projected at least 24 rows if T has them, four row blocks for each panel, since every chunk streams W once
// more. Otherwise only the row tables depend on it: 256 rows of them are 24 KB.
int64_t Plan::chunk_steps(int64_t layer) const noexcept {
  const int64_t rows = clamp((p.N + slices - 1) / slices, 1, p.N > 0 ? p.N : 1);
  int64_t steps = clamp(256 / rows, 1, 256);
  if (projects(layer)) {
    const int64_t enough = (24 + rows - 1) / rows;
    steps = clamp(projected_steps(rows), 1, 256);
    if (steps < enough) steps = enough;
  }
  if (wavefront && steps > wave_steps) steps = wave_steps;
  return clamp(steps, 1, p.T > 0 ? p.T : 1);
}

// Slices have N/slices rows each, but of rows of different length one may have nearly all: then at least a step of them.
int64_t Plan::chunk_rows(int64_t layer) const noexcept {
  const int64_t rows = chunk_steps(layer) * ((p.N + slices - 1) / slices);
  return rows < p.N ? p.N : rows;
}

bool Plan::saves_gates() const noexcept { return keeps_gates && !recompute; }
int64_t Plan::c_rows() const noexcept { return recompute ? segments * p.N : rows(); }
bool Plan::has_tape() const noexcept { return saves_gates() || has_c || p.L > 1; }

// A few for each thread, so that they can be claimed.
int64_t Plan::shares() const noexcept { return threads == 1 ? 1 : 4 * int64_t{threads}; }

// A training step at I=H=64, 256, 512 on weights packed for it took 1.19, 1.24, 1.31 of the time of one on weights as they lie at
// T*N = 1 (LSTM, one thread, Zen 4), 1.06, 1.17, 1.17 (RNN); at T*N = 4 it was 1.07 to 0.81, at 16 0.9 to 0.66.
bool Plan::unpacked_backward() const noexcept { return rows() <= 3; }

// Each panel is used once, by one thread; a cell of two phases comes back to its panels.
bool Plan::unpacked_forward() const noexcept {
  const bool alone = slices == 1 && !hidden_split && !wavefront;
  return p.unpacked != 0 && p.T == 1 && !packed() && alone && !two_phase;
}

double Plan::work() const noexcept {
  const double first = static_cast<double>(p.I + p.H), others = static_cast<double>(p.L - 1);
  const double widths = first + others * static_cast<double>((p.D + 1) * p.H);
  return 2.0 * widths * static_cast<double>(gates * p.H * p.D) *
         (packed() ? static_cast<double>(p.rows)
                   : static_cast<double>(p.T) * static_cast<double>(p.N));
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
  const bool in_l2 = plan.packed_elements(p.L - 1) * plan.item <= l2_bytes;
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
                    cached = l2_bytes / row_bytes, rows = cached > 256 ? cached : 256;
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
         p.T >= 0 && p.N >= 0 && p.rows >= 0 && p.I >= 1 && p.H >= 1 && p.L >= 1 &&
         (p.D == 1 || p.D == 2) && p.bias <= 1 && p.split <= FASTRNN_SPLIT_LAYERS &&
         p.save <= FASTRNN_SAVE_RECOMPUTE &&
         p.regularisers <= (FASTRNN_RECURRENT_DROPOUT | FASTRNN_ZONEOUT) && p.unpacked <= 1;
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

fastrnn_status make_plan(const fastrnn_problem& problem, Plan& plan) noexcept {
  if (!in_range(problem)) return FASTRNN_BAD_PROBLEM;
  if (problem.activation == FASTRNN_RELU && problem.cell != FASTRNN_RNN) return FASTRNN_UNSUPPORTED;
  if (!fits(problem)) return FASTRNN_TOO_LARGE;
  if (problem.rows > problem.T * problem.N) return FASTRNN_BAD_PROBLEM;
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
  plan.w_gates = cell.w_gates;
  plan.u_gates = cell.u_gates;
  plan.columns = cell.columns;
  plan.interleaved = cell.interleaved;
  plan.has_c = cell.has_c;
  plan.keeps_gates = cell.keeps_gates;
  plan.two_phase = cell.two_phase;
  plan.masked = (problem.regularisers & FASTRNN_RECURRENT_DROPOUT) != 0;
  plan.zoned = (problem.regularisers & FASTRNN_ZONEOUT) != 0;
  choose_split(plan);
  choose_segment(plan);
  return FASTRNN_OK;
}

}  // namespace fastrnn
