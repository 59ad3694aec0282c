// Back-propagation through time (Werbos 1990) for one {layer, direction, batch slice}: what must be sequential, and no more.
//
//   for step, last to first:   dh  = dG U (+ bypass) of the step behind;  rows cut by a reset: dh = dc = 0
//                              dh += dy;  the cell's derivatives -> dG, dc, and what of dh bypasses the product (GRU)
//                              (recurrent dropout, zoneout: regular_backward.hpp)
//
//   dG   [panels][R][4*VL], the tape's own layout (in place when the tape is consumed); dh, dc [N][Hp] between steps
//   U    panels [q][(p, gate, v)][4*VL], q over hidden columns: the k order of dG, so that rows of dG are broadcast as they lie
//
// dx, dW, dU and the biases wait until dG is complete (gradients.hpp). The product's tile is MR x 4 vectors, as forward.
// Called by the driver through the kernel table.
#pragma once

#include "seq_forward.hpp"
#include "unpacked.hpp"

namespace fastrnn::FR_ISA {
namespace {

// Slots first, first+1, ..., but for the last, which GRU's U has elsewhere.
template <class T>
FR_INLINE GateView<T> view_of(const Layout& layout, const void* dgates, bool interleaved, int first,
                              int count, int last) {
  GateView<T> view{static_cast<const T*>(dgates),
                   layout.rows,
                   layout.H,
                   layout.unit_panel,
                   interleaved,
                   1,
                   {first, last},
                   {count, 1}};
  if (last != first + count - 1) {
    view.runs = 2;
    view.gates[0] = count - 1;
  }
  return view;
}
template <class C, class T>
FR_INLINE GateView<T> view_for_input(const Layout& layout, const void* dgates) {
  return view_of<T>(layout, dgates, C::interleaved, 0, C::gates, C::gates - 1);
}

// acc += dG[row .. row+MR-1] B, k = (panel, gate, unit) in order; padding takes no part.
template <class T, int MR, int NV>
FR_INLINE void multiply_dgates(Vec<T> (&acc)[MR][NV], const GateView<T>& g, int64_t row,
                               const T* b) {
  constexpr int VL = lanes<T>;
  const T* panel = g.base;
  for (int64_t unit = 0; unit < g.H; unit += g.unit_panel, panel += g.R * 4 * VL) {
    const int64_t valid = min_of(g.unit_panel, g.H - unit);
    const int64_t stride = g.interleaved ? 4 * VL : (valid + VL - 1) / VL * VL;
    // The next panel's rows are megabytes further on, where no hardware prefetcher looks: dx ran at 60 % of the FMA peak.
    const T* next = panel + g.R * 4 * VL + row * stride;
    if (unit + g.unit_panel < g.H) {
      for (int64_t at = 0; at < MR * stride; at += 64 / static_cast<int64_t>(sizeof(T)))
        prefetch(next + at);
    }
    for (int i = 0; i < g.runs; ++i) {
      // The lanes of a run of gates are adjacent, unless padding comes between them.
      const bool whole = valid == g.unit_panel;
      const int64_t length = whole ? g.gates[i] * valid : valid;
      for (int j = 0; j < (whole ? 1 : g.gates[i]); ++j) {
        const T* a[MR];
#pragma GCC unroll 8
        for (int r = 0; r < MR; ++r) a[r] = panel + (row + r) * stride + (g.slot[i] + j) * VL;
        accumulate<T, FirstSlots<NV>>(acc, a, b, length);
        b += length * NV * VL;
      }
    }
  }
}

// Calls body(Int<NV>, first column) for blocks of 4*VL columns of a padded width.
template <class T, class Body>
FR_INLINE void for_column_blocks(Range columns, int64_t padded, Body body) {
  constexpr int VL = lanes<T>;
  for (int64_t column = columns.begin; column < columns.end; column += 4 * VL) {
    with_vectors((padded - column) / VL, [&](auto nv) FR_FLAT { body(nv, column); });
  }
}

// to[r] [NV*VL] (= or +=) dG[row + r] B for MR rows.
template <class T, int MR, int NV>
FR_TILE void product_tile(const GateView<T>& g, int64_t row, const T* b, const int64_t* n, T* out,
                          int64_t stride, bool add) {
  constexpr int VL = lanes<T>;
  Vec<T> acc[MR][NV];
#pragma GCC unroll 8
  for (int r = 0; r < MR; ++r) {
#pragma GCC unroll 4
    for (int j = 0; j < NV; ++j) acc[r][j] = add ? load(out + n[r] * stride + j * VL) : Vec<T>{};
  }
  multiply_dgates<T>(acc, g, row, b);
#pragma GCC unroll 8
  for (int r = 0; r < MR; ++r) {
#pragma GCC unroll 4
    for (int j = 0; j < NV; ++j) store(out + n[r] * stride + j * VL, acc[r][j]);
  }
}

// What a product with dG multiplies with: packed, or where that is null PyTorch's rows [K,H] as they lie.
template <class T>
struct StateWeights {
  const T *packed, *rows;
  int64_t K;  // rows
};

// The same for one row and U [K,H] as it lies. A function of its own: within step_product its registers would be saved at every
// step of those that have packed weights.
template <class T>
FR_TILE void unpacked_step(const GateView<T>& g, int64_t row, const T* u, T* to, bool add,
                           Range columns) {
  unpacked_product<T>(
      g, row, u, g.H, {columns.begin, min_of(columns.end, g.H)},
      [&](int64_t column, int64_t length, T* sums) FR_FLAT {
        for (int64_t c = 0; c < length; c += lanes<T>)
          store(sums + c, add ? load(to + column + c) : Vec<T>{});
      },
      [&](int64_t column, int64_t length, const T* sums) FR_FLAT {
        for (int64_t c = 0; c < length; c += lanes<T>) store(to + column + c, load(sums + c));
      });
}

// Of U's gates from the first-th on; two_phase cells have U_n behind the others.
template <class T>
FR_INLINE StateWeights<T> state_weights(const BackwardArgs& b, int64_t first, int64_t gates) {
  const int64_t H = b.layout.H;
  const T *packed = static_cast<const T*>(b.packed), *rows = static_cast<const T*>(b.weights);
  return {packed == nullptr ? packed : packed + first * H * b.layout.hidden_padded,
          packed != nullptr ? rows : rows + first * H * H, gates * H};
}

// The rows of one step in the tables, narrowed to the batch slice: n ascends within a step.
struct StepRows {
  int64_t begin, end, to_tape;
};
FR_INLINE int64_t lower_bound(const int64_t* n, int64_t begin, int64_t end, int64_t value) {
  while (begin < end) {
    const int64_t middle = (begin + end) / 2;
    if (n[middle] < value) {
      begin = middle + 1;
    } else {
      end = middle;
    }
  }
  return begin;
}
FR_INLINE StepRows rows_of(const BackwardArgs& b, int64_t step) {
  int64_t begin = b.tables.first[step], end = b.tables.first[step + 1];
  const int64_t to_tape = b.tables.tape_row[step] - begin;
  if (b.n_begin > 0) begin = lower_bound(b.tables.n, begin, end, b.n_begin);
  if (b.n_end < b.rows->seq.N) end = lower_bound(b.tables.n, begin, end, b.n_end);
  return {begin, end, to_tape};
}

// Rows of a step that are fetched beside a product, some at each of its tiles. By a pointer, so that cells share the product's
// code: 57 KB of it for each instruction set.
struct RowsAhead {
  void (*fetch_rows)(const BackwardArgs&, const StepRows&, Range);
  const BackwardArgs* b;
  StepRows rows;
  Range units;

  FR_TILE void fetch(int64_t first, int64_t count) const {
    const int64_t begin = rows.begin + first, end = min_of(begin + count, rows.end);
    if (begin < end) fetch_rows(*b, {begin, end, rows.to_tape}, units);
  }
};

// out[n[i]] [Hp] (= or +=) dG[row + i] U for i < count: one step's product. `ahead` fetches
// what lies at these places of another step on the way.
template <class T>
FR_TILE void step_product(const GateView<T>& g, int64_t row, int64_t count,
                          const StateWeights<T>& u, const int64_t* n, T* out, int64_t Hp, bool add,
                          Range columns, const RowsAhead* ahead) {
  if (u.packed != nullptr) {
    for_column_blocks<T>(columns, Hp, [&](auto nv, int64_t column) FR_FLAT {
      constexpr int NV = decltype(nv)::value;
      for_row_blocks(0, count, [&](auto mr, int64_t first) FR_FLAT {
        constexpr int MR = decltype(mr)::value;
        if (ahead != nullptr) ahead->fetch(first, MR);
        product_tile<T, MR, NV>(g, row + first, u.packed + column * u.K, n + first, out + column,
                                Hp, add);
      });
    });
    return;
  }
  for (int64_t i = 0; i < count; ++i)
    unpacked_step<T>(g, row + i, u.rows, out + n[i] * Hp, add, columns);
}

// Calls body(at, table row, first unit) for every vector of hidden units of every row of a step. A row's vectors one after the
// other: its lines are neighbours, which the hardware fetches ahead, and its pointers are read once. A training step took 0.96 of
// the time with the rows inside at N=8, T=1000, H=64, and 0.98 to 1.01 from N=16, H=64 to N=256, H=256 (Zen 4).
template <class C, class Body>
FR_INLINE void for_units(const BackwardArgs& b, const StepRows& rows, Range units, Body body) {
  using T = typename C::Element;
  constexpr int VL = lanes<T>, unit_panel = C::interleaved ? VL : 4 * VL;
  const Layout& layout = b.layout;
  const int64_t Hp = layout.hidden_padded;
  for (int64_t row = rows.begin; row < rows.end; ++row) {
    const int64_t to_state = b.tables.n[row] * Hp;
    const T *h = static_cast<const T*>(b.tables.h[row]),
            *u = static_cast<const T*>(b.tables.u[row]);
    const T *y = static_cast<const T*>(b.tables.y[row]),
            *dy = static_cast<const T*>(b.tables.dy[row]);
    const T *c_in = nullptr, *c_out = nullptr;
    if constexpr (C::has_c) {
      c_in = static_cast<const T*>(b.tables.c_in[row]);
      c_out = static_cast<const T*>(b.tables.c_out[row]);
    }
    for (int64_t unit = units.begin; unit < units.end; unit += VL) {
      const int64_t p = unit / unit_panel, in_panel = unit - p * unit_panel;
      const int64_t width = C::interleaved ? 4 * VL : min_of(4 * VL, Hp - p * unit_panel);
      const int64_t g = p * layout.rows * 4 * VL + (row + rows.to_tape) * width + in_panel;
      BackwardRow<T> at{};
      if constexpr (C::keeps_gates) at.gates = static_cast<const T*>(b.gates) + g;
      at.dgates = static_cast<T*>(b.dgates) + g;
      at.h = h + unit;
      at.u = u + unit;
      at.y = y + unit;
      if (dy != nullptr) at.dy = dy + unit;
      at.dh = static_cast<T*>(b.dh) + to_state + unit;
      if constexpr (C::has_c) {
        at.c_in = c_in + unit;
        at.c_out = c_out + unit;
        at.dc = static_cast<T*>(b.dc) + to_state + unit;
      }
      at.valid = layout.H - unit;
      body(at, row, unit);
    }
  }
}

template <class T>
void zero_state_grad(const BackwardArgs& b, int64_t n, Range units) {
  const size_t bytes = static_cast<size_t>(units.end - units.begin) * sizeof(T);
  const int64_t at = n * b.layout.hidden_padded + units.begin;
  std::memset(static_cast<T*>(b.dh) + at, 0, bytes);
  if (b.dc != nullptr) std::memset(static_cast<T*>(b.dc) + at, 0, bytes);
}

// Masked (t, n): y repeats h, so its gradient joins dh; a reset there ends both.
template <class T>
FR_TILE void held_rows(const BackwardArgs& b, int64_t step, Range units) {
  constexpr int VL = lanes<T>;
  for (int64_t i = b.tables.held_first[step]; i < b.tables.held_first[step + 1]; ++i) {
    const int64_t n = b.tables.held_n[i];
    if (n < b.n_begin || n >= b.n_end) continue;
    T* dh = static_cast<T*>(b.dh) + n * b.layout.hidden_padded;
    const T* dy = static_cast<const T*>(b.tables.held_dy[i]);
    if (b.tables.held_cut[i] != 0) {
      zero_state_grad<T>(b, n, units);
    } else if (dy != nullptr) {
      for (int64_t u = units.begin; u < min_of(units.end, b.layout.H); u += VL)
        store(dh + u, load(dh + u) + load_n(dy + u, b.layout.H - u));
    }
  }
}

// What the cell will touch of these rows. A function of its own, so that the product keeps its registers.
template <class C>
FR_TILE void fetch_rows(const BackwardArgs& b, const StepRows& rows, Range units) {
  using T = typename C::Element;
  for_units<C>(b, rows, units, [&](const BackwardRow<T>& at, int64_t, int64_t) FR_FLAT {
    C::fetch(at);
    if (at.dy != nullptr) prefetch_l2(at.dy);
  });
  has_effect();
}

template <class C>
FR_TILE const RowsAhead* begin_ahead(RowsAhead& ahead, const BackwardArgs& b, int64_t step,
                                     Range units) {
  ahead = {fetch_rows<C>, &b, rows_of(b, step), units};
  return &ahead;
}

// out [N][Hp] (= or +=) dG U, a range of units of a step's rows, once their dG is complete.
//
// Beside it come the rows that the cell works on next, of the step before: pieces of 256 bytes a row apart, which the hardware
// does not see coming. Of the RNN the cell takes 35 instead of 86 cycles a vector and the time loop 0.88 of the time (N=256,
// I=H=256, Zen 4), 0.93 at N=32; of a GRU, N=16, T=200, H=128, 0.96. Fetched into L1 they push dG and U out of it, and the
// product takes 12 % longer; dG's lines fetched to be written instead won nothing.
template <class C>
FR_TILE void state_product(const BackwardArgs& b, int64_t step, void* out, bool add, Range units) {
  using T = typename C::Element;
  using U = typename PanelSlots<C, C::interleaved ? 4 : 1>::U;
  const GateView<T> view =
      view_of<T>(b.layout, b.dgates, C::interleaved, 0, U::count, U::at[U::count - 1]);
  const StepRows rows = rows_of(b, step);
  RowsAhead ahead;
  const RowsAhead* next = b.far && step > 0 ? begin_ahead<C>(ahead, b, step - 1, units) : nullptr;
  step_product<T>(view, rows.begin + rows.to_tape, rows.end - rows.begin,
                  state_weights<T>(b, 0, U::count), b.tables.n + rows.begin, static_cast<T*>(out),
                  b.layout.hidden_padded, add, units, next);
}

// Gradients end at a reset before the step.
template <class T>
FR_TILE void cut_rows(const BackwardArgs& b, int64_t step, Range units) {
  if (b.rows->seq.reset == nullptr) return;
  const StepRows rows = rows_of(b, step);
  for (int64_t row = rows.begin; row < rows.end; ++row) {
    if (b.tables.cut[row] != 0) zero_state_grad<T>(b, b.tables.n[row], units);
  }
}

// GRU with reset before: drh = dn U_n for all units, then what follows from it.
// place(at, row, unit) may say where the share of dh goes.
template <class C, class P, class Place>
FR_INLINE void second_pass(const BackwardArgs& b, int64_t step, Range units, Place place) {
  using T = typename C::Element;
  using U = typename PanelSlots<C, 4>::U;
  const int64_t Hp = b.layout.hidden_padded;
  const StepRows rows = rows_of(b, step);
  T* drh = static_cast<T*>(b.drh);
  step_product<T>(view_of<T>(b.layout, b.dgates, true, 2, 1, 2), rows.begin + rows.to_tape,
                  rows.end - rows.begin, state_weights<T>(b, U::count, 1), b.tables.n + rows.begin,
                  drh, Hp, false, units, nullptr);
  for_units<C>(b, rows, units, [&](BackwardRow<T>& at, int64_t row, int64_t unit) FR_FLAT {
    place(at, row, unit);
    T* rh = static_cast<T*>(b.rh) + (row + rows.to_tape) * Hp + unit;
    C::template second_backward<P>(at, drh + b.tables.n[row] * Hp + unit, rh);
  });
}

// Row (t, n) of dh_all or dc_all at a step and place of b.
template <class T>
FR_INLINE T* noted_at(const BackwardArgs& b, const Operand& all, int64_t step, int64_t place) {
  const Sequence& seq = b.rows->seq;
  return reinterpret_cast<T*>(all.base + time_of(seq, b.begin + step) * all.step +
                              caller_row(seq, place) * all.row);
}

// The gradient of c as the cell made it; `at` is what the cell gets.
template <class C, class P>
FR_INLINE void note_c(const BackwardArgs& b, int64_t step, int64_t row, int64_t unit,
                      const BackwardRow<typename C::Element>& at) {
  using T = typename C::Element;
  if constexpr (C::has_c) {
    if (b.dc_all.base == nullptr) return;
    const Vec<T> o = load(at.gates + 3 * lanes<T>), tc = P::cell(load(at.c_out));
    store_n(noted_at<T>(b, b.dc_all, step, b.tables.n[row]) + unit,
            C::template c_gradient<P>(at, whole_gradient(at), o, tc), at.valid);
  }
}

// What backward goes through and forgets, for those who want to see it: fastrnn_backward_args::dh_all, dc_all. Before anything
// of the step; a function of its own, so that backward_loop keeps its registers.
template <class C, class Steps>
FR_TILE void note_step(const BackwardArgs& b, int64_t step, Range units) {
  using T = typename C::Element;
  constexpr int VL = lanes<T>;
  for_units<C>(b, rows_of(b, step), units,
               [&](const BackwardRow<T>& at, int64_t row, int64_t unit) FR_FLAT {
                 T* to = noted_at<T>(b, b.dh_all, step, b.tables.n[row]);
                 store_n(to + unit, whole_gradient(at), at.valid);
                 Steps::note(b, step, row, unit, at);
               });
  if (b.rows->seq.mask == nullptr) return;
  for (int64_t i = b.tables.held_first[step]; i < b.tables.held_first[step + 1]; ++i) {
    const int64_t n = b.tables.held_n[i], from = n * b.layout.hidden_padded;
    if (n < b.n_begin || n >= b.n_end) continue;
    for (int64_t u = units.begin; u < min_of(units.end, b.layout.H); u += VL) {
      BackwardRow<T> at{};
      at.dh = static_cast<T*>(b.dh) + from + u;
      at.valid = b.layout.H - u;
      if (b.tables.held_dy[i] != nullptr) at.dy = static_cast<const T*>(b.tables.held_dy[i]) + u;
      store_n(noted_at<T>(b, b.dh_all, step, n) + u, whole_gradient(at), at.valid);
      if (b.dc_all.base != nullptr)
        store_n(noted_at<T>(b, b.dc_all, step, n) + u, load(static_cast<T*>(b.dc) + from + u),
                at.valid);
    }
  }
}

// What a step consists of: the cell's derivatives, those after the product with U_n (GRU with reset before), and dh of the
// state before. RegularSteps has the same with recurrent dropout and zoneout.
template <class C, class P>
struct PlainSteps {
  using T = typename C::Element;
  static FR_INLINE void cell(const BackwardArgs& b, int64_t step, Range units) {
    for_units<C>(b, rows_of(b, step), units,
                 [&](const BackwardRow<T>& at, int64_t, int64_t)
                     FR_FLAT { C::template backward<P>(at); });
  }
  static FR_INLINE void second(const BackwardArgs& b, int64_t step, Range units) {
    second_pass<C, P>(b, step, units, [](BackwardRow<T>&, int64_t, int64_t) FR_FLAT {});
  }
  static FR_INLINE void state(const BackwardArgs& b, int64_t step, Range units) {
    state_product<C>(b, step, b.dh, C::carries, units);
  }
  static FR_INLINE void note(const BackwardArgs& b, int64_t step, int64_t row, int64_t unit,
                             const BackwardRow<T>& at) {
    note_c<C, P>(b, step, row, unit, at);
  }
};
template <class C, class P>
struct RegularSteps;  // regular_backward.hpp

// What note_step goes by. dh does not depend on what the cell makes of it: without c, one copy does for all.
template <class C, class Steps, bool HasC = C::has_c>
struct Noting {
  using type = Steps;
};
template <class C, class Steps>
struct Noting<C, Steps, false> {
  using type = PlainSteps<C, Standard<typename C::Element>>;
};

// A step's product and the elementwise work of the step before need the same units of dh only: one phase a step.
template <class C, class Steps>
FR_INLINE void backward_loop(BackwardArgs& b) {
  using T = typename C::Element;
  constexpr int block = 4 * lanes<T>;
  const int64_t Hp = b.layout.hidden_padded, blocks = (Hp + block - 1) / block;
  const int64_t last = b.steps - 1;
  const auto units = [&](auto body) FR_FLAT {
    phase(b.team, blocks,
          [&](int64_t item) FR_FLAT { body(Range{item * block, min_of((item + 1) * block, Hp)}); });
  };
  const auto state_grad = [&](int64_t step, Range part) FR_FLAT {
    Steps::state(b, step, part);
    cut_rows<T>(b, step, part);
  };
  for (int64_t step = last; step >= 0; --step) {
    units([&](Range part) FR_FLAT {
      if (step < last) state_grad(step + 1, part);
      if (b.dh_all.base != nullptr) note_step<C, typename Noting<C, Steps>::type>(b, step, part);
      if (b.rows->seq.mask != nullptr) held_rows<T>(b, step, part);
      Steps::cell(b, step, part);
    });
    if constexpr (C::two_phase) units([&](Range part) FR_FLAT { Steps::second(b, step, part); });
  }
  if (last >= 0 && b.last_product) units([&](Range part) FR_FLAT { state_grad(0, part); });
}

template <class C>
void seq_backward(const BackwardArgs& args) {
  BackwardArgs b = args;
  with_policy<typename C::Element, C::has_relu>(b.activation, [&](auto policy) FR_FLAT {
    using P = decltype(policy);
    if (b.rows->regular == nullptr) {
      backward_loop<C, PlainSteps<C, P>>(b);
    } else {
      backward_loop<C, RegularSteps<C, P>>(b);
    }
  });
}

}  // namespace
}  // namespace fastrnn::FR_ISA
