#include "driver.hpp"

#include <cstring>
#include <new>

#include "forward_calls.hpp"
#include "places.hpp"
#include "rows.hpp"
#include "threads.hpp"
#include "wavefront.hpp"

namespace fastrnn {
namespace {

using ForwardKernel = void (*)(const ForwardArgs&);

// One layer of a forward call: where it reads and writes.
struct LayerForward {
  int64_t layer, rows;  // R
  Operand x, y;         // y: column 0 of the first direction
  Sequence seq;         // of the forward direction
};

// What is packed of one direction, and from where.
PackArgs pack_args(const Plan& plan, const void* weights, int64_t layer, int64_t d) {
  const int64_t bias_bytes = plan.gates * plan.p.H * plan.item;
  PackArgs a{};
  a.layout = plan.layout(layer, 0);
  a.w_ih = weights_at(plan, weights, layer, d);
  a.w_hh = bytes(a.w_ih) + input_weights_bytes(plan, layer);
  if (plan.p.bias != 0) {
    a.b_ih = bytes(a.w_hh) + bias_bytes * plan.p.H;
    a.b_hh = bytes(a.b_ih) + bias_bytes;
  }
  return a;
}

// The kernel packs for itself: every panel lies in the same room when its turn comes, so their distance is 0.
void begin_unpacked(const Plan& plan, const fastrnn_forward_args& a, const ForwardMemory& memory,
                    int64_t layer, int64_t d, ForwardCall& call) {
  call.pack = pack_args(plan, a.weights, layer, d);
  call.args.unpacked = &call.pack;
  call.args.packed = memory.panels + d * memory.panel_bytes;
  call.args.layout.panel_size = 0;
}

void prepare_forward(const Plan& plan, const fastrnn_forward_args& a, const ForwardMemory& memory,
                     const TapeMemory* tape, const LayerForward& io, int64_t d, int64_t slice,
                     ForwardCall& call) {
  const LayerMemory work = memory.layer(plan, io.layer);
  begin_call(plan, io.seq, work.loop, a.packed, io.layer, d, slice, call);
  RowSource& source = call.source;
  const DirectionForward& state = work.direction[d];
  const void* h0 = state_at(plan, a.h0, io.layer, d);
  const void* c0 = state_at(plan, a.c0, io.layer, d);
  begin_states(plan, io.seq, state, memory.zero, h0, c0, source.n_begin, source.n_end);
  source.x = io.x;
  source.y = io.y;
  if (source.y.base != nullptr) source.y.base += d * plan.p.H * plan.item;
  source.h_of = state.h_of;
  source.c_of = state.c_of;
  source.zero = memory.zero;
  source.c = bytes(state.c);
  call.args.layout.rows = io.rows;
  call.args.zero_state = h0 == nullptr;
  if (a.packed == nullptr) begin_unpacked(plan, a, memory, io.layer, d, call);
  if (plan.regular()) begin_regular(work.loop, regular_of(plan, a, io.layer, d), d, slice, call);
  if (tape == nullptr) {
    source.c_steps = plan.p.T;  // one row of c for each n throughout
  } else {
    const DirectionTape kept = tape->at(plan, io.layer, d);
    call.args.gates = kept.gates;
    source.c = bytes(kept.c);
    source.c_by_row = !plan.recompute;
  }
}

void finish_forward(const Plan& plan, const fastrnn_forward_args& a, const ForwardMemory& memory,
                    int64_t layer, int64_t d, const ForwardCall& call) {
  void* hn = state_at(plan, a.hn, layer, d);
  void* cn = state_at(plan, a.cn, layer, d);
  end_states(plan, call.source.seq, memory.layer(plan, layer).direction[d], hn, cn,
             call.source.n_begin, call.source.n_end);
}

// Where layer `layer` reads and writes. Of inner layers nobody reads what lies behind a row's length.
LayerForward begin_layer(const Plan& plan, const fastrnn_forward_args& a,
                         const ForwardMemory& memory, const TapeMemory* tape, const Sequence& seq,
                         int64_t layer) {
  const auto inner = [&](int64_t l) { return tape != nullptr ? tape->y(plan, l) : memory.y(l); };
  LayerForward io{};
  io.layer = layer;
  io.seq = seq;
  io.rows = tape != nullptr ? count_rows(seq) : 0;
  io.x = layer == 0 ? given(plan, a.x, a.x_t, a.x_n) : dense(plan, inner(layer - 1));
  io.y = layer == plan.p.L - 1 ? given(plan, a.y, a.y_t, a.y_n) : dense(plan, inner(layer));
  if (layer == plan.p.L - 1) zero_padding(plan, seq, io.y, plan.p.D * plan.p.H * plan.item);
  if (layer > 0 && a.dropout != nullptr) {
    apply_dropout(plan, seq, memory.dropped, inner(layer - 1), a.dropout, layer - 1);
    io.x = dense(plan, memory.dropped);
  }
  return io;
}

void forward_layers(const Plan& plan, const fastrnn_forward_args& a, const ForwardMemory& memory,
                    const TapeMemory* tape, const Sequence& seq, ForwardKernel kernel) {
  for (int64_t layer = 0; layer < plan.p.L; ++layer) {
    const LayerForward io = begin_layer(plan, a, memory, tape, seq, layer);
    run_calls(
        plan, kernel,
        [&](int64_t d, int64_t slice, ForwardCall& call) {
          prepare_forward(plan, a, memory, tape, io, d, slice, call);
        },
        [&](int64_t d, const ForwardCall& call) {
          finish_forward(plan, a, memory, layer, d, call);
        });
  }
}

void forward_wave(const Plan& plan, const fastrnn_forward_args& a, const ForwardMemory& memory,
                  const TapeMemory* tape, const Sequence& seq, ForwardKernel kernel) {
  static_assert(sizeof(WaveLayer) == 64, "the plan gives each layer a line");
  auto* progress = static_cast<WaveLayer*>(memory.wave);
  const int64_t steps = plan.wave_steps, blocks = (plan.p.T + steps - 1) / steps;
  for (int64_t layer = 0; layer < plan.p.L; ++layer) {
    const LayerForward io = begin_layer(plan, a, memory, tape, seq, layer);
    prepare_forward(plan, a, memory, tape, io, 0, 0, *new (memory.calls + layer) ForwardCall);
    new (progress + layer) WaveLayer{};
  }
  wavefront(plan.threads, progress, plan.p.L, blocks, [&](int64_t layer, int64_t block) {
    ForwardArgs args = memory.calls[layer].args;
    args.begin = block * steps;
    if (block + 1 < blocks) args.end = args.begin + steps;
    kernel(args);
    if (block + 1 == blocks) finish_forward(plan, a, memory, layer, 0, memory.calls[layer]);
  });
}

}  // namespace

void run_pack(const Plan& plan, const void* weights, void* packed, void* packed_backward) noexcept {
  // About a cycle an element: 2^16 of them are 20 microseconds, less is not worth a second thread.
  const bool large = plan.weight_elements(0) >= (int64_t{1} << 16);
  const int64_t threads = large ? plan.wanted_threads : 1;
  parallel(static_cast<int>(threads), plan.p.L * plan.p.D * threads, [&](int64_t i) {
    const int64_t layer = i / threads / plan.p.D, d = i / threads % plan.p.D;
    PackArgs a = pack_args(plan, weights, layer, d);
    if (packed != nullptr) a.forward = const_cast<char*>(packed_at(plan, packed, layer, d));
    if (packed_backward != nullptr) {
      a.backward_hh = const_cast<char*>(packed_backward_at(plan, packed_backward, layer, d));
      a.backward_ih = bytes(a.backward_hh) + plan.packed_backward_hh(layer) * plan.item;
    }
    plan.kernels->pack(a, i % threads, threads);
  });
}

fastrnn_status run_forward(const Plan& plan, const fastrnn_forward_args& a,
                           const ForwardMemory& memory) noexcept {
  Arena kept(a.tape);
  const fastrnn_status status = check_rows(plan.p, rows_in(a), memory.sequence);
  if (status != FASTRNN_OK) return status;
  const TapeMemory all = tape_memory(plan, kept);
  const TapeMemory* tape = a.tape != nullptr ? &all : nullptr;
  std::memset(memory.zero, 0, size_of(memory.zero_bytes));
  // Dropout's masked copy of what enters a layer is one buffer for all layers.
  const bool wave = plan.wavefront && a.dropout == nullptr;
  const Sequence seq = begin_sequence(plan.p, rows_in(a), memory.sequence);
  const ForwardKernel kernel = tape != nullptr ? plan.kernels->forward_tape : plan.kernels->forward;
  (wave ? forward_wave : forward_layers)(plan, a, memory, tape, seq, kernel);
  return FASTRNN_OK;
}

}  // namespace fastrnn
