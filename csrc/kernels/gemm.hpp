// Products on register tiles: everything in this library that multiplies matrices ends in the two loops below.
//
//   accumulate        acc[r][s] += a_r[k] * w[k][j]        rows broadcast, a panel of weights streamed, k = 0, 1, 2, ...
//   accumulate_outer  acc[i][j] += a_r[i] * g[r][j]        the same with r as the long axis (weight gradients)
//
//   a panel [K][NV][VL]:   k=0 | w0 w1 w2 w3 | k=1 | w0 w1 w2 w3 | ...   one contiguous stream, NV vectors a k
//   tile MR x NV:          MR*NV accumulators, MR rows of a broadcast, one weight vector at a time
//
// Tile geometry: AVX-512 and AArch64 (32 registers) 6x4: 24 accumulators + 4 weights + 1 broadcast. x86 with 16 registers
// 3x4: 12 accumulators + 3 broadcasts + 1 weight, exactly 16. Both keep the fused multiply-adds busy: MR*NV >= latency (4) x
// throughput (2). Measured on Zen 4: 6x64 98 % of the FMA peak with weights in L2, 95 % in L1.
//
// One accumulator an output and k in ascending order, whatever MR: a row's result does not depend on how rows are blocked.
// Called by seq_forward.hpp, seq_backward.hpp, gradients.hpp.
#pragma once

#include "../types.hpp"
#include "vec.hpp"

namespace fastrnn::FR_ISA {
namespace {

constexpr int tile_rows = vector_registers == 32 ? 6 : 3;

template <int N>
struct Int {
  static constexpr int value = N;
};

// Which accumulator column each vector of a panel feeds: GRU's hidden panel r z n feeds columns 0 1 3.
template <int... S>
struct Slots {
  static constexpr int count = static_cast<int>(sizeof...(S));
  static constexpr int at[sizeof...(S)] = {S...};
};

template <class T, class S, int MR, int A>
FR_INLINE void accumulate(Vec<T> (&acc)[MR][A], const T* const (&a)[MR], const T* w, int64_t K) {
  constexpr int VL = lanes<T>;
  for (int64_t k = 0; k < K; ++k, w += S::count * VL) {
    if constexpr (vector_registers == 32) {
      Vec<T> panel[S::count];
#pragma GCC unroll 8
      for (int j = 0; j < S::count; ++j) {
        panel[j] = load(w + j * VL);
        keep(panel[j]);
      }
#pragma GCC unroll 8
      for (int r = 0; r < MR; ++r) {
        Vec<T> b = set1(a[r][k]);
        keep(b);
#pragma GCC unroll 8
        for (int j = 0; j < S::count; ++j) acc[r][S::at[j]] = fma(b, panel[j], acc[r][S::at[j]]);
      }
    } else {
      Vec<T> b[MR];
#pragma GCC unroll 8
      for (int r = 0; r < MR; ++r) {
        b[r] = set1(a[r][k]);
        keep(b[r]);
      }
#pragma GCC unroll 8
      for (int j = 0; j < S::count; ++j) {
        Vec<T> v = load(w + j * VL);
        keep(v);
#pragma GCC unroll 8
        for (int r = 0; r < MR; ++r) acc[r][S::at[j]] = fma(b[r], v, acc[r][S::at[j]]);
      }
    }
  }
}

// a: [count] -> row, read at column.. column+MC-1; g: [count][stride], its vectors S.
template <class T, class S, int MC>
FR_INLINE void accumulate_outer(Vec<T> (&acc)[MC][S::count], const void* const* a, int64_t column,
                                const T* g, int64_t stride, int64_t count) {
  constexpr int VL = lanes<T>;
  for (int64_t r = 0; r < count; ++r, g += stride) {
    const T* row = static_cast<const T*>(a[r]) + column;
    if constexpr (vector_registers == 32) {
      Vec<T> v[S::count];
#pragma GCC unroll 8
      for (int j = 0; j < S::count; ++j) {
        v[j] = load(g + S::at[j] * VL);
        keep(v[j]);
      }
#pragma GCC unroll 8
      for (int i = 0; i < MC; ++i) {
        Vec<T> b = set1(row[i]);
        keep(b);
#pragma GCC unroll 8
        for (int j = 0; j < S::count; ++j) acc[i][j] = fma(b, v[j], acc[i][j]);
      }
    } else {
      Vec<T> b[MC];
#pragma GCC unroll 8
      for (int i = 0; i < MC; ++i) {
        b[i] = set1(row[i]);
        keep(b[i]);
      }
#pragma GCC unroll 8
      for (int j = 0; j < S::count; ++j) {
        Vec<T> v = load(g + S::at[j] * VL);
        keep(v);
#pragma GCC unroll 8
        for (int i = 0; i < MC; ++i) acc[i][j] = fma(b[i], v, acc[i][j]);
      }
    }
  }
}

// Calls body(Int<MR>, first) over [begin, end) in blocks of at most tile_rows, as equal as they can be: 8 rows are 4+4 and 13
// are 5+4+4, since a last block of one row would run at the speed of a matrix-vector product. Least 2: it is never called for one
// row alone.
template <int Least = 1, class Body>
FR_INLINE void for_row_blocks(int64_t begin, int64_t end, Body body) {
  const int64_t rows = end - begin;
  if (rows <= 0) return;
  const int64_t blocks = (rows + tile_rows - 1) / tile_rows;
  const int64_t small = rows / blocks, larger = rows % blocks;
  int64_t first = begin;
  for (int64_t i = 0; i < blocks; ++i) {
    const int64_t size = small + (i < larger ? 1 : 0);
    switch (size) {
      case 1:
        if constexpr (Least <= 1) body(Int<1>{}, first);
        break;
      case 2:
        body(Int<2>{}, first);
        break;
      case 3:
        body(Int<3>{}, first);
        break;
      case 4:
        if constexpr (tile_rows >= 4) body(Int<4>{}, first);
        break;
      case 5:
        if constexpr (tile_rows >= 5) body(Int<5>{}, first);
        break;
      default:
        if constexpr (tile_rows >= 6) body(Int<6>{}, first);
        break;
    }
    first += size;
  }
}

// Calls body(Int<NV>) with the vectors that are left for this panel of at most four.
template <class Body>
FR_INLINE void with_vectors(int64_t vectors, Body body) {
  switch (vectors) {
    case 1:
      body(Int<1>{});
      break;
    case 2:
      body(Int<2>{});
      break;
    case 3:
      body(Int<3>{});
      break;
    default:
      body(Int<4>{});
      break;
  }
}

FR_INLINE int64_t min_of(int64_t a, int64_t b) { return a < b ? a : b; }

template <int NV>
struct FirstSlots;
template <>
struct FirstSlots<1> : Slots<0> {
  using Plain = Slots<0>;
};
template <>
struct FirstSlots<2> : Slots<0, 1> {
  using Plain = Slots<0, 1>;
};
template <>
struct FirstSlots<3> : Slots<0, 1, 2> {
  using Plain = Slots<0, 1, 2>;
};
template <>
struct FirstSlots<4> : Slots<0, 1, 2, 3> {
  using Plain = Slots<0, 1, 2, 3>;
};

}  // namespace
}  // namespace fastrnn::FR_ISA
