#include "driver.hpp"

#include <cstring>

#include "forward_calls.hpp"
#include "places.hpp"
#include "rows.hpp"
#include "threads.hpp"

namespace fastrnn {
namespace {

// One layer of a forward call: where it reads and writes.
struct LayerForward {
  int64_t layer, rows;  // R
  Operand x, y;         // y: column 0 of the first direction
};

void prepare_forward(const Plan& plan, const fastrnn_forward_args& a, const ForwardMemory& memory,
                     const TapeMemory* tape, const LayerForward& io, int64_t d, int64_t slice,
                     ForwardCall& call) {
  begin_call(plan, memory.loop, a.packed, io.layer, d, slice, call);
  RowSource& source = call.source;
  const DirectionForward& state = memory.direction[d];
  const void* h0 = state_at(plan, a.h0, io.layer, d);
  const void* c0 = state_at(plan, a.c0, io.layer, d);
  begin_states(plan, state, memory.zero, h0, c0, source.n_begin, source.n_end);
  source.seq = sequence(plan, d, a.lengths, a.reset, a.mask);
  source.x = io.x;
  source.y = io.y;
  if (source.y.base != nullptr) source.y.base += d * plan.p.H * plan.item;
  source.h_of = state.h_of;
  source.c_of = state.c_of;
  source.zero = memory.zero;
  source.c = bytes(state.c);
  call.args.layout.rows = io.rows;
  if (tape == nullptr) {
    source.c_steps = plan.p.T;  // one row of c for each n throughout
  } else {
    const DirectionTape kept = tape->at(plan, io.layer, d);
    call.args.gates = kept.gates;
    source.c = bytes(kept.c);
    source.c_by_row = !plan.recompute;
  }
}

void forward_layer(const Plan& plan, const fastrnn_forward_args& a, const ForwardMemory& memory,
                   const TapeMemory* tape, const LayerForward& io) {
  const auto prepare = [&](int64_t d, int64_t slice, ForwardCall& call) {
    prepare_forward(plan, a, memory, tape, io, d, slice, call);
  };
  const auto finish = [&](int64_t d, const ForwardCall& call) {
    void* hn = state_at(plan, a.hn, io.layer, d);
    void* cn = state_at(plan, a.cn, io.layer, d);
    end_states(plan, memory.direction[d], hn, cn, call.source.n_begin, call.source.n_end);
  };
  run_calls(plan, tape != nullptr ? plan.kernels->forward_tape : plan.kernels->forward, prepare,
            finish);
}

}  // namespace

void run_pack(const Plan& plan, const void* weights, void* packed, void* packed_backward) noexcept {
  const int64_t G_H = plan.gates * plan.p.H;
  // About a cycle an element: 2^16 of them are 20 microseconds, less is not worth a second thread.
  const bool large = plan.weight_elements(0) >= (int64_t{1} << 16);
  const int64_t threads = large ? plan.wanted_threads : 1;
  parallel(static_cast<int>(threads), plan.p.L * plan.p.D * threads, [&](int64_t i) {
    const int64_t layer = i / threads / plan.p.D, d = i / threads % plan.p.D;
    const char* w = bytes(weights) + plan.item * plan.offset(layer, d, [&](int64_t l) {
      return plan.weight_elements(l);
    });
    PackArgs a{};
    a.layout = plan.layout(layer, 0);
    a.w_ih = w;
    a.w_hh = w + G_H * a.layout.I * plan.item;
    if (plan.p.bias != 0) {
      a.b_ih = bytes(a.w_hh) + G_H * plan.p.H * plan.item;
      a.b_hh = bytes(a.b_ih) + G_H * plan.item;
    }
    if (packed != nullptr) a.forward = const_cast<char*>(packed_at(plan, packed, layer, d));
    if (packed_backward != nullptr) {
      a.backward_hh = const_cast<char*>(packed_backward_at(plan, packed_backward, layer, d));
      a.backward_ih = bytes(a.backward_hh) + plan.packed_backward_hh(layer) * plan.item;
    }
    plan.kernels->pack(a, i % threads, threads);
  });
}

void run_forward(const Plan& plan, const fastrnn_forward_args& a) noexcept {
  Arena workspace(a.workspace), kept(a.tape);
  const ForwardMemory memory = forward_memory(plan, workspace);
  const TapeMemory tape = tape_memory(plan, kept);
  std::memset(memory.zero, 0, size_of(memory.zero_bytes));
  const int64_t last = plan.p.L - 1, D = plan.p.D;

  LayerForward io{};
  io.rows = a.tape != nullptr ? count_rows(plan, a.lengths, a.mask) : 0;
  io.x = operand(plan, a.x, a.x_t, a.x_n);
  for (io.layer = 0; io.layer <= last; ++io.layer) {
    void* y = io.layer == last    ? a.y
              : a.tape != nullptr ? tape.y(plan, io.layer)
                                  : memory.ys[io.layer & 1];
    io.y = io.layer == last ? operand(plan, a.y, a.y_t, a.y_n) : dense(plan, y);
    const size_t width = size_of(D * plan.p.H * plan.item);
    for_padding(plan, a.lengths,
                [&](int64_t t, int64_t n) { std::memset(at(io.y, t, n), 0, width); });
    forward_layer(plan, a, memory, a.tape != nullptr ? &tape : nullptr, io);
    if (io.layer == last) break;
    io.x = io.y;
    if (a.dropout == nullptr) continue;
    apply_dropout(plan, memory.dropped, y, a.dropout, io.layer);
    io.x = dense(plan, memory.dropped);
  }
}

}  // namespace fastrnn
