// What the forward and the backward driver share: where rows, states, weights and masks lie in the caller's arrays.
#pragma once

#include <cstring>

#include "fastrnn/fastrnn.h"
#include "fpmode.hpp"
#include "memory.hpp"
#include "sequence.hpp"

namespace fastrnn {

inline const char* bytes(const void* p) { return static_cast<const char*>(p); }
inline char* bytes(void* p) { return static_cast<char*>(p); }

inline size_t size_of(int64_t n) { return static_cast<size_t>(n); }

inline Operand operand(const Plan& plan, const void* base, int64_t step, int64_t row,
                       int64_t column = 0) {
  // Kernels write only through operands that were made from pointers to outputs.
  char* start = const_cast<char*>(bytes(base));
  return {start == nullptr ? nullptr : start + column * plan.item, step * plan.item,
          row * plan.item};
}

// One of the caller's arrays; packed ones have one stride, that between rows.
inline Operand given(const Plan& plan, const void* base, int64_t stride_t, int64_t stride_n) {
  return operand(plan, base, stride_t, plan.packed() ? stride_t : stride_n);
}

// [T,N,D*H] or, packed, [rows,D*H], contiguous.
inline Operand dense(const Plan& plan, const void* base, int64_t column = 0) {
  const int64_t width = plan.p.D * plan.p.H;
  return operand(plan, base, plan.packed() ? width : plan.p.N * width, width, column);
}

inline char* at(const Operand& a, const Sequence& seq, int64_t t, int64_t n) {
  return a.base + step_of(seq, t) * a.step + row_of(seq, n) * a.row;
}

// Zeros what no direction writes of one of the caller's arrays, `width` bytes each: what lies behind a row's length.
inline void zero_padding(const Plan& plan, const Sequence& seq, const Operand& a, int64_t width) {
  if (seq.lengths == nullptr || plan.packed()) return;
  if (a.step == width) {  // batch first: a row's padding is one piece
    for (int64_t n = 0; n < seq.N; ++n) {
      const int64_t steps = seq.T - seq.lengths[n];
      if (steps > 0) std::memset(at(a, seq, seq.lengths[n], n), 0, size_of(steps * width));
    }
    return;
  }
  for (int64_t t = 0; t < seq.T; ++t) {
    for (int64_t place = alive_at(seq, t); place < seq.N; ++place)
      std::memset(at(a, seq, t, row_at(seq, place)), 0, size_of(width));
  }
}

// Zeros it where the mask is off.
inline void zero_held(const Sequence& seq, const Operand& a, int64_t width) {
  if (seq.mask == nullptr) return;
  for_rows(seq, [&](int64_t t, int64_t n) {
    if (!is_processed(seq, t, n)) std::memset(at(a, seq, t, n), 0, size_of(width));
  });
}

inline int64_t count_rows(const Sequence& seq) {
  int64_t rows = 0;
  for (int64_t t = 0; t < seq.T; ++t) rows += count_processed(seq, t, 0, alive_at(seq, t));
  return rows;
}

// to = a * b, or to *= b where a is to: dropout masks. `count` elements.
template <class T>
inline void multiply(T* to, const T* a, const T* b, int64_t count) {
  for (int64_t i = 0; i < count; ++i) to[i] = a[i] * b[i];
}
inline void apply_dropout(const Plan& plan, const Sequence& seq, void* to, const void* from,
                          const void* masks, int64_t boundary) {
  const FlushSubnormals flush;
  const int64_t width = plan.p.D * plan.p.H, count = plan.rows() * width;
  const char* mask = bytes(masks) + boundary * count * plan.item;
  const auto part = [&](int64_t first, int64_t length) {
    const int64_t at = first * plan.item;
    if (plan.p.dtype == FASTRNN_F32) {
      multiply(reinterpret_cast<float*>(bytes(to) + at),
               reinterpret_cast<const float*>(bytes(from) + at),
               reinterpret_cast<const float*>(mask + at), length);
    } else {
      multiply(reinterpret_cast<double*>(bytes(to) + at),
               reinterpret_cast<const double*>(bytes(from) + at),
               reinterpret_cast<const double*>(mask + at), length);
    }
  };
  if (seq.lengths == nullptr || plan.packed()) {
    part(0, count);
  } else {
    for_rows(seq, [&](int64_t t, int64_t n) { part((t * seq.N + n) * width, width); });
  }
}

// The state of places [begin, end) before the first step: h where the caller has it, c in padded rows of our own.
inline void begin_states(const Plan& plan, const Sequence& seq, const DirectionForward& state,
                         const void* zero, const void* h0, const void* c0, int64_t begin,
                         int64_t end) {
  const int64_t row = plan.p.H * plan.item, padded = plan.layout(0, 0).hidden_padded * plan.item;
  for (int64_t place = begin; place < end; ++place) {
    const int64_t given = row_at(seq, place) * row;
    state.h_of[place] = h0 == nullptr ? zero : bytes(h0) + given;
    if (!plan.has_c) continue;
    char* c = bytes(state.c) + place * padded;
    if (c0 != nullptr) {
      std::memcpy(c, bytes(c0) + given, size_of(row));
      std::memset(c + row, 0, size_of(padded - row));
    }
    state.c_of[place] = c0 == nullptr ? zero : c;
  }
}

inline void end_states(const Plan& plan, const Sequence& seq, const DirectionForward& state,
                       void* hn, void* cn, int64_t begin, int64_t end) {
  const int64_t row = plan.p.H * plan.item;
  for (int64_t place = begin; place < end; ++place) {
    const int64_t to = row_at(seq, place) * row;
    if (hn != nullptr) std::memmove(bytes(hn) + to, state.h_of[place], size_of(row));
    if (cn != nullptr && plan.has_c) std::memmove(bytes(cn) + to, state.c_of[place], size_of(row));
  }
}

// What a direction of a layer sees of an array [L*D,N,H].
template <class P>
P* state_at(const Plan& plan, P* base, int64_t layer, int64_t d) {
  return base == nullptr ? nullptr
                         : bytes(base) + (layer * plan.p.D + d) * plan.p.N * plan.p.H * plan.item;
}

// What a direction of a layer sees of a call's recurrent dropout and zoneout; the rest is the caller's. args: forward's or
// backward's.
template <class Args>
Regular regular_of(const Plan& plan, const Args& args, int64_t layer, int64_t d) {
  Regular out{};
  out.mask = bytes(state_at(plan, args.recurrent_dropout, layer, d));
  out.mask_row = plan.p.H * plan.item;
  out.row = plan.layout(layer, 0).hidden_padded * plan.item;
  const int64_t at = (layer * plan.p.D + d) * args.zoneout_k;
  out.zone_h = operand(plan, args.zoneout_h, args.zoneout_t, args.zoneout_n, at);
  if (plan.has_c) out.zone_c = operand(plan, args.zoneout_c, args.zoneout_t, args.zoneout_n, at);
  return out;
}

inline Sequence direction_of(const Sequence& forward, int64_t d) {
  Sequence seq = forward;
  seq.reverse = d == 1;
  return seq;
}

// PyTorch's weights of a direction, or their gradients: weight_ih [G*H,I], weight_hh [G*H,H], biases.
template <class P>
auto weights_at(const Plan& plan, P* base, int64_t layer, int64_t d) {
  return bytes(base) +
         plan.item * plan.offset(layer, d, [&](int64_t l) { return plan.weight_elements(l); });
}
inline int64_t input_weights_bytes(const Plan& plan, int64_t layer) {
  return plan.gates * plan.p.H * plan.layer_input(layer) * plan.item;
}

inline const char* packed_at(const Plan& plan, const void* packed, int64_t layer, int64_t d) {
  return bytes(packed) +
         plan.item * plan.offset(layer, d, [&](int64_t l) { return plan.packed_elements(l); });
}
inline const char* packed_backward_at(const Plan& plan, const void* packed, int64_t layer,
                                      int64_t d) {
  const auto both = [&](int64_t l) {
    return plan.packed_backward_hh(l) + plan.packed_backward_ih(l);
  };
  return bytes(packed) + plan.item * plan.offset(layer, d, both);
}

}  // namespace fastrnn
