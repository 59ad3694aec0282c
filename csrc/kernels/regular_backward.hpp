// Recurrent dropout and zoneout, backward: the elementwise work around a cell's derivatives. With dh, dc the gradients of
// h[t], c[t] (dy included) and the names of regular_forward.hpp:
//
//   dh~ = (1 - z_h) dh;  dc~ = (1 - z_c) dc (+ dh~ o tanh'(c~), LSTM)       what the cell gets
//   dh[t-1] = z_h dh (+ dh~ z, GRU) + m * du,  du = dG U;   dc[t-1] = z_c dc + dc~ f
//
//   du [N][Hp] is apart from dh [N][Hp], since m multiplies the product alone; without m the product adds to dh, as for a GRU
//   masked [R][Hp] <- m * h[t-1], the rows that dU is made from (gradients.hpp)
//
// Nothing of it is on the tape. c~ = f c[t-1] + i g and the RNN's h~ = (h[t] - z h[t-1]) / (1 - z) are made again: the first has
// the bits of forward, the second has them where z is 0, is not looked at where z is 1, and between is as exact as h[t] is.
// The mask of ones leaves an LSTM's and an RNN's gradients as they are, bit for bit; a GRU's differ by the rounding of one sum
// (without a mask its product begins at dh~ z instead of at 0). Registers: those of the cell and 4. Called by seq_backward.hpp.
#pragma once

#include "seq_backward.hpp"

namespace fastrnn::FR_ISA {
namespace {

// What zoneout keeps of dh and dc for the step before.
template <class T>
struct Kept {
  Vec<T> h, c;
};

// One row of one step, the units of one vector.
template <class T>
struct RegularRow {
  const T *zone_h, *zone_c, *mask;  // null: not on
  T* masked;                        // out: mask * h
};

template <class T>
FR_INLINE RegularRow<T> regular_at(const BackwardArgs& b, int64_t t, int64_t row, int64_t unit) {
  const Regular& regular = *b.rows->regular;
  const int64_t place = b.tables.n[row], n = caller_row(b.rows->seq, place);
  RegularRow<T> out{};
  if (const T* z = zone_at<T>(regular.zone_h, t, n)) out.zone_h = z + unit;
  if (const T* z = zone_at<T>(regular.zone_c, t, n)) out.zone_c = z + unit;
  if (regular.mask == nullptr) return out;
  out.mask = mask_at<T>(*b.rows, place) + unit;
  out.masked = reinterpret_cast<T*>(regular.masked + row * regular.row) + unit;
  return out;
}

// From the gradients of a step's states to those of what the cell gave; scratch [VL] takes what the cell gave, where the
// derivative asks for it.
template <class C, class T>
FR_INLINE Kept<T> enter_cell(BackwardRow<T>& at, const RegularRow<T>& on, T* scratch) {
  constexpr int VL = lanes<T>;
  Kept<T> kept{};
  if (on.mask != nullptr) store(on.masked, load_n(on.mask, at.valid) * load_n(at.h, at.valid));
  if (on.zone_h != nullptr) {
    const Vec<T> dh = whole_gradient(at);
    at.dy = nullptr;
    const Vec<T> z = load_n(on.zone_h, at.valid), share = set1<T>(1) - z;
    kept.h = z * dh;
    store(at.dh, share * dh);
    if constexpr (!C::keeps_gates) {
      for (int64_t v = 0; v < min_of(VL, at.valid); ++v) {
        const T s = T(1) - on.zone_h[v];
        scratch[v] = s == T(0) ? at.y[v] : (at.y[v] - on.zone_h[v] * at.h[v]) / s;
      }
      at.y = scratch;
    }
  }
  if constexpr (C::has_c) {
    if (on.zone_c != nullptr) {
      const Vec<T> z = load_n(on.zone_c, at.valid), dc = load(at.dc);
      kept.c = z * dc;
      store(at.dc, (set1<T>(1) - z) * dc);
      const Vec<T> i = load(at.gates), f = load(at.gates + VL), g = load(at.gates + 2 * VL);
      store(scratch, fma(f, load(at.c_in), i * g));
      at.c_out = scratch;
    }
  }
  return kept;
}

// The steps of backward_loop (seq_backward.hpp) where one of the two is on.
template <class C, class P>
struct RegularSteps {
  using T = typename C::Element;

  static FR_INLINE void cell(const BackwardArgs& b, int64_t step, Range units) {
    const int64_t t = time_of(b.rows->seq, b.begin + step);
    const auto body = [&](const BackwardRow<T>& row_at, int64_t row, int64_t unit) FR_FLAT {
      alignas(vector_bytes) T scratch[lanes<T>] = {};
      BackwardRow<T> at = row_at;
      const Kept<T> kept = enter_cell<C>(at, regular_at<T>(b, t, row, unit), scratch);
      C::template backward<P>(at);
      store(at.dh, C::carries ? load(at.dh) + kept.h : kept.h);
      if constexpr (C::has_c) store(at.dc, load(at.dc) + kept.c);
    };
    for_units<C>(b, rows_of(b, step), units, body);
  }

  // On copies: what zoneout keeps is not to be taken off twice.
  static FR_INLINE void note(const BackwardArgs& b, int64_t step, int64_t row, int64_t unit,
                             BackwardRow<T> at) {
    if (b.dc_all.base == nullptr) return;
    alignas(vector_bytes) T scratch[lanes<T>] = {}, dh[lanes<T>], dc[lanes<T>];
    store(dh, load(at.dh));
    store(dc, load(at.dc));
    at.dh = dh;
    at.dc = dc;
    const int64_t t = time_of(b.rows->seq, b.begin + step);
    enter_cell<C>(at, regular_at<T>(b, t, row, unit), scratch);
    note_c<C, P>(b, step, row, unit, at);
  }

  static FR_INLINE void second(const BackwardArgs& b, int64_t step, Range units) {
    const Regular& regular = *b.rows->regular;
    second_pass<C, P>(b, step, units, [&](BackwardRow<T>& at, int64_t row, int64_t unit) FR_FLAT {
      if (regular.mask == nullptr) return;
      at.dh = static_cast<T*>(regular.du) + b.tables.n[row] * b.layout.hidden_padded + unit;
      store(at.dh, Vec<T>{});
    });
  }

  static FR_INLINE void state(const BackwardArgs& b, int64_t step, Range units) {
    constexpr int VL = lanes<T>;
    const Regular& regular = *b.rows->regular;
    if (regular.mask == nullptr) {
      state_product<C>(b, step, b.dh, true, units);
      return;
    }
    state_product<C>(b, step, regular.du, C::two_phase, units);
    const StepRows rows = rows_of(b, step);
    for (int64_t row = rows.begin; row < rows.end; ++row) {
      const int64_t place = b.tables.n[row], at = place * b.layout.hidden_padded;
      const T* mask = mask_at<T>(*b.rows, place);
      const T* du = static_cast<const T*>(regular.du) + at;
      T* dh = static_cast<T*>(b.dh) + at;
      for (int64_t u = units.begin; u < units.end; u += VL)
        store(dh + u, load(dh + u) + load_n(mask + u, b.layout.H - u) * load(du + u));
    }
  }
};

}  // namespace
}  // namespace fastrnn::FR_ISA
