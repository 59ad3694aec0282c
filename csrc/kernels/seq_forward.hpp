// Forward through time for one {layer, direction, batch slice}.
//
//   for chunk of steps:  table its rows;  project its inputs  xg = bias + W x  (or leave x to the step's own product)
//     for step:  for panel:  for block of MR rows:
//       tile = xg (or bias + W x);  tile += U h;  cell on the tile's registers -> y, c, tape
//
//   xg   [panels][chunk*N][X*VL], one projected row contiguous, at most 256 KB: it stays in L2
//
// The panel is the outer loop: K*G*VL weights come once a step from L2 or L3 and serve all row blocks from L1 or L2.
// Fetching the head of the next panel by instructions, 256 bytes for each row before its epilogue, won nothing: 0.99 to 1.00 of
// the speed without, H=64 to 1024, N=16 to 256 (Zen 4); the hardware's stream is there in time.
// Pre-activations never reach memory but for xg. Seeding the tile by bias, then x, then h in k order makes the projected and
// the unprojected way give the same bits. Called by the driver through the kernel table.
#pragma once

#include "cell_gru.hpp"
#include "cell_lstm.hpp"
#include "cell_rnn.hpp"
#include "../rows.hpp"
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

// One phase of a call's work: calls body(range) for parts of [0, count) until all of it is done. Alone, that is one part.
template <class Body>
FR_INLINE void phase(Team& team, int64_t count, Body body) {
  for (Range part{0, count}; part.begin < part.end || team.size > 1;) {
    if (team.size > 1) {
      part.begin = team_claim(team, count);
      if (part.begin < 0) break;
      part.end = part.begin + 1;
    }
    body(part);
    part.begin = part.end;
  }
}

// Calls body(Int<NV>, panel index, first hidden unit) for a range of panels; NV < 4 only in the RNN's last.
template <class C, class Body>
FR_INLINE void for_panels(const Layout& layout, Range panels, Body body) {
  constexpr int VL = lanes<typename C::Element>;
  for (int64_t p = panels.begin; p < panels.end; ++p) {
    if constexpr (C::interleaved) {
      body(Int<4>{}, p, p * VL);
    } else {
      const int64_t unit = p * 4 * VL;
      with_vectors((min_of(layout.H - unit, 4 * VL) + VL - 1) / VL,
                   [&](auto nv) FR_FLAT { body(nv, p, unit); });
    }
  }
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
void project(const ForwardArgs& f, int64_t rows, int64_t capacity, Range panels) {
  using T = typename C::Element;
  constexpr int VL = lanes<T>;
  for_panels<C>(f.layout, panels, [&](auto nv, int64_t p, int64_t) FR_FLAT {
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

// A row's gates [4*VL] on the tape, or null.
template <class T>
FR_INLINE T* gates_at(const ForwardArgs& f, int64_t p, int64_t gate_row) {
  if (f.gates == nullptr) return nullptr;
  return static_cast<T*>(f.gates) + (p * f.layout.rows + gate_row) * 4 * lanes<T>;
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
    accumulate<T, typename S::X>(acc, x, panel.w, f.layout.I);
  }
  const T* h[MR];
#pragma GCC unroll 8
  for (int r = 0; r < MR; ++r) h[r] = static_cast<const T*>(f.tables.h[row + r]);
  accumulate<T, typename S::U>(acc, h, panel.u, f.layout.H);
  with_policy<T, C::has_relu>(f.activation, [&](auto policy) FR_FLAT {
    using P = decltype(policy);
#pragma GCC unroll 8
    for (int r = 0; r < MR; ++r) {
      ForwardRow<T> at{};
      at.h = h[r] + unit;
      at.y = static_cast<T*>(f.tables.y[row + r]) + unit;
      at.valid = f.layout.H - unit;
      if constexpr (C::has_c) {
        at.c_in = static_cast<const T*>(f.tables.c_in[row + r]) + unit;
        at.c_out = static_cast<T*>(f.tables.c_out[row + r]) + unit;
      }
      if constexpr (Keep) at.gates = gates_at<T>(f, p, gate_row + r);
      if constexpr (C::two_phase) {
        const int64_t plane = (f.rows->n_end - f.rows->n_begin) * f.layout.hidden_padded;
        T* z = static_cast<T*>(f.scratch) + (scratch_row + r) * f.layout.hidden_padded + unit;
        C::template forward<P, Keep>(acc[r], at, z, z + plane, z + 2 * plane);
      } else {
        C::template forward<P, Keep>(acc[r], at);
      }
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
      ForwardRow<T> at{};
      at.h = static_cast<const T*>(f.tables.h[row + r]) + unit;
      at.y = static_cast<T*>(f.tables.y[row + r]) + unit;
      at.valid = f.layout.H - unit;
      if constexpr (Keep) at.gates = gates_at<T>(f, p, gate_row + r);
      C::template second<decltype(policy), Keep>(acc[r][0], at, z + r * Hp + unit);
    }
  });
}

template <class C, bool Keep>
FR_INLINE void forward_step(ForwardArgs& f, int64_t step, int64_t capacity) {
  using T = typename C::Element;
  constexpr int VL = lanes<T>;
  const auto rows = [&](auto body) FR_FLAT {
    const int64_t begin = f.tables.first[step], to_tape = f.tables.tape_row[step] - begin;
    for_row_blocks(begin, f.tables.first[step + 1], [&](auto mr, int64_t row) FR_FLAT {
      body(mr, row, row + to_tape, row - begin);
    });
  };
  phase(f.team, f.layout.panels, [&](Range panels) FR_FLAT {
    for_panels<C>(f.layout, panels, [&](auto nv, int64_t p, int64_t unit) FR_FLAT {
      constexpr int NV = decltype(nv)::value;
      constexpr int width = PanelSlots<C, NV>::X::count * VL;
      const T* xg = static_cast<const T*>(f.projection);
      if (xg != nullptr) xg += p * capacity * (C::interleaved ? width : 4 * VL);
      rows([&](auto mr, int64_t row, int64_t gate_row, int64_t scratch_row) FR_FLAT {
        forward_tile<C, Keep, decltype(mr)::value, NV>(f, p, unit, row, gate_row, scratch_row,
                                                       xg == nullptr ? nullptr : xg + row * width);
      });
    });
  });
  if constexpr (C::two_phase) {
    phase(f.team, f.layout.panels, [&](Range panels) FR_FLAT {
      for_panels<C>(f.layout, panels, [&](auto, int64_t p, int64_t unit) FR_FLAT {
        rows([&](auto mr, int64_t row, int64_t gate_row, int64_t scratch_row) FR_FLAT {
          second_tile<C, Keep, decltype(mr)::value>(f, p, unit, row, gate_row, scratch_row);
        });
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
  for (int64_t s = f.begin; s < f.end; s += f.chunk) {
    const int64_t steps = min_of(f.chunk, f.end - s);
    phase(f.team, 1, [&](Range) FR_FLAT { build_rows(source, s, s + steps, f.tables); });
    if (f.projection != nullptr) {
      phase(f.team, f.layout.panels,
            [&](Range panels) FR_FLAT { project<C>(f, f.tables.first[steps], capacity, panels); });
    }
    for (int64_t step = 0; step < steps; ++step) forward_step<C, Keep>(f, step, capacity);
    if (source.seq.mask == nullptr) continue;
    phase(f.team, 1, [&](Range) FR_FLAT { repeat_held<typename C::Element>(f, steps); });
  }
}

}  // namespace
}  // namespace fastrnn::FR_ISA
