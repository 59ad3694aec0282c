// The products of backward where rows are so few that packing the weights for them, or transposing their gradients, would cost
// more than the products: on PyTorch's [G*H,K] as it lies.
//
//   dh = dG U, dx = dG W      dG of one row [k] x rows k of the weights, eight at a time: each is read from end to end, and the
//                             sums [1024] of a part of the columns go through L1 once for eight rows
//   dW = dG^T x               tile MR rows of dW x 4 vectors of K, over the rows of x; written where it belongs
//
// Registers: 8 broadcasts and 4 sums; MR x 4 sums, 4 vectors of x, 1 broadcast. k and rows go in the order of seq_backward.hpp
// and gradients.hpp, one accumulator an output: the bits are theirs, so that which way is taken may depend on T and N.
// Called by seq_backward.hpp and gradients.hpp.
#pragma once

#include "panel.hpp"

namespace fastrnn::FR_ISA {
namespace {

// Which vectors of dG's panels take part in a product, in the order of the packed weights' rows.
template <class T>
struct GateView {
  const T* base;  // [panels][R][width]
  int64_t R, H;
  int64_t unit_panel;  // hidden units of a panel
  bool interleaved;    // width 4*VL, a gate every VL; otherwise (RNN) as wide as the panel's units
  int runs;            // runs of adjacent gates
  int slot[2], gates[2];
};

constexpr int rows_together = 8;  // 4 KB of sums cost a load and a store for eight rows
constexpr int64_t sums_part = 1024;

// sums[c] += sum over i < G of a[i] * w[i][c]; sums are padded, rows of w K apart.
template <class T, int G>
FR_TILE void add_weight_rows(T* sums, const T* a, const T* w, int64_t K, int64_t columns) {
  constexpr int VL = lanes<T>;
  Vec<T> b[G];
#pragma GCC unroll 8
  for (int i = 0; i < G; ++i) b[i] = set1(a[i]);
  int64_t c = 0;
  for (; c + 4 * VL <= columns; c += 4 * VL) {
    Vec<T> acc[4];
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) acc[j] = load(sums + c + j * VL);
#pragma GCC unroll 8
    for (int i = 0; i < G; ++i) {
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) acc[j] = fma(b[i], load(w + i * K + c + j * VL), acc[j]);
    }
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) store(sums + c + j * VL, acc[j]);
  }
  for (; c < columns; c += VL) {
    Vec<T> acc = load(sums + c);
#pragma GCC unroll 8
    for (int i = 0; i < G; ++i) acc = fma(b[i], load_n(w + i * K + c, columns - c), acc);
    store(sums + c, acc);
  }
}

// sums [columns, padded] += dG of one row times columns of w [gates*H,K]; w begins at the first of them.
template <class T>
FR_INLINE void multiply_weight_rows(T* sums, const GateView<T>& g, int64_t row, const T* w,
                                    int64_t K, int64_t columns) {
  constexpr int VL = lanes<T>;
  for (int64_t unit = 0; unit < g.H; unit += g.unit_panel) {
    const int64_t valid = min_of(g.unit_panel, g.H - unit);
    const int64_t stride = g.interleaved ? 4 * VL : (valid + VL - 1) / VL * VL;
    const T* dg = g.base + unit / g.unit_panel * g.R * 4 * VL + row * stride;
    int64_t gate = 0;
    for (int i = 0; i < g.runs; ++i) {
      for (int j = 0; j < g.gates[i]; ++j, ++gate) {
        const T* a = dg + (g.slot[i] + j) * VL;
        const T* from = w + (gate * g.H + unit) * K;
        int64_t v = 0;
        for (; v + rows_together <= valid; v += rows_together)
          add_weight_rows<T, rows_together>(sums, a + v, from + v * K, K, columns);
        for (; v < valid; ++v) add_weight_rows<T, 1>(sums, a + v, from + v * K, K, columns);
      }
    }
  }
}

// Calls body(first column, columns, sums) for parts of a range of columns of dG[row] w; begin(column, sums) sets where they start.
template <class T, class Begin, class Body>
FR_INLINE void unpacked_product(const GateView<T>& g, int64_t row, const T* w, int64_t K,
                                Range columns, Begin begin, Body body) {
  alignas(vector_bytes) T sums[sums_part];
  for (int64_t column = columns.begin; column < columns.end; column += sums_part) {
    const int64_t count = min_of(sums_part, columns.end - column);
    begin(column, count, sums);
    multiply_weight_rows<T>(sums, g, row, w + column, K, count);
    body(column, count, sums);
  }
}

// Bound by the way of dW to memory, so its loop is not among those that check_tiles.py counts.
// to [MR rows K apart][NV*VL] (= or +=) sum over `count` rows of g[r][i] * x[r][column ..]; the last vector has `left` lanes.
template <class T, int MR, int NV>
FR_TILE void weight_rows_block(T* to, int64_t K, const void* const* x, int64_t column, int64_t left,
                               const T* g, int64_t stride, int64_t count, bool accumulate) {
  constexpr int VL = lanes<T>;
  const int64_t valid = NV == 1 ? left : VL;
  Vec<T> acc[MR][NV] = {};
  for (int64_t r = 0; r < count; ++r, g += stride) {
    const T* row = static_cast<const T*>(x[r]) + column;
    Vec<T> v[NV];
#pragma GCC unroll 4
    for (int j = 0; j < NV; ++j) v[j] = load_n(row + j * VL, valid);
#pragma GCC unroll 8
    for (int i = 0; i < MR; ++i) {
      const Vec<T> b = set1(g[i]);
#pragma GCC unroll 4
      for (int j = 0; j < NV; ++j) acc[i][j] = fma(b, v[j], acc[i][j]);
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < MR; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < NV; ++j) {
      T* at = to + i * K + j * VL;
      store_n(at, accumulate ? load_n(at, valid) + acc[i][j] : acc[i][j], valid);
    }
  }
}

// to [units][K] (= or +=): the gradients of `units` adjacent rows of a weight matrix; g: their dG, `stride` apart.
template <class T>
FR_TILE void weight_rows(T* to, int64_t units, int64_t K, const void* const* x, const T* g,
                         int64_t stride, int64_t count, bool accumulate) {
  constexpr int VL = lanes<T>;
  const auto columns = [&](auto nv, int64_t column) FR_FLAT {
    constexpr int NV = decltype(nv)::value;
    for_row_blocks(0, units, [&](auto mr, int64_t i) FR_FLAT {
      weight_rows_block<T, decltype(mr)::value, NV>(to + i * K + column, K, x, column, K - column,
                                                    g + i, stride, count, accumulate);
    });
  };
  int64_t column = 0;
  for (; column + 4 * VL <= K; column += 4 * VL) columns(Int<4>{}, column);
  for (; column < K; column += VL) columns(Int<1>{}, column);
}

}  // namespace
}  // namespace fastrnn::FR_ISA
