#include "driver.hpp"

#include <cstring>

#include "rows.hpp"
#include "threads.hpp"

namespace fastrnn {
namespace {

const char* bytes(const void* p) { return static_cast<const char*>(p); }
char* bytes(void* p) { return static_cast<char*>(p); }

size_t size_of(int64_t n) { return static_cast<size_t>(n); }

Operand operand(const Plan& plan, const void* base, int64_t step, int64_t row, int64_t column = 0) {
  // Kernels write only through operands that were made from pointers to outputs.
  char* start = const_cast<char*>(bytes(base));
  return {start == nullptr ? nullptr : start + column * plan.item, step * plan.item,
          row * plan.item};
}

// [T,N,D*H], contiguous.
Operand dense(const Plan& plan, const void* base, int64_t column = 0) {
  const int64_t width = plan.p.D * plan.p.H;
  return operand(plan, base, plan.p.N * width, width, column);
}

char* at(const Operand& a, int64_t t, int64_t n) { return a.base + t * a.step + n * a.row; }

// Calls body(t, n) for every (t, n) that no direction processes: behind a row's length.
template <class Body>
void for_padding(const Plan& plan, const int64_t* lengths, Body body) {
  if (lengths == nullptr) return;
  for (int64_t n = 0; n < plan.p.N; ++n) {
    for (int64_t t = lengths[n]; t < plan.p.T; ++t) body(t, n);
  }
}

int64_t count_rows(const Plan& plan, const int64_t* lengths, const uint8_t* mask) {
  int64_t rows = 0;
  for (int64_t n = 0; n < plan.p.N; ++n) {
    const int64_t length = lengths != nullptr ? lengths[n] : plan.p.T;
    if (mask == nullptr) {
      rows += length;
    } else {
      for (int64_t t = 0; t < length; ++t) rows += mask[t * plan.p.N + n] != 0 ? 1 : 0;
    }
  }
  return rows;
}

// to = a * b, or to *= b where a is to: dropout masks. `count` elements.
template <class T>
void multiply(T* to, const T* a, const T* b, int64_t count) {
  for (int64_t i = 0; i < count; ++i) to[i] = a[i] * b[i];
}
void apply_dropout(const Plan& plan, void* to, const void* from, const void* masks,
                   int64_t boundary) {
  const int64_t count = plan.p.T * plan.p.N * plan.p.D * plan.p.H;
  const char* mask = bytes(masks) + boundary * count * plan.item;
  if (plan.p.dtype == FASTRNN_F32) {
    multiply(static_cast<float*>(to), static_cast<const float*>(from),
             reinterpret_cast<const float*>(mask), count);
  } else {
    multiply(static_cast<double*>(to), static_cast<const double*>(from),
             reinterpret_cast<const double*>(mask), count);
  }
}

// The state of rows [begin, end) before the first step: h where the caller has it, c in padded rows of our own.
void begin_states(const Plan& plan, const DirectionForward& state, const void* zero, const void* h0,
                  const void* c0, int64_t begin, int64_t end) {
  const int64_t row = plan.p.H * plan.item, padded = plan.layout(0, 0).hidden_padded * plan.item;
  for (int64_t n = begin; n < end; ++n) {
    state.h_of[n] = h0 == nullptr ? zero : bytes(h0) + n * row;
    if (!plan.has_c) continue;
    char* c = bytes(state.c) + n * padded;
    if (c0 != nullptr) {
      std::memcpy(c, bytes(c0) + n * row, size_of(row));
      std::memset(c + row, 0, size_of(padded - row));
    }
    state.c_of[n] = c0 == nullptr ? zero : c;
  }
}

void end_states(const Plan& plan, const DirectionForward& state, void* hn, void* cn, int64_t begin,
                int64_t end) {
  const int64_t row = plan.p.H * plan.item;
  for (int64_t n = begin; n < end; ++n) {
    if (hn != nullptr) std::memmove(bytes(hn) + n * row, state.h_of[n], size_of(row));
    if (cn != nullptr && plan.has_c) std::memmove(bytes(cn) + n * row, state.c_of[n], size_of(row));
  }
}

// What a direction of a layer sees of an array [L*D,N,H].
template <class P>
P* state_at(const Plan& plan, P* base, int64_t layer, int64_t d) {
  return base == nullptr ? nullptr
                         : bytes(base) + (layer * plan.p.D + d) * plan.p.N * plan.p.H * plan.item;
}

Sequence sequence(const Plan& plan, int64_t d, const int64_t* lengths, const uint8_t* reset,
                  const uint8_t* mask) {
  return {plan.p.T, plan.p.N, d == 1, lengths, reset, mask};
}

// Contiguous shares of [0, count): share i of `shares`.
struct Range {
  int64_t begin, end;
};
Range share(int64_t count, int64_t shares, int64_t i) {
  const int64_t small = count / shares, larger = count % shares;
  const int64_t begin = i * small + (i < larger ? i : larger);
  return {begin, begin + small + (i < larger ? 1 : 0)};
}

const char* packed_at(const Plan& plan, const void* packed, int64_t layer, int64_t d) {
  return bytes(packed) +
         plan.item * plan.offset(layer, d, [&](int64_t l) { return plan.packed_elements(l); });
}
const char* packed_backward_at(const Plan& plan, const void* packed, int64_t layer, int64_t d) {
  const auto both = [&](int64_t l) {
    return plan.packed_backward_hh(l) + plan.packed_backward_ih(l);
  };
  return bytes(packed) + plan.item * plan.offset(layer, d, both);
}

// One layer of a forward call: where it reads and writes.
struct LayerForward {
  int64_t layer, rows;  // R
  Operand x, y;         // y: column 0 of the first direction
};

// What one call of the forward kernel needs; lives while its tasks run.
struct ForwardCall {
  RowSource source;
  ForwardArgs args;
};

void prepare_forward(const Plan& plan, const fastrnn_forward_args& a, const ForwardMemory& memory,
                     const TapeMemory* tape, const LayerForward& io, int64_t d, int64_t slice,
                     ForwardCall& call) {
  const Range rows = share(plan.p.N, plan.slices, slice);
  const DirectionForward& state = memory.direction[d];
  const void* h0 = state_at(plan, a.h0, io.layer, d);
  const void* c0 = state_at(plan, a.c0, io.layer, d);
  begin_states(plan, state, memory.zero, h0, c0, rows.begin, rows.end);

  RowSource& source = call.source;
  ForwardArgs& f = call.args;
  source = {};
  f = {};
  f.layout = plan.layout(io.layer, io.rows);
  f.activation = static_cast<Activation>(plan.p.activation);
  source.seq = sequence(plan, d, a.lengths, a.reset, a.mask);
  source.n_begin = rows.begin;
  source.n_end = rows.end;
  source.x = io.x;
  source.y = io.y;
  if (source.y.base != nullptr) source.y.base += d * plan.p.H * plan.item;
  source.h_of = state.h_of;
  source.c_of = state.c_of;
  source.zero = memory.zero;
  source.c = bytes(state.c);
  source.c_row = f.layout.hidden_padded * plan.item;
  if (tape != nullptr) {
    const DirectionTape kept = tape->at(plan, io.layer, d);
    f.gates = kept.gates;
    source.c = bytes(kept.c);
    source.c_by_row = true;
  }
  f.rows = &source;
  f.chunk = plan.chunk_steps(io.layer);
  f.tables = row_tables_in(bytes(memory.tables[d]) + slice * memory.table_bytes,
                           f.chunk * (rows.end - rows.begin), f.chunk, true);
  f.packed = packed_at(plan, a.packed, io.layer, d);
  if (plan.projects(io.layer))
    f.projection = bytes(memory.projection[d]) + slice * memory.projection_bytes;
  f.scratch = bytes(memory.scratch[d]) + slice * memory.scratch_bytes;
  f.team = {0, 1, nullptr};
}

void finish_forward(const Plan& plan, const fastrnn_forward_args& a, const ForwardMemory& memory,
                    int64_t layer, int64_t d, const RowSource& source) {
  void* hn = state_at(plan, a.hn, layer, d);
  void* cn = state_at(plan, a.cn, layer, d);
  end_states(plan, memory.direction[d], hn, cn, source.n_begin, source.n_end);
}

void forward_layer(const Plan& plan, const fastrnn_forward_args& a, const ForwardMemory& memory,
                   const TapeMemory* tape, const LayerForward& io) {
  const auto kernel = tape != nullptr ? plan.kernels->forward_tape : plan.kernels->forward;
  if (plan.hidden_split) {
    for (int64_t d = 0; d < plan.p.D; ++d) {
      ForwardCall call;
      prepare_forward(plan, a, memory, tape, io, d, 0, call);
      team(plan.threads, [&](int member, int size, Barrier& barrier) {
        ForwardArgs mine = call.args;
        mine.team = {member, size, &barrier};
        kernel(mine);
      });
      finish_forward(plan, a, memory, io.layer, d, call.source);
    }
    return;
  }
  parallel(plan.threads, plan.p.D * plan.slices, [&](int64_t i) {
    ForwardCall call;
    const int64_t d = i / plan.slices, slice = i % plan.slices;
    prepare_forward(plan, a, memory, tape, io, d, slice, call);
    kernel(call.args);
    finish_forward(plan, a, memory, io.layer, d, call.source);
  });
}

}  // namespace

void run_pack(const Plan& plan, const void* weights, void* packed, void* packed_backward) noexcept {
  const int64_t G_H = plan.gates * plan.p.H;
  // About a cycle an element: 2^16 of them are 20 microseconds, less is not worth a second thread.
  const bool large = plan.weight_elements(0) >= (int64_t{1} << 16);
  const int64_t threads = large && plan.p.threads > 1 ? plan.p.threads : 1;
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
    parallel(1, 1, [&](int64_t) { apply_dropout(plan, memory.dropped, y, a.dropout, io.layer); });
    io.x = dense(plan, memory.dropped);
  }
}

namespace {

struct LayerBackward {
  int64_t layer, rows;
  Operand x, y, dy, dx;  // absent: base null
};

void begin_gradients(const Plan& plan, const void* from, void* to, int64_t padded) {
  if (to == nullptr) return;
  const int64_t row = plan.p.H * plan.item;
  for (int64_t n = 0; n < plan.p.N; ++n) {
    char* r = bytes(to) + n * padded;
    std::memset(r, 0, size_of(padded));
    if (from != nullptr) std::memcpy(r, bytes(from) + n * row, size_of(row));
  }
}

void end_gradients(const Plan& plan, const void* from, void* to, int64_t padded) {
  if (to == nullptr || from == nullptr) return;
  const int64_t row = plan.p.H * plan.item;
  for (int64_t n = 0; n < plan.p.N; ++n)
    std::memcpy(bytes(to) + n * row, bytes(from) + n * padded, size_of(row));
}

// One direction of a layer's backward pass; its tables, over all steps, serve the time loop and the products after it.
struct BackwardCall {
  RowSource source;
  BackwardArgs args;
};

void prepare_backward(const Plan& plan, const fastrnn_backward_args& a,
                      const BackwardMemory& memory, const TapeMemory& tape, const LayerBackward& io,
                      int64_t d, BackwardCall& call) {
  const DirectionForward& state = memory.direction[d];
  const DirectionTape kept = tape.at(plan, io.layer, d);
  begin_states(plan, state, memory.zero, state_at(plan, a.h0, io.layer, d),
               state_at(plan, a.c0, io.layer, d), 0, plan.p.N);
  RowSource& source = call.source;
  BackwardArgs& b = call.args;
  source = {};
  b = {};
  b.layout = plan.layout(io.layer, io.rows);
  b.activation = static_cast<Activation>(plan.p.activation);
  const int64_t column = d * plan.p.H * plan.item;
  source.seq = sequence(plan, d, a.lengths, a.reset, a.mask);
  source.n_end = plan.p.N;
  source.x = io.x;
  source.y = io.y;
  source.y.base += column;
  source.dy = io.dy;
  if (source.dy.base != nullptr) source.dy.base += column;
  source.dx = io.dx;
  source.h_of = state.h_of;
  source.c_of = state.c_of;
  source.zero = memory.zero;
  source.c = bytes(kept.c);
  source.c_row = b.layout.hidden_padded * plan.item;
  source.c_by_row = true;
  b.tables = row_tables_in(memory.tables[d], plan.p.T * plan.p.N, plan.p.T, true);
  build_rows(source, 0, plan.p.T, b.tables);

  b.rows = &source;
  b.packed = packed_backward_at(plan, a.packed_backward, io.layer, d);
  b.gates = kept.gates;
  b.dgates = memory.dgates[d] != nullptr ? memory.dgates[d] : kept.gates;
  b.dh = memory.dh[d];
  b.dc = memory.dc[d];
  b.rh = memory.rh[d];
  b.drh = memory.drh[d];
  b.last_product = a.dh0 != nullptr || a.dc0 != nullptr;
  b.n_end = plan.p.N;
  b.team = {0, 1, nullptr};
  begin_gradients(plan, state_at(plan, a.dhn, io.layer, d), b.dh, source.c_row);
  begin_gradients(plan, state_at(plan, a.dcn, io.layer, d), b.dc, source.c_row);
}

// The time loops: by a team, or by slices of the batch.
void backward_steps(const Plan& plan, const BackwardCall* calls) {
  if (plan.hidden_split) {
    for (int64_t d = 0; d < plan.p.D; ++d) {
      team(plan.threads, [&](int member, int size, Barrier& barrier) {
        BackwardArgs mine = calls[d].args;
        mine.team = {member, size, &barrier};
        plan.kernels->backward(mine);
      });
    }
    return;
  }
  parallel(plan.threads, plan.p.D * plan.slices, [&](int64_t i) {
    BackwardArgs mine = calls[i / plan.slices].args;
    const Range rows = share(plan.p.N, plan.slices, i % plan.slices);
    mine.n_begin = rows.begin;
    mine.n_end = rows.end;
    plan.kernels->backward(mine);
  });
}

// Shares of a product over `count` tiles: a few for each thread, so that they can be claimed, but none so small that the
// weights it streams are used less than `least` times.
int64_t product_shares(const Plan& plan, int64_t count, int64_t least) {
  if (plan.threads == 1) return 1;
  const int64_t shares = 4 * int64_t{plan.threads}, most = count / least;
  return most < 1 ? 1 : most < shares ? most : shares;
}

void weight_gradients(const Plan& plan, const fastrnn_backward_args& a,
                      const BackwardMemory& memory, const LayerBackward& io,
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
    g.h = b.tables.h;
    g.rh = b.rh;
    g.panels = memory.panels[d];
    char* dw = bytes(a.dweights) + plan.item * plan.offset(io.layer, d, [&](int64_t l) {
      return plan.weight_elements(l);
    });
    g.dw_ih = dw;
    g.dw_hh = dw + G_H * g.layout.I * plan.item;
    if (plan.p.bias != 0) {
      g.db_ih = bytes(g.dw_hh) + G_H * plan.p.H * plan.item;
      g.db_hh = bytes(g.db_ih) + G_H * plan.item;
    }
    g.accumulate = a.accumulate != 0;
    const Range panels = share(g.layout.panels, shares, i % shares);
    plan.kernels->weight_grad(g, panels.begin, panels.end);
  });
}

// Directions one after the other: the second adds to what the first wrote.
void input_gradients(const Plan& plan, const fastrnn_backward_args& a, const LayerBackward& io,
                     const BackwardCall* calls) {
  for (int64_t d = 0; d < plan.p.D; ++d) {
    const BackwardArgs& b = calls[d].args;
    InputGradArgs g{};
    g.layout = b.layout;
    g.packed = packed_backward_at(plan, a.packed_backward, io.layer, d) +
               plan.packed_backward_hh(io.layer) * plan.item;
    g.dgates = b.dgates;
    g.dx = b.tables.dx;
    g.accumulate = d > 0;
    const int64_t shares = product_shares(plan, io.rows, 48);
    parallel(plan.threads, shares, [&](int64_t i) {
      const Range rows = share(io.rows, shares, i);
      plan.kernels->input_grad(g, rows.begin, rows.end);
    });
  }
}

void backward_layer(const Plan& plan, const fastrnn_backward_args& a, const BackwardMemory& memory,
                    const TapeMemory& tape, const LayerBackward& io) {
  BackwardCall calls[2];
  parallel(plan.threads, plan.p.D,
           [&](int64_t d) { prepare_backward(plan, a, memory, tape, io, d, calls[d]); });
  backward_steps(plan, calls);
  for (int64_t d = 0; d < plan.p.D; ++d) {
    const BackwardArgs& b = calls[d].args;
    end_gradients(plan, b.dh, state_at(plan, a.dh0, io.layer, d), calls[d].source.c_row);
    end_gradients(plan, b.dc, state_at(plan, a.dc0, io.layer, d), calls[d].source.c_row);
  }
  if (a.dweights != nullptr) weight_gradients(plan, a, memory, io, calls);
  if (io.dx.base != nullptr) input_gradients(plan, a, io, calls);
}

}  // namespace

void run_backward(const Plan& plan, const fastrnn_backward_args& a) noexcept {
  Arena workspace(a.workspace), kept(a.tape);
  const BackwardMemory memory = backward_memory(plan, workspace);
  const TapeMemory tape = tape_memory(plan, kept);
  std::memset(memory.zero, 0, size_of(memory.zero_bytes));
  const int64_t last = plan.p.L - 1, width = plan.p.D * plan.p.H * plan.item;

  LayerBackward io{};
  io.rows = count_rows(plan, a.lengths, a.mask);
  io.dy = operand(plan, a.dy, a.dy_t, a.dy_n);
  for (io.layer = last; io.layer >= 0; --io.layer) {
    const bool first = io.layer == 0;
    io.y =
        io.layer == last ? operand(plan, a.y, a.y_t, a.y_n) : dense(plan, tape.y(plan, io.layer));
    void* below = first ? nullptr : tape.y(plan, io.layer - 1);
    void* dbelow = first ? nullptr : memory.dys[(io.layer - 1) & 1];
    io.x = first ? operand(plan, a.x, a.x_t, a.x_n) : dense(plan, below);
    io.dx = first ? operand(plan, a.dx, a.dx_t, a.dx_n) : dense(plan, dbelow);
    if (!first && a.dropout != nullptr) {
      parallel(1, 1, [&](int64_t) {
        apply_dropout(plan, memory.dropped, below, a.dropout, io.layer - 1);
      });
      io.x = dense(plan, memory.dropped);
    }
    if (io.dx.base != nullptr && (a.lengths != nullptr || a.mask != nullptr)) {
      const size_t row = size_of(first ? plan.p.I * plan.item : width);
      for (int64_t t = 0; t < plan.p.T; ++t) {
        for (int64_t n = 0; n < plan.p.N; ++n) std::memset(at(io.dx, t, n), 0, row);
      }
    }
    backward_layer(plan, a, memory, tape, io);
    if (first) break;
    if (a.dropout != nullptr) {
      parallel(1, 1,
               [&](int64_t) { apply_dropout(plan, dbelow, dbelow, a.dropout, io.layer - 1); });
    }
    io.dy = dense(plan, dbelow);
  }
}

}  // namespace fastrnn
