// One row at a time: the steps of forward that have one row, bound by latency and by the bandwidth of the weights.
//
//   for step:  for a group of P panels:  acc[P][A] = xg (or bias + W x);  acc += U h;  cell on the P tiles -> y, c, tape
//
//   a tile of 6 rows waits for nobody: 24 chains of multiply-adds. One row of one panel is 4 chains, exactly the latency of a
//   multiply-add, and behind them the chain of the activations (about 150 cycles, LSTM, Zen 4) has nothing to hide behind.
//   P = 2: 8 chains, and the activations of two panels overlap.
//
// Where one group is the whole layer (H <= 2 vectors), all steps of a chunk run in one call, and h lies in a buffer of this
// function: a row of y may end within a vector or lie across lines, and such a store is not forwarded to the loads of the
// next step. A single step of a caller's (seq_step) has read all of h when it writes, so it writes h first, from registers,
// since the caller's next step waits for that. Registers: 8 accumulators, 4 broadcasts; the weights are memory operands of the
// multiply-adds.
//
// Each accumulator takes bias, x and h in the order of gemm.hpp: the bits are those of a tile of many rows.
// Called by seq_forward.hpp.
#pragma once

#include "pack.hpp"

namespace fastrnn::FR_ISA {
namespace {

// acc[p] += a[k] * w[p][k] for P panels, k = 0, 1, 2, ...
template <class T, class S, int P, int A>
FR_INLINE void accumulate_panels(Vec<T> (&acc)[P][A], const T* a, const T* const (&w)[P],
                                 int64_t K) {
  constexpr int VL = lanes<T>, width = S::count * VL, B = broadcasts<T>;
  const auto at_k = [&](Vec<T> b, int64_t k) FR_FLAT {
#pragma GCC unroll 8
    for (int p = 0; p < P; ++p) {
#pragma GCC unroll 8
      for (int j = 0; j < S::count; ++j)
        acc[p][S::at[j]] = fma(b, load(w[p] + k * width + j * VL), acc[p][S::at[j]]);
    }
  };
  int64_t k = 0;
  for (; k + B <= K; k += B) {
    Vec<T> b[B];
    broadcast_each(b, a + k);
#pragma GCC unroll 4
    for (int i = 0; i < B; ++i) at_k(b[i], k + i);
  }
  for (; k < K; ++k) at_k(set1(a[k]), k);
}

// One step's accumulators before U h: the projected row, or bias + W x. xg: row `row` of the first panel begins X*VL*row
// further on, the next panel xg_stride; null: x enters here.
template <class C, int P, int NV, int A>
FR_INLINE void seed_panels(Vec<typename C::Element> (&acc)[P][A], const ForwardArgs& f,
                           const Panel<C, NV> (&panel)[P], int64_t row,
                           const typename C::Element* xg, int64_t xg_stride) {
  using T = typename C::Element;
  using X = typename PanelSlots<C, NV>::X;
  constexpr int VL = lanes<T>;
#pragma GCC unroll 4
  for (int i = 0; i < P; ++i) {
#pragma GCC unroll 8
    for (int j = 0; j < A; ++j) acc[i][j] = load(panel[i].bias + j * VL);
  }
  if (xg == nullptr) {
    const T* w[P];
    for (int i = 0; i < P; ++i) w[i] = panel[i].w;
    accumulate_panels<T, X>(acc, static_cast<const T*>(f.tables.x[row]), w, f.layout.I);
    return;
  }
#pragma GCC unroll 4
  for (int i = 0; i < P; ++i) {
#pragma GCC unroll 8
    for (int j = 0; j < X::count; ++j)
      acc[i][X::at[j]] = load(xg + i * xg_stride + (row * X::count + j) * VL);
  }
}

// from [n] -> to [n], n at most `most`.
template <class T>
FR_INLINE void copy_row(T* to, const T* from, int64_t n, int64_t most) {
  constexpr int VL = lanes<T>;
  for (int64_t k = 0; k < most && k < n; k += VL) store_n(to + k, load_n(from + k, n - k), n - k);
}

// Which panels a tile's are, and where it leaves h: some of them, in y alone; all of them, in a buffer too, or in place of h before.
enum class Part { some, all_buffered, all_in_place };

// Steps [begin, end) of the tables, each of at most one row, for panels p .. p+P-1 of NV vectors each.
template <class C, bool Keep, int P, int NV, Part Panels>
FR_TILE void single_tile(const ForwardArgs& f, int64_t p, int64_t begin, int64_t end,
                         const typename C::Element* xg, int64_t xg_stride) {
  using T = typename C::Element;
  using S = PanelSlots<C, NV>;
  constexpr int VL = lanes<T>, units = C::interleaved ? VL : NV * VL;
  constexpr bool Buffered = Panels == Part::all_buffered;
  const RowTables& tables = f.tables;
  Panel<C, NV> panel[P];
  const T* u[P];
  for (int i = 0; i < P; ++i) {
    panel[i] =
        Panel<C, NV>(static_cast<const T*>(f.packed) + (p + i) * f.layout.panel_size, f.layout);
    u[i] = panel[i].u;
  }
  const int64_t H = f.layout.H, depth = Panels == Part::some ? f.depth : H;
  const int64_t first = p * f.layout.unit_panel;
  alignas(vector_bytes) T state[Buffered ? P * units : 1];
  const void* in_state = nullptr;
  for (int64_t step = begin; step < end; ++step) {
    const int64_t row = tables.first[step];
    if (Buffered && tables.first[step + 1] == row) continue;
    Vec<T> acc[P][S::columns];
    seed_panels<C>(acc, f, panel, row, xg, xg_stride);
    const T* h = static_cast<const T*>(tables.u[row]);
    if constexpr (Buffered) {
      if (h != in_state) {
        for (int64_t k = 0; k < H; k += VL) store(state + k, load_n(h + k, H - k));
      }
      h = state;
    }
    accumulate_panels<T, typename S::U>(acc, h, u, depth);
    with_policy<T, C::has_relu>(f.activation, [&](auto policy) FR_FLAT {
#pragma GCC unroll 4
      for (int i = 0; i < P; ++i) {
        const int64_t unit = first + i * units;
        ForwardRow<T> at = row_at<C, Keep>(f, p + i, unit, row, tables.tape_row[step]);
        T* const y = at.y;
        if constexpr (Buffered) {
          at.h = at.y = state + i * units;
          at.valid = units;
        } else if constexpr (Panels == Part::all_in_place) {
          at.y = static_cast<T*>(const_cast<void*>(tables.h[row])) + unit;
        }
        finish_row<C, decltype(policy), Keep>(f, acc[i], at, unit, 0);
        if constexpr (Panels != Part::some) copy_row(y, at.y, H - unit, units);
      }
    });
    in_state = tables.y[row];
  }
}

// Panels a thread from which they go by twos. U of 16 panels (1 MB, LSTM, AVX-512) is beyond L2, where two streams keep more
// lines under way than one: 7.2 instead of 7.8 microseconds a step, GRU 1->256. Below, one panel at a time leaves more of the
// last ones in L1 for the next step, which takes them backwards: 2.38 instead of 2.44, LSTM 1->128.
constexpr int64_t pairs_from = 16;

// One step of one row: panels by twos where each thread has several pairs.
template <class C, bool Keep>
FR_INLINE void single_phase(ForwardArgs& f, int64_t step, int64_t capacity) {
  using T = typename C::Element;
  constexpr int X = C::interleaved ? PanelSlots<C, 4>::X::count : 4;
  const int64_t xg_stride = capacity * X * lanes<T>;
  const T* xg = static_cast<const T*>(f.projection);
  const auto xg_of = [&](int64_t p) FR_FLAT { return xg == nullptr ? xg : xg + p * xg_stride; };
  // Pairs have full panels only: the RNN's last may be narrower.
  const int64_t panels = f.layout.panels, full = f.layout.hidden_padded / f.layout.unit_panel;
  const bool paired = f.unpacked == nullptr && panels >= pairs_from * f.team.size;
  const int64_t pairs = paired ? full / 2 : 0;
  phase(f.team, panels - pairs, [&](int64_t item) FR_FLAT {
    if (item < pairs) {
      single_tile<C, Keep, 2, 4, Part::some>(f, 2 * item, step, step + 1, xg_of(2 * item),
                                             xg_stride);
    } else {
      with_panel<C>(f.layout, item + pairs, [&](auto nv, int64_t p, int64_t unit) FR_FLAT {
        ready_panel<C, decltype(nv)::value>(f, unit);
        single_tile<C, Keep, 1, decltype(nv)::value, Part::some>(f, p, step, step + 1, xg_of(p), 0);
      });
    }
  });
}

// Calls body(Int<P>, Int<NV>) with what a layer of one group of panels is made of; false: it has more of them.
template <class C, class Body>
FR_INLINE bool with_group(const Layout& layout, Body body) {
  if constexpr (C::two_phase) {
    return false;
  } else if constexpr (C::interleaved) {
    if (layout.panels > 2) return false;
    if (layout.panels == 2) {
      body(Int<2>{}, Int<4>{});
    } else {
      body(Int<1>{}, Int<4>{});
    }
    return true;
  } else {
    if (layout.panels > 1) return false;
    with_panel<C>(layout, 0, [&](auto nv, int64_t, int64_t) FR_FLAT { body(Int<1>{}, nv); });
    return true;
  }
}

// All steps of the tables at once, if the layer is small enough and has one row; false: it is not.
template <class C, bool Keep>
FR_INLINE bool single_steps(const ForwardArgs& f, int64_t steps, int64_t capacity) {
  using T = typename C::Element;
  if (f.unpacked != nullptr || f.team.size > 1) return false;
  if (f.rows->n_end - f.rows->n_begin != 1) return false;
  const int64_t xg_stride = capacity * PanelSlots<C, 4>::X::count * lanes<T>;
  return with_group<C>(f.layout, [&](auto p, auto nv) FR_FLAT {
    single_tile<C, Keep, decltype(p)::value, decltype(nv)::value, Part::all_buffered>(
        f, 0, 0, steps, static_cast<const T*>(f.projection), xg_stride);
  });
}

}  // namespace
}  // namespace fastrnn::FR_ISA
