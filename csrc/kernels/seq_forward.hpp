// Forward through time for one {layer, direction, batch slice}.
//
//   for chunk of steps:  table its rows;  project its inputs  xg = bias + W x  (or leave x to the step's own product)
//     for step:  for panel:  for block of MR rows:                        (one row: seq_single.hpp)
//       tile = xg (or bias + W x);  tile += U h;  cell on the tile's registers -> y, c, tape
//       (recurrent dropout, zoneout: regular_forward.hpp)
//
//   xg   [panels][chunk*N][X*VL], one projected row contiguous: within a quarter of L2, or an eighth of U, it stays in the cache
//
// The panel is the outer loop: K*G*VL weights come once a step from L2 or L3 and serve all row blocks from L1 or L2. Every other
// step takes the panels backwards (phase in panel.hpp).
// Fetching the head of the next panel by instructions, 256 bytes for each row before its epilogue, won nothing: 0.99 to 1.00 of
// the speed without, H=64 to 1024, N=16 to 256 (Zen 4); all of it, spread over the row blocks, took 1.00 to 1.09 of the time. The
// hardware's stream is there in time.
// Pre-activations never reach memory but for xg. Seeding the tile by bias, then x, then h in k order makes the projected and
// the unprojected way give the same bits. Called by the driver through the kernel table.
#pragma once

#include "regular_forward.hpp"
#include "seq_single.hpp"
#include "../rows.hpp"

namespace fastrnn::FR_ISA {
namespace {

// Rows of x that come next, into L2 before they are used: panel p fetches its share of their lines. A tile reads MR streams
// of I elements each, too short for the hardware to see where they go: an RNN, N=32, and a GRU, N=16, took 0.975 of the time
// without (I=H=256; 128), others 0.98 to 1.00 (Zen 4). In integers, since there may be no such row.
template <class T>
FR_TILE void fetch_ahead(const ForwardArgs& f, int64_t p, const void* const* x, int64_t count) {
  constexpr int64_t line = 64;
  const int64_t lines = (f.layout.I * static_cast<int64_t>(sizeof(T)) + line - 1) / line;
  const Range mine = share_of(lines, p, f.layout.panels);
  for (int64_t r = 0; r < count; ++r) {
    const uintptr_t row = reinterpret_cast<uintptr_t>(x[r]) + static_cast<uintptr_t>(f.ahead);
    for (int64_t i = mine.begin; i < mine.end; ++i)
      prefetch_l2(reinterpret_cast<const void*>(row + static_cast<uintptr_t>(i * line)));
  }
  has_effect();
}

// xg [MR][X*VL] = bias + W x for MR rows.
template <class T, class X, int MR, int A>
FR_TILE void project_tile(const T* bias, const T* w, const void* const* rows, int64_t I, T* xg) {
  constexpr int VL = lanes<T>;
  Vec<T> acc[MR][A];
  const T* x[MR];
#pragma GCC unroll 8
  for (int r = 0; r < MR; ++r) {
    x[r] = static_cast<const T*>(rows[r]);
#pragma GCC unroll 8
    for (int j = 0; j < X::count; ++j) acc[r][X::at[j]] = load(bias + X::at[j] * VL);
  }
  accumulate<T, X>(acc, x, w, I);
#pragma GCC unroll 8
  for (int r = 0; r < MR; ++r) {
#pragma GCC unroll 8
    for (int j = 0; j < X::count; ++j) store(xg + (r * X::count + j) * VL, acc[r][X::at[j]]);
  }
}

// xg = bias + W x for the tabled rows.
template <class C>
void project(const ForwardArgs& f, int64_t rows, int64_t capacity, int64_t item) {
  using T = typename C::Element;
  constexpr int VL = lanes<T>;
  with_panel<C>(f.layout, item, [&](auto nv, int64_t p, int64_t) FR_FLAT {
    constexpr int NV = decltype(nv)::value;
    using S = PanelSlots<C, NV>;
    constexpr int width = S::X::count * VL;
    const Panel<C, NV> panel(static_cast<const T*>(f.packed) + p * f.layout.panel_size, f.layout);
    // A full RNN panel is 4*VL wide, its last may be narrower; the others all have the same width.
    T* xg = static_cast<T*>(f.projection) + p * capacity * (C::interleaved ? width : 4 * VL);
    for_row_blocks(0, rows, [&](auto mr, int64_t first) FR_FLAT {
      project_tile<T, typename S::X, decltype(mr)::value, S::columns>(
          panel.bias, panel.w, f.tables.x + first, f.layout.I, xg + first * width);
    });
  });
}

// One step of one panel for MR rows from table index `row`; gate_row is their index in the tape.
template <class C, bool Keep, int MR, int NV>
FR_TILE void forward_tile(const ForwardArgs& f, int64_t p, int64_t unit, int64_t row,
                          int64_t gate_row, int64_t scratch_row, const typename C::Element* xg) {
  using T = typename C::Element;
  using S = PanelSlots<C, NV>;
  constexpr int VL = lanes<T>;
  const Panel<C, NV> panel(static_cast<const T*>(f.packed) + p * f.layout.panel_size, f.layout);
  Vec<T> acc[MR][S::columns];
#pragma GCC unroll 8
  for (int r = 0; r < MR; ++r) {
#pragma GCC unroll 8
    for (int j = 0; j < S::columns; ++j) acc[r][j] = load(panel.bias + j * VL);
  }
  if (xg != nullptr) {
#pragma GCC unroll 8
    for (int r = 0; r < MR; ++r) {
#pragma GCC unroll 8
      for (int j = 0; j < S::X::count; ++j)
        acc[r][S::X::at[j]] = load(xg + (r * S::X::count + j) * VL);
    }
  } else {
    const T* x[MR];
#pragma GCC unroll 8
    for (int r = 0; r < MR; ++r) x[r] = static_cast<const T*>(f.tables.x[row + r]);
    if (f.ahead != 0) fetch_ahead<T>(f, p, f.tables.x + row, MR);
    accumulate<T, typename S::X>(acc, x, panel.w, f.layout.I);
  }
  // y's lines on the way while the product runs: 0.96 to 1.00 of the time without (GRU and RNN, N=256, I=H=256; H=64). Those of
  // the tape, beside them, won nothing.
  const T* h[MR];
#pragma GCC unroll 8
  for (int r = 0; r < MR; ++r) {
    h[r] = static_cast<const T*>(f.tables.u[row + r]);
    prefetch_to_write<C::interleaved ? 1 : NV>(static_cast<T*>(f.tables.y[row + r]) + unit);
  }
  accumulate<T, typename S::U>(acc, h, panel.u, f.depth);
  with_policy<T, C::has_relu>(f.activation, [&](auto policy) FR_FLAT {
    using P = decltype(policy);
#pragma GCC unroll 8
    for (int r = 0; r < MR; ++r) {
      const ForwardRow<T> at = row_at<C, Keep>(f, p, unit, row + r, gate_row + r);
      finish_row<C, P, Keep>(f, acc[r], at, unit, scratch_row + r);
    }
  });
}

// GRU with reset before: n from rows of r*h, which the first phase has left for all units of the step's rows.
template <class C, bool Keep, int MR>
FR_TILE void second_tile(const ForwardArgs& f, int64_t p, int64_t unit, int64_t row,
                         int64_t gate_row, int64_t scratch_row) {
  using T = typename C::Element;
  const Panel<C, 4> panel(static_cast<const T*>(f.packed) + p * f.layout.panel_size, f.layout);
  const int64_t Hp = f.layout.hidden_padded, plane = (f.rows->n_end - f.rows->n_begin) * Hp;
  T* z = static_cast<T*>(f.scratch) + scratch_row * Hp;
  Vec<T> acc[MR][1];
  const T* rh[MR];
#pragma GCC unroll 8
  for (int r = 0; r < MR; ++r) {
    acc[r][0] = load(z + plane + r * Hp + unit);
    rh[r] = z + 2 * plane + r * Hp;
  }
  accumulate<T, Slots<0>>(acc, rh, panel.u_n, f.layout.H);
  with_policy<T, C::has_relu>(f.activation, [&](auto policy) FR_FLAT {
#pragma GCC unroll 8
    for (int r = 0; r < MR; ++r) {
      const ForwardRow<T> at = row_at<C, Keep>(f, p, unit, row + r, gate_row + r);
      C::template second<decltype(policy), Keep>(acc[r][0], at, z + r * Hp + unit);
    }
  });
}

// Read before a phase is entered, so that all members enter the same one. A member that is late may find what a later chunk
// wrote; it then enters a phase that is over, and does nothing.
FR_INLINE int64_t first_row(const ForwardArgs& f, int64_t step) {
  return __atomic_load_n(f.tables.first + step, __ATOMIC_ACQUIRE);
}

// One step of several rows (a single one: seq_single.hpp).
template <class C, bool Keep>
FR_INLINE void rows_phase(ForwardArgs& f, int64_t step, int64_t capacity) {
  using T = typename C::Element;
  constexpr int VL = lanes<T>;
  phase(f.team, f.layout.panels, [&](int64_t item) FR_FLAT {
    const int64_t begin = f.tables.first[step], end = f.tables.first[step + 1];
    const int64_t to_tape = f.tables.tape_row[step] - begin;
    with_panel<C>(f.layout, item, [&](auto nv, int64_t p, int64_t unit) FR_FLAT {
      constexpr int NV = decltype(nv)::value;
      constexpr int width = PanelSlots<C, NV>::X::count * VL;
      ready_panel<C, NV>(f, unit);
      const T* xg = static_cast<const T*>(f.projection);
      if (xg != nullptr) xg += p * capacity * (C::interleaved ? width : 4 * VL);
      for_row_blocks<2>(begin, end, [&](auto mr, int64_t row) FR_FLAT {
        forward_tile<C, Keep, decltype(mr)::value, NV>(f, p, unit, row, row + to_tape, row - begin,
                                                       xg == nullptr ? nullptr : xg + row * width);
      });
    });
  });
}

template <class C, bool Keep>
FR_INLINE void forward_step(ForwardArgs& f, int64_t step, int64_t capacity) {
  if (first_row(f, step + 1) - first_row(f, step) == 1) {
    single_phase<C, Keep>(f, step, capacity);
  } else {
    rows_phase<C, Keep>(f, step, capacity);
  }
  if constexpr (C::two_phase) {
    phase(f.team, f.layout.panels, [&](int64_t p) FR_FLAT {
      const int64_t begin = f.tables.first[step], end = f.tables.first[step + 1];
      const int64_t to_tape = f.tables.tape_row[step] - begin;
      for_row_blocks(begin, end, [&](auto mr, int64_t row) FR_FLAT {
        second_tile<C, Keep, decltype(mr)::value>(f, p, p * f.layout.unit_panel, row, row + to_tape,
                                                  row - begin);
      });
    });
  }
}

// Masked (t, n): y repeats the state.
template <class T>
FR_INLINE void repeat_held(const ForwardArgs& f, int64_t steps) {
  for (int64_t i = 0; i < f.tables.held_first[steps]; ++i) {
    std::memcpy(f.tables.held_y[i], f.tables.held_h[i],
                static_cast<size_t>(f.layout.H) * sizeof(T));
  }
}

template <class C, bool Keep>
void seq_forward(const ForwardArgs& args) {
  ForwardArgs f = args;
  RowSource& source = *f.rows;
  const int64_t capacity = f.chunk * (source.n_end - source.n_begin);
  const bool regular = source.regular != nullptr;
  f.depth = f.layout.H;
  if (regular) phase(f.team, 1, [&](int64_t) FR_FLAT { begin_masked<typename C::Element>(f); });
  for (int64_t s = f.begin; s < f.end; s += f.chunk) {
    const int64_t steps = min_of(f.chunk, f.end - s);
    if (f.far) f.ahead = bytes_ahead(source, s, s + 1, f.end);
    phase(f.team, 1, [&](int64_t) FR_FLAT { build_rows(source, s, s + steps, f.tables); });
    if (f.projection != nullptr) {
      phase(f.team, f.layout.panels,
            [&](int64_t p) FR_FLAT { project<C>(f, f.tables.first[steps], capacity, p); });
    }
    if (regular || !single_steps<C, Keep>(f, steps, capacity)) {
      for (int64_t step = 0; step < steps; ++step) {
        f.depth = f.zero_state && s + step == 0 ? 0 : f.layout.H;
        forward_step<C, Keep>(f, step, capacity);
        if (regular) regular_step<C>(f, step, s + step);
      }
    }
    if (source.seq.mask == nullptr) continue;
    phase(f.team, 1, [&](int64_t) FR_FLAT { repeat_held<typename C::Element>(f, steps); });
  }
}

// One step whose rows the caller has tabled, h in place; x enters the step's own product, as it does in seq_forward where T is 1.
template <class C>
void seq_step(ForwardArgs& f) {
  using T = typename C::Element;
  const int64_t rows = f.rows->n_end - f.rows->n_begin, H = f.layout.H;
  forward_step<C, C::infer_keeps>(f, 0, rows);
  for (int64_t row = 0; row < rows; ++row) {
    T* const h = static_cast<T*>(const_cast<void*>(f.tables.h[row]));
    const T* const y = static_cast<T*>(f.tables.y[row]);
    for (int64_t k = 0; k < H; k += lanes<T>) store_n(h + k, load_n(y + k, H - k), H - k);
  }
}

}  // namespace
}  // namespace fastrnn::FR_ISA
