// How the panels of packed weights lie, and what becomes of one row's accumulators once its products are complete.
//
//   panel p [1+I+H][columns][VL]: biases, W, U (pack.hpp writes it); its tile of a row is [columns][VL] accumulators
//
// Called by seq_forward.hpp, seq_single.hpp, seq_backward.hpp, pack.hpp, gradients.hpp.
#pragma once

#include "cell_gru.hpp"
#include "cell_lstm.hpp"
#include "cell_rnn.hpp"
#include "../team.hpp"

namespace fastrnn::FR_ISA {
namespace {

// How a cell's panels lie: which accumulator columns W and U feed, and how many a panel of NV vectors has.
template <class C, int NV>
struct PanelSlots {
  using X = typename C::X;
  using U = typename C::U;
  static constexpr int columns = C::columns;
};
template <class T, int NV>
struct PanelSlots<Rnn<T>, NV> {
  using X = FirstSlots<NV>;
  using U = FirstSlots<NV>;
  static constexpr int columns = NV;
};

// One packed panel: where its parts begin.
template <class C, int NV>
struct Panel {
  using T = typename C::Element;
  using S = PanelSlots<C, NV>;
  const T *bias, *w, *u, *u_n;
  Panel() = default;
  FR_INLINE Panel(const T* base, const Layout& layout)
      : bias(base),
        w(bias + S::columns * lanes<T>),
        u(w + layout.I * S::X::count * lanes<T>),
        u_n(u + layout.H * S::U::count * lanes<T>) {}
};

// Which rows of PyTorch's [G*H,K] the vectors of a panel hold: vector j, lane v is row first + j*step + v, of which the first
// valid_at(j) lanes exist. Interleaved: j is a gate, H rows further on; RNN: the next VL units.
struct PanelRows {
  int64_t first, step, valid, valid_step;
  FR_INLINE int64_t valid_at(int64_t j) const { return valid - j * valid_step; }
  FR_INLINE PanelRows moved(int64_t by) const { return {first + by, step, valid, valid_step}; }
};
template <class C>
FR_INLINE PanelRows panel_rows(const Layout& layout, int64_t unit) {
  constexpr int VL = lanes<typename C::Element>;
  return {unit, C::interleaved ? layout.H : VL, layout.H - unit, C::interleaved ? 0 : VL};
}

struct Range {
  int64_t begin, end;
};
FR_INLINE Range share_of(int64_t count, int64_t index, int64_t shares) {
  return {count * index / shares, count * (index + 1) / shares};
}

// Calls body(Int<NV>, panel index, first hidden unit) for panel p; NV < 4 only in the RNN's last.
template <class C, class Body>
FR_INLINE void with_panel(const Layout& layout, int64_t p, Body body) {
  constexpr int VL = lanes<typename C::Element>;
  if constexpr (C::interleaved) {
    body(Int<4>{}, p, p * VL);
  } else {
    const int64_t unit = p * 4 * VL;
    with_vectors((min_of(layout.H - unit, 4 * VL) + VL - 1) / VL,
                 [&](auto nv) FR_FLAT { body(nv, p, unit); });
  }
}
template <class C, class Body>
FR_INLINE void for_panels(const Layout& layout, Range panels, Body body) {
  for (int64_t p = panels.begin; p < panels.end; ++p) with_panel<C>(layout, p, body);
}

// One phase of a call's work: body(item) for the items [0, count), whose weights stream by. Every other phase takes them
// backwards (a team each member's share): what was used last is still in a cache that cannot hold them all. LSTM 1->256, 1 MB of
// U beside 1 MB of L2: 10.1 instead of 11.2 microseconds a step; 64->64, 64 KB beside 32 KB of L1: 0.82 instead of 0.92.
template <class Body>
FR_INLINE void phase(Team& team, int64_t count, Body body) {
  const bool alone = team.size == 1, backwards = alone && (team.phase++ & 1) != 0;
  for (int64_t i = 0; !alone || i < count; ++i) {
    const int64_t item = !alone ? team_claim(team, count) : backwards ? count - 1 - i : i;
    if (item < 0) break;
    body(item);
  }
}

// A row's gates [4*VL] on the tape, or null.
template <class T>
FR_INLINE T* gates_at(const ForwardArgs& f, int64_t p, int64_t gate_row) {
  if (f.gates == nullptr) return nullptr;
  return static_cast<T*>(f.gates) + (p * f.layout.rows + gate_row) * 4 * lanes<T>;
}

// Where panel p of table row `row` reads and writes; unit: the panel's first.
template <class C, bool Keep>
FR_INLINE ForwardRow<typename C::Element> row_at(const ForwardArgs& f, int64_t p, int64_t unit,
                                                 int64_t row, int64_t gate_row) {
  using T = typename C::Element;
  ForwardRow<T> at{};
  at.h = static_cast<const T*>(f.tables.h[row]) + unit;
  at.u = static_cast<const T*>(f.tables.u[row]) + unit;
  at.y = static_cast<T*>(f.tables.y[row]) + unit;
  at.valid = f.layout.H - unit;
  if constexpr (C::has_c) {
    at.c_in = static_cast<const T*>(f.tables.c_in[row]) + unit;
    at.c_out = static_cast<T*>(f.tables.c_out[row]) + unit;
  }
  if constexpr (Keep) at.gates = gates_at<T>(f, p, gate_row);
  return at;
}

// The cell on a row's accumulators.
template <class C, class P, bool Keep, int A>
FR_INLINE void finish_row(const ForwardArgs& f, const Vec<typename C::Element> (&acc)[A],
                          const ForwardRow<typename C::Element>& at, int64_t unit,
                          int64_t scratch_row) {
  using T = typename C::Element;
  if constexpr (C::two_phase) {
    const int64_t plane = (f.rows->n_end - f.rows->n_begin) * f.layout.hidden_padded;
    T* z = static_cast<T*>(f.scratch) + scratch_row * f.layout.hidden_padded + unit;
    C::template forward<P, Keep>(acc, at, z, z + plane, z + 2 * plane);
  } else {
    C::template forward<P, Keep>(acc, at);
  }
}

}  // namespace
}  // namespace fastrnn::FR_ISA
