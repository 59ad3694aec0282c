// Transposing between PyTorch's [G*H,K] and the panels' [K][gates][VL]: to[r][c] (= or +=) from[c][r].
//
//   a block of VL x VL elements, VL registers:   for d = VL/2, ..., 1:  rows i and i+d exchange the lanes that differ in bit d
//
//   VL = 4:   a0 a1 a2 a3        a0 a1 c0 c1        a0 b0 c0 d0
//             b0 b1 b2 b3  d=2   b0 b1 d0 d1  d=1   a1 b1 c1 d1
//             c0 c1 c2 c3  -->   a2 a3 c2 c3  -->   a2 b2 c2 d2
//             d0 d1 d2 d3        b2 b3 d2 d3        a3 b3 c3 d3
//
// VL log2(VL) shuffles a block. Element by element, writing the gradients of the weights took 60 % of the time of their
// products where these are short (I=H=256, T*N = 100, Zen 4). Called by gradients.hpp and pack.hpp.
#pragma once

#include "gemm.hpp"

namespace fastrnn::FR_ISA {
namespace {

template <int... L>
struct Lanes {};
template <int N, int... L>
struct FirstLanes : FirstLanes<N - 1, N - 1, L...> {};
template <int... L>
struct FirstLanes<0, L...> {
  using type = Lanes<L...>;
};

template <class V, int D, int VL, int... L>
FR_INLINE void exchange(V& a, V& b, Lanes<L...>) {
  const V low = __builtin_shufflevector(a, b, ((L & D) != 0 ? VL + L - D : L)...);
  b = __builtin_shufflevector(a, b, ((L & D) != 0 ? VL + L : L + D)...);
  a = low;
}

template <class T, int D>
FR_INLINE void exchange_all(Vec<T> (&v)[lanes<T>]) {
  constexpr int VL = lanes<T>;
#pragma GCC unroll 16
  for (int i = 0; i < VL; ++i) {
    if ((i & D) == 0) exchange<Vec<T>, D, VL>(v[i], v[i + D], typename FirstLanes<VL>::type{});
  }
  if constexpr (D > 1) exchange_all<T, D / 2>(v);
}

// VL x VL elements.
template <class T>
FR_TILE void transpose_block(T* to, int64_t to_stride, const T* from, int64_t from_stride,
                             bool add) {
  constexpr int VL = lanes<T>;
  Vec<T> v[VL];
#pragma GCC unroll 16
  for (int i = 0; i < VL; ++i) v[i] = load(from + i * from_stride);
  exchange_all<T, VL / 2>(v);
#pragma GCC unroll 16
  for (int i = 0; i < VL; ++i) {
    T* row = to + i * to_stride;
    store(row, add ? load(row) + v[i] : v[i]);
  }
}

// to [rows][columns] (= or +=) from [columns][rows]: rows of `to` lie to_stride elements apart, rows of `from` from_stride.
template <class T>
void transpose(T* to, int64_t to_stride, const T* from, int64_t from_stride, int64_t rows,
               int64_t columns, bool add) {
  constexpr int64_t VL = lanes<T>;
  for (int64_t r = 0; r < rows; r += VL) {
    for (int64_t c = 0; c < columns; c += VL) {
      T* block = to + r * to_stride + c;
      const T* source = from + c * from_stride + r;
      const int64_t high = min_of(VL, rows - r), wide = min_of(VL, columns - c);
      if (high == VL && wide == VL) {
        transpose_block<T>(block, to_stride, source, from_stride, add);
        continue;
      }
      for (int64_t i = 0; i < high; ++i) {
        for (int64_t j = 0; j < wide; ++j) {
          const T value = source[j * from_stride + i];
          block[i * to_stride + j] = add ? block[i * to_stride + j] + value : value;
        }
      }
    }
  }
}

}  // namespace
}  // namespace fastrnn::FR_ISA
