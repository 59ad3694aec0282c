// What the forward and the backward driver share: where rows, states, weights and masks lie in the caller's arrays.
#pragma once

#include <cstring>

#include "fastrnn/fastrnn.h"
#include "fpmode.hpp"
#include "memory.hpp"

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

// [T,N,D*H], contiguous.
inline Operand dense(const Plan& plan, const void* base, int64_t column = 0) {
  const int64_t width = plan.p.D * plan.p.H;
  return operand(plan, base, plan.p.N * width, width, column);
}

inline char* at(const Operand& a, int64_t t, int64_t n) { return a.base + t * a.step + n * a.row; }

// Calls body(t, n) for every (t, n) that no direction processes: behind a row's length.
template <class Body>
inline void for_padding(const Plan& plan, const int64_t* lengths, Body body) {
  if (lengths == nullptr) return;
  for (int64_t n = 0; n < plan.p.N; ++n) {
    for (int64_t t = lengths[n]; t < plan.p.T; ++t) body(t, n);
  }
}

inline int64_t count_rows(const Plan& plan, const int64_t* lengths, const uint8_t* mask) {
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
inline void multiply(T* to, const T* a, const T* b, int64_t count) {
  for (int64_t i = 0; i < count; ++i) to[i] = a[i] * b[i];
}
inline void apply_dropout(const Plan& plan, void* to, const void* from, const void* masks,
                          int64_t boundary) {
  const FlushSubnormals flush;
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
inline void begin_states(const Plan& plan, const DirectionForward& state, const void* zero,
                         const void* h0, const void* c0, int64_t begin, int64_t end) {
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

inline void end_states(const Plan& plan, const DirectionForward& state, void* hn, void* cn,
                       int64_t begin, int64_t end) {
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

inline Sequence sequence(const Plan& plan, int64_t d, const int64_t* lengths, const uint8_t* reset,
                         const uint8_t* mask) {
  return {plan.p.T, plan.p.N, d == 1, lengths, reset, mask};
}

// Contiguous shares of [0, count): share i of `shares`.
struct Range {
  int64_t begin, end;
};
inline Range share(int64_t count, int64_t shares, int64_t i) {
  const int64_t small = count / shares, larger = count % shares;
  const int64_t begin = i * small + (i < larger ? i : larger);
  return {begin, begin + small + (i < larger ? 1 : 0)};
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
