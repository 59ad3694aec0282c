#include <cstring>

#include "driver.hpp"
#include "places.hpp"
#include "rows.hpp"
#include "segments.hpp"
#include "threads.hpp"

namespace fastrnn {
namespace {

struct LayerBackward {
  int64_t layer;
  Operand x, y, dy, dx;  // absent: base null
  Sequence seq;          // of the forward direction
};

// Between the caller's rows and ours, which lie in the order of the sequence and are padded.
void begin_gradients(const Plan& plan, const Sequence& seq, const void* from, void* to,
                     int64_t padded) {
  if (to == nullptr) return;
  const int64_t row = plan.p.H * plan.item;
  for (int64_t place = 0; place < plan.p.N; ++place) {
    char* r = bytes(to) + place * padded;
    std::memset(r, 0, size_of(padded));
    if (from != nullptr) std::memcpy(r, bytes(from) + row_at(seq, place) * row, size_of(row));
  }
}

void end_gradients(const Plan& plan, const Sequence& seq, const void* from, void* to,
                   int64_t padded) {
  if (to == nullptr || from == nullptr) return;
  const int64_t row = plan.p.H * plan.item;
  for (int64_t place = 0; place < plan.p.N; ++place)
    std::memcpy(bytes(to) + row_at(seq, place) * row, bytes(from) + place * padded, size_of(row));
}

// A direction's part of an array [L*D,T,N,H].
Operand all_states(const Plan& plan, void* base, int64_t layer, int64_t d) {
  const int64_t step = plan.p.N * plan.p.H;
  return operand(plan, base, step, plan.p.H, (layer * plan.p.D + d) * plan.p.T * step);
}

void prepare_backward(const Plan& plan, const fastrnn_backward_args& a,
                      const BackwardMemory& memory, const TapeMemory& tape, const LayerBackward& io,
                      int64_t d, BackwardCall& call) {
  const DirectionForward& state = memory.direction[d];
  const DirectionTape kept = tape.at(plan, io.layer, d);
  begin_states(plan, io.seq, state, memory.zero, state_at(plan, a.h0, io.layer, d),
               state_at(plan, a.c0, io.layer, d), 0, plan.p.N);
  RowSource& source = call.source;
  BackwardArgs& b = call.args;
  source = {};
  b = {};
  b.layout = plan.layout(io.layer, 0);
  b.activation = static_cast<Activation>(plan.p.activation);
  const int64_t column = d * plan.p.H * plan.item;
  source.seq = direction_of(io.seq, d);
  source.n_end = plan.p.N;
  source.x = io.x;
  source.y = io.y;
  source.y.base += column;
  source.dy = io.dy;
  if (source.dy.base != nullptr) source.dy.base += column;
  source.dx = io.dx;
  source.zero = memory.zero;
  source.c = bytes(kept.c);
  source.c_row = b.layout.hidden_padded * plan.item;
  b.tables =
      row_tables_in(memory.tables[d], plan.segment_rows(), plan.segment, true, plan.regular());
  if (plan.regular()) {
    call.regular = regular_of(plan, a, io.layer, d);
    call.regular.masked = bytes(memory.masked[d]);
    call.regular.masked_by_row = true;
    call.regular.du = memory.du[d];
    source.regular = &call.regular;
  }
  find_states(plan, memory, d, call);

  b.rows = &source;
  if (a.packed_backward != nullptr) {
    b.packed = packed_backward_at(plan, a.packed_backward, io.layer, d);
  } else {
    b.weights = weights_at(plan, a.weights, io.layer, d) + input_weights_bytes(plan, io.layer);
  }
  void* gates = plan.recompute ? memory.again.gates[d] : kept.gates;
  b.gates = gates;
  b.dgates = memory.dgates[d] != nullptr ? memory.dgates[d] : gates;
  b.dh = memory.dh[d];
  b.dc = memory.dc[d];
  b.rh = memory.rh[d];
  b.drh = memory.drh[d];
  b.dh_all = all_states(plan, a.dh_all, io.layer, d);
  if (plan.has_c) b.dc_all = all_states(plan, a.dc_all, io.layer, d);
  b.n_end = plan.p.N;
  // A row has gates, c or h, and dy; the RNN's y, dy, dG. From 4 MB on fetching them won, at 1 to 2.4 MB and H=64 it cost up
  // to 2 % of a training step (Zen 4, 1 MB of L2).
  const int64_t touched = plan.keeps_gates ? 6 : 3;
  b.far = plan.segment_rows() * touched * source.c_row > 4 * l2_bytes;
  b.team = {0, 1, nullptr, 0, 0};
  begin_gradients(plan, io.seq, state_at(plan, a.dhn, io.layer, d), b.dh, source.c_row);
  begin_gradients(plan, io.seq, state_at(plan, a.dcn, io.layer, d), b.dc, source.c_row);
}

// The time loops: by a team, or by slices of the batch.
void backward_steps(const Plan& plan, const BackwardCall* calls) {
  if (plan.hidden_split) {
    for (int64_t d = 0; d < plan.p.D; ++d) {
      Phases phases(plan.threads);
      team(plan.threads, [&](int member) {
        BackwardArgs mine = calls[d].args;
        mine.team = {member, plan.threads, &phases, 0, 0};
        plan.kernels->backward(mine);
      });
    }
    return;
  }
  parallel(plan.threads, plan.p.D * plan.slices, [&](int64_t i) {
    BackwardArgs mine = calls[i / plan.slices].args;
    const Range rows = slice_of(mine.rows->seq, plan.slices, i % plan.slices);
    mine.n_begin = rows.begin;
    mine.n_end = rows.end;
    plan.kernels->backward(mine);
  });
}

// Shares of a product over `count` tiles: a few for each thread, so that they can be claimed, but none so small that the
// weights it streams are used less than `least` times.
int64_t product_shares(const Plan& plan, int64_t count, int64_t least) {
  if (plan.threads == 1) return 1;
  const int64_t shares = plan.shares(), most = count / least;
  return most < 1 ? 1 : most < shares ? most : shares;
}

void weight_gradients(const Plan& plan, const fastrnn_backward_args& a,
                      const BackwardMemory& memory, const LayerBackward& io, int64_t k,
                      const BackwardCall* calls) {
  const int64_t G_H = plan.gates * plan.p.H,
                shares = product_shares(plan, calls[0].args.layout.panels, 1);
  parallel(plan.threads, plan.p.D * shares, [&](int64_t i) {
    const int64_t d = i / shares;
    const BackwardArgs& b = calls[d].args;
    WeightGradArgs g{};
    g.layout = b.layout;
    g.dgates = b.dgates;
    g.x = b.tables.x;
    g.h = b.tables.u;
    g.rh = b.rh;
    g.panels = memory.panels[d];
    g.first = k == plan.segments - 1;
    g.last = k == 0;
    g.copies = bytes(memory.copies[d]) + i % shares * outer_part_rows * outer_part_bytes;
    g.dw_ih = weights_at(plan, a.dweights, io.layer, d);
    g.dw_hh = bytes(g.dw_ih) + input_weights_bytes(plan, io.layer);
    if (plan.p.bias != 0) {
      g.db_ih = bytes(g.dw_hh) + G_H * plan.p.H * plan.item;
      g.db_hh = bytes(g.db_ih) + G_H * plan.item;
    }
    g.accumulate = a.accumulate != 0;
    const Range panels = share(g.layout.panels, shares, i % shares);
    plan.kernels->weight_grad(g, panels.begin, panels.end);
  });
}

// Directions one after the other: where one has been, the other adds. Both go from their last segments to their first, so of
// this direction's steps those below `done` have been the other's: its last `done` ones are behind it.
void input_gradients(const Plan& plan, const fastrnn_backward_args& a, const LayerBackward& io,
                     int64_t k, const BackwardCall* calls) {
  const int64_t T = plan.p.T, begin = k * plan.segment;
  for (int64_t d = 0; d < plan.p.D; ++d) {
    const BackwardArgs& b = calls[d].args;
    const int64_t done = plan.p.D == 1 ? 0 : d == 0 ? T - begin - b.steps : T - begin;
    const int64_t both = done < begin ? 0 : done - begin < b.steps ? done - begin : b.steps;
    InputGradArgs g{};
    g.layout = b.layout;
    if (b.packed != nullptr) {
      g.packed = bytes(b.packed) + plan.packed_backward_hh(io.layer) * plan.item;
    } else {
      g.weights = weights_at(plan, a.weights, io.layer, d);
    }
    g.dgates = b.dgates;
    g.dx = b.tables.dx;
    const auto product = [&](Range rows, bool accumulate) {
      if (rows.begin == rows.end) return;
      g.accumulate = accumulate;
      const int64_t shares = product_shares(plan, rows.end - rows.begin, 48);
      parallel(plan.threads, shares, [&](int64_t i) {
        const Range mine = share(rows.end - rows.begin, shares, i);
        plan.kernels->input_grad(g, rows.begin + mine.begin, rows.begin + mine.end);
      });
    };
    product({0, b.tables.first[both]}, true);
    product({b.tables.first[both], b.layout.rows}, false);
  }
}

void backward_layer(const Plan& plan, const fastrnn_backward_args& a, const BackwardMemory& memory,
                    const TapeMemory& tape, const LayerBackward& io) {
  BackwardCall calls[2];
  parallel(plan.threads, plan.p.D,
           [&](int64_t d) { prepare_backward(plan, a, memory, tape, io, d, calls[d]); });
  for (int64_t k = plan.segments - 1; k >= 0; --k) {
    parallel(plan.threads, plan.p.D, [&](int64_t d) {
      enter_segment(plan, memory, d, k, calls[d]);
      calls[d].args.last_product = k > 0 || a.dh0 != nullptr || a.dc0 != nullptr;
    });
    if (plan.recompute) recompute_segment(plan, a.packed, memory, io.layer, k, calls);
    backward_steps(plan, calls);
    if (a.dweights != nullptr) weight_gradients(plan, a, memory, io, k, calls);
    if (io.dx.base != nullptr) input_gradients(plan, a, io, k, calls);
  }
  for (int64_t d = 0; d < plan.p.D; ++d) {
    const BackwardArgs& b = calls[d].args;
    end_gradients(plan, io.seq, b.dh, state_at(plan, a.dh0, io.layer, d), calls[d].source.c_row);
    end_gradients(plan, io.seq, b.dc, state_at(plan, a.dc0, io.layer, d), calls[d].source.c_row);
  }
}

}  // namespace

fastrnn_status run_backward(const Plan& plan, const fastrnn_backward_args& a,
                            const BackwardMemory& memory) noexcept {
  Arena kept(a.tape);
  const fastrnn_status status = check_rows(plan.p, rows_in(a), memory.sequence);
  if (status != FASTRNN_OK) return status;
  const TapeMemory tape = tape_memory(plan, kept);
  std::memset(memory.zero, 0, size_of(memory.zero_bytes));
  if (a.lengths != nullptr || plan.packed()) {  // what has ended is not gone through
    for (void* all : {a.dh_all, plan.has_c ? a.dc_all : nullptr}) {
      if (all != nullptr) std::memset(all, 0, size_of(plan.all_states_bytes()));
    }
  }
  const int64_t last = plan.p.L - 1, width = plan.p.D * plan.p.H * plan.item;

  LayerBackward io{};
  io.seq = begin_sequence(plan.p, rows_in(a), memory.sequence);
  io.dy = given(plan, a.dy, a.dy_t, a.dy_n);
  for (io.layer = last; io.layer >= 0; --io.layer) {
    const bool first = io.layer == 0;
    io.y = io.layer == last ? given(plan, a.y, a.y_t, a.y_n) : dense(plan, tape.y(plan, io.layer));
    void* below = first ? nullptr : tape.y(plan, io.layer - 1);
    void* dbelow = first ? nullptr : memory.dys[(io.layer - 1) & 1];
    io.x = first ? given(plan, a.x, a.x_t, a.x_n) : dense(plan, below);
    io.dx = first ? given(plan, a.dx, a.dx_t, a.dx_n) : dense(plan, dbelow);
    if (!first && a.dropout != nullptr) {
      apply_dropout(plan, io.seq, memory.dropped, below, a.dropout, io.layer - 1);
      io.x = dense(plan, memory.dropped);
    }
    if (io.dx.base != nullptr) {
      if (first) zero_padding(plan, io.seq, io.dx, plan.p.I * plan.item);
      zero_held(io.seq, io.dx, first ? plan.p.I * plan.item : width);
    }
    backward_layer(plan, a, memory, tape, io);
    if (first) break;
    if (a.dropout != nullptr) {
      apply_dropout(plan, io.seq, dbelow, dbelow, a.dropout, io.layer - 1);
    }
    io.dy = dense(plan, dbelow);
  }
  return FASTRNN_OK;
}

}  // namespace fastrnn
