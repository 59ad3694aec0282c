// Recurrent dropout (Gal & Ghahramani 2016) and zoneout (Krueger et al. 2016), forward: what becomes of a step's rows once the
// cell has run on all of their panels. m [N,H] is fixed over time, z [T,N,H] a share in 0..1, drawn by the caller:
//
//   h~, c~ = cell(x[t], m * h[t-1], c[t-1])         U multiplies m * h; what of h goes past the product (GRU) is h itself
//   h[t] = z_h h[t-1] + (1 - z_h) h~                h~ = o tanh(c~) for an LSTM: c~ before its own zoneout
//   c[t] = z_c c[t-1] + (1 - z_c) c~
//
//   step t:  panels: y <- h~, c_new <- c~     then, a vector of units of a row at a time:
//            y <- h[t]    c_to <- c[t]    masked[n] <- m * h[t], which the next step's product reads in the place of h[t]
//
// The cells and the register tiles know nothing of it; a call without either takes one branch a chunk and one a step. Units are
// shared by a team in blocks of four vectors, like those of backward. Two products and a sum, each rounded: exactly the state
// before where z is 1, exactly the cell's where it is 0. Registers: 5. Work: at most 9 operations and 7 streams a unit.
// Called by seq_forward.hpp.
#pragma once

#include "panel.hpp"

namespace fastrnn::FR_ISA {
namespace {

template <class T>
FR_INLINE Vec<T> zoned(Vec<T> z, Vec<T> before, Vec<T> made) {
  return z * before + (set1<T>(1) - z) * made;
}

// Row (t, n) of z; null: it is not on.
template <class T>
FR_INLINE const T* zone_at(const Operand& zone, int64_t t, int64_t n) {
  if (zone.base == nullptr) return nullptr;
  return reinterpret_cast<const T*>(zone.base + t * zone.step + n * zone.row);
}

// The time step that processing step s is.
FR_INLINE int64_t time_of(const Sequence& seq, int64_t s) {
  return seq.reverse ? seq.T - 1 - s : s;
}

// The caller's row at a place (types.hpp, Sequence).
FR_INLINE int64_t caller_row(const Sequence& seq, int64_t place) {
  return seq.order == nullptr ? place : seq.order[place];
}

// Row `place` of the mask; null: it is not on.
template <class T>
FR_INLINE const T* mask_at(const RowSource& source, int64_t place) {
  const Regular& regular = *source.regular;
  if (regular.mask == nullptr) return nullptr;
  return reinterpret_cast<const T*>(regular.mask +
                                    caller_row(source.seq, place) * regular.mask_row);
}

// Units [units.begin, units.end) of table row `row`, a step at t.
template <class C>
FR_INLINE void regular_row(const ForwardArgs& f, int64_t row, int64_t t, Range units) {
  using T = typename C::Element;
  constexpr int VL = lanes<T>;
  const RowTables& tables = f.tables;
  const Regular& regular = *f.rows->regular;
  const int64_t place = tables.n[row], n = caller_row(f.rows->seq, place), H = f.layout.H;
  const T* zone_h = zone_at<T>(regular.zone_h, t, n);
  const T* zone_c = zone_at<T>(regular.zone_c, t, n);
  const T* mask = mask_at<T>(*f.rows, place);
  const T* h_before = static_cast<const T*>(tables.h[row]);
  T* y = static_cast<T*>(tables.y[row]);
  for (int64_t u = units.begin; u < units.end; u += VL) {
    Vec<T> h = load_n(y + u, H - u);
    if (zone_h != nullptr) {
      h = zoned<T>(load_n(zone_h + u, H - u), load_n(h_before + u, H - u), h);
      store_n(y + u, h, H - u);
    }
    if (C::has_c && zone_c != nullptr) {
      const Vec<T> c_before = load(static_cast<const T*>(tables.c_in[row]) + u);
      const Vec<T> c = load(static_cast<const T*>(tables.c_out[row]) + u);
      store(static_cast<T*>(tables.c_to[row]) + u,
            zoned<T>(load_n(zone_c + u, H - u), c_before, c));
    }
    if (mask != nullptr) {
      T* masked = reinterpret_cast<T*>(regular.masked + (place - f.rows->n_begin) * regular.row);
      store(masked + u, load_n(mask + u, H - u) * h);
    }
  }
}

// After the panels of a step: s is the step's number, `step` that of the tables.
template <class C>
void regular_step(ForwardArgs& f, int64_t step, int64_t s) {
  constexpr int64_t block = 4 * lanes<typename C::Element>;
  const int64_t Hp = f.layout.hidden_padded;
  phase(f.team, (Hp + block - 1) / block, [&](int64_t item) FR_FLAT {
    const Range units{item * block, min_of((item + 1) * block, Hp)};
    for (int64_t row = f.tables.first[step]; row < f.tables.first[step + 1]; ++row)
      regular_row<C>(f, row, time_of(f.rows->seq, s), units);
  });
}

// Before the first step: mask * h of the states as they are.
template <class T>
void begin_masked(const ForwardArgs& f) {
  constexpr int VL = lanes<T>;
  const RowSource& source = *f.rows;
  const Regular& regular = *source.regular;
  if (regular.mask == nullptr) return;
  for (int64_t place = source.n_begin; place < source.n_end; ++place) {
    const T* h = static_cast<const T*>(source.h_of[place]);
    const T* mask = mask_at<T>(source, place);
    T* masked = reinterpret_cast<T*>(regular.masked + (place - source.n_begin) * regular.row);
    for (int64_t u = 0; u < f.layout.H; u += VL)
      store(masked + u, load_n(mask + u, f.layout.H - u) * load_n(h + u, f.layout.H - u));
  }
}

}  // namespace
}  // namespace fastrnn::FR_ISA
