// Back-propagation through time (Werbos 1990) for one {layer, direction, batch slice}: what must be sequential, and no more.
//
//   for step, last to first:   dh += dy;  the cell's derivatives -> dG, dc, and what of dh bypasses the product (GRU)
//                              dh  = dG U (+ bypass)            rows cut by a reset: dh = dc = 0
//
//   dG   [panels][R][4*VL], the tape's own layout (in place when the tape is consumed); dh, dc [N][Hp] between steps
//   U    panels [q][(p, gate, v)][4*VL], q over hidden columns: the k order of dG, so that rows of dG are broadcast as they lie
//
// dx, dW, dU and the biases wait until dG is complete (gradients.hpp). The product's tile is MR x 4 vectors, as forward.
// Called by the driver through the kernel table.
#pragma once

#include "seq_forward.hpp"

namespace fastrnn::FR_ISA {
namespace {

// Which vectors of dG's panels take part in a product, in the order of the packed weights' rows.
template <class T>
struct GateView {
  const T* base;       // [panels][R][width]
  int64_t R, H;
  int64_t unit_panel;  // hidden units of a panel
  bool interleaved;    // width 4*VL, a gate every VL; otherwise (RNN) as wide as the panel's units
  int count;           // gates
  int slot[4];
};

template <class T>
FR_INLINE GateView<T> view_of(const Layout& layout, const void* dgates, bool interleaved, int first, int count, int last) {
  // Slots first, first+1, ..., but for the last, which GRU's U has elsewhere.
  GateView<T> view{static_cast<const T*>(dgates), layout.rows, layout.H, layout.unit_panel, interleaved, count, {}};
  for (int j = 0; j < count; ++j) view.slot[j] = first + j;
  view.slot[count - 1] = last;
  return view;
}
template <class C, class T>
FR_INLINE GateView<T> view_for_input(const Layout& layout, const void* dgates) {
  return view_of<T>(layout, dgates, C::interleaved, 0, C::gates, C::gates - 1);
}

// acc += dG[row .. row+MR-1] B, k = (panel, gate, unit) in order; padding takes no part.
template <class T, int MR, int NV>
FR_INLINE void multiply_dgates(Vec<T> (&acc)[MR][NV], const GateView<T>& g, int64_t row, const T* b) {
  constexpr int VL = lanes<T>;
  const T* panel = g.base;
  for (int64_t unit = 0; unit < g.H; unit += g.unit_panel, panel += g.R * 4 * VL) {
    const int64_t valid = min_of(g.unit_panel, g.H - unit);
    const int64_t stride = g.interleaved ? 4 * VL : (valid + VL - 1) / VL * VL;
    for (int j = 0; j < g.count; ++j) {
      const T* a[MR];
#pragma GCC unroll 8
      for (int r = 0; r < MR; ++r) a[r] = panel + (row + r) * stride + g.slot[j] * VL;
      accumulate<T, FirstSlots<NV>>(acc, a, b, valid);
      b += valid * NV * VL;
    }
  }
}

// Calls body(Int<NV>, first column) for blocks of 4*VL columns of a padded width.
template <class T, class Body>
FR_INLINE void for_column_blocks(int64_t padded, Body body) {
  constexpr int VL = lanes<T>;
  for (int64_t column = 0; column < padded; column += 4 * VL) {
    with_vectors((padded - column) / VL, [&](auto nv) FR_FLAT { body(nv, column); });
  }
}

// out[n[i]] [stride] (= or +=) dG[row + i] B for i < count: one step's product. B: column blocks over K rows of weights.
template <class T>
void step_product(const GateView<T>& g, int64_t row, int64_t count, const T* panels, int64_t K, const int64_t* n, T* out,
                  int64_t stride, bool add) {
  constexpr int VL = lanes<T>;
  for_column_blocks<T>(stride, [&](auto nv, int64_t column) FR_FLAT {
    constexpr int NV = decltype(nv)::value;
    for_row_blocks(0, count, [&](auto mr, int64_t first) FR_FLAT {
      constexpr int MR = decltype(mr)::value;
      Vec<T> acc[MR][NV];
      T* to[MR];
#pragma GCC unroll 8
      for (int r = 0; r < MR; ++r) {
        to[r] = out + n[first + r] * stride + column;
#pragma GCC unroll 4
        for (int j = 0; j < NV; ++j) acc[r][j] = add ? load(to[r] + j * VL) : Vec<T>{};
      }
      multiply_dgates<T>(acc, g, row + first, panels + column * K);
#pragma GCC unroll 8
      for (int r = 0; r < MR; ++r) {
#pragma GCC unroll 4
        for (int j = 0; j < NV; ++j) store(to[r] + j * VL, acc[r][j]);
      }
    });
  });
}

// Calls body(at, table row, first unit, vector-major offset) for every vector of hidden units of every row of a step.
template <class C, class Body>
FR_INLINE void for_units(const BackwardArgs& b, int64_t step, Body body) {
  using T = typename C::Element;
  constexpr int VL = lanes<T>;
  const int64_t begin = b.tables.first[step], end = b.tables.first[step + 1];
  const int64_t to_tape = b.tables.tape_row[step] - begin;
  const Layout& layout = b.layout;
  const int64_t Hp = layout.hidden_padded;
  for (int64_t unit = 0; unit < Hp; unit += VL) {
    const int64_t p = unit / layout.unit_panel;
    const int64_t width = C::interleaved ? 4 * VL : min_of(4 * VL, Hp - p * layout.unit_panel);
    const int64_t offset = p * layout.rows * 4 * VL + (unit - p * layout.unit_panel);
    for (int64_t row = begin; row < end; ++row) {
      const int64_t n = b.tables.n[row], g = offset + (row + to_tape) * width;
      BackwardRow<T> at{};
      if constexpr (C::keeps_gates) at.gates = static_cast<const T*>(b.gates) + g;
      at.dgates = static_cast<T*>(b.dgates) + g;
      at.h = static_cast<const T*>(b.tables.h[row]) + unit;
      at.y = static_cast<const T*>(b.tables.y[row]) + unit;
      if (b.tables.dy[row] != nullptr) at.dy = static_cast<const T*>(b.tables.dy[row]) + unit;
      at.dh = static_cast<T*>(b.dh) + n * Hp + unit;
      if constexpr (C::has_c) {
        at.c_in = static_cast<const T*>(b.tables.c_in[row]) + unit;
        at.c_out = static_cast<const T*>(b.tables.c_out[row]) + unit;
        at.dc = static_cast<T*>(b.dc) + n * Hp + unit;
      }
      at.valid = layout.H - unit;
      body(at, row, unit);
    }
  }
}

template <class T>
void zero_state_grad(const BackwardArgs& b, int64_t n) {
  const size_t bytes = static_cast<size_t>(b.layout.hidden_padded) * sizeof(T);
  std::memset(static_cast<T*>(b.dh) + n * b.layout.hidden_padded, 0, bytes);
  if (b.dc != nullptr) std::memset(static_cast<T*>(b.dc) + n * b.layout.hidden_padded, 0, bytes);
}

// Masked (t, n): y repeats h, so its gradient joins dh; a reset there ends both.
template <class T>
void held_rows(const BackwardArgs& b, int64_t step) {
  constexpr int VL = lanes<T>;
  for (int64_t i = b.tables.held_first[step]; i < b.tables.held_first[step + 1]; ++i) {
    const int64_t n = b.tables.held_n[i];
    T* dh = static_cast<T*>(b.dh) + n * b.layout.hidden_padded;
    const T* dy = static_cast<const T*>(b.tables.held_dy[i]);
    if (b.tables.held_cut[i] != 0) {
      zero_state_grad<T>(b, n);
    } else if (dy != nullptr) {
      for (int64_t u = 0; u < b.layout.H; u += VL) store(dh + u, load(dh + u) + load_n(dy + u, b.layout.H - u));
    }
  }
}

template <class C, class P>
FR_INLINE void backward_loop(const BackwardArgs& b) {
  using T = typename C::Element;
  using U = typename PanelSlots<C, C::interleaved ? 4 : 1>::U;
  const int64_t H = b.layout.H, Hp = b.layout.hidden_padded, K = H * U::count;
  const T* u = static_cast<const T*>(b.packed);
  const GateView<T> view = view_of<T>(b.layout, b.dgates, C::interleaved, 0, U::count, U::at[U::count - 1]);
  const bool reset = b.rows->seq.reset != nullptr, mask = b.rows->seq.mask != nullptr;
  for (int64_t step = b.rows->seq.T - 1; step >= 0; --step) {
    if (mask) held_rows<T>(b, step);
    for_units<C>(b, step, [&](const BackwardRow<T>& at, int64_t, int64_t) FR_FLAT { C::template backward<P>(at); });
    const int64_t begin = b.tables.first[step], count = b.tables.first[step + 1] - begin;
    const int64_t* n = b.tables.n + begin;
    if constexpr (C::two_phase) {
      T* drh = static_cast<T*>(b.drh);
      const GateView<T> view_n = view_of<T>(b.layout, b.dgates, true, 2, 1, 2);
      step_product<T>(view_n, b.tables.tape_row[step], count, u + K * Hp, H, n, drh, Hp, false);
      const int64_t to_tape = b.tables.tape_row[step] - begin;
      for_units<C>(b, step, [&](const BackwardRow<T>& at, int64_t row, int64_t unit) FR_FLAT {
        T* rh = static_cast<T*>(b.rh) + (row + to_tape) * Hp + unit;
        C::template second_backward<P>(at, drh + b.tables.n[row] * Hp + unit, rh);
      });
    }
    if (step == 0 && !b.last_product) break;
    step_product<T>(view, b.tables.tape_row[step], count, u, K, n, static_cast<T*>(b.dh), Hp, C::carries);
    if (!reset) continue;
    for (int64_t row = begin; row < begin + count; ++row) {
      if (b.tables.cut[row] != 0) zero_state_grad<T>(b, b.tables.n[row]);
    }
  }
}

template <class C>
void seq_backward(const BackwardArgs& args) {
  const BackwardArgs b = args;
  with_policy<typename C::Element, C::has_relu>(b.activation, [&](auto policy) FR_FLAT {
    backward_loop<C, decltype(policy)>(b);
  });
}

}  // namespace
}  // namespace fastrnn::FR_ISA
