// One row at a time: the steps of forward that have one row, bound by latency and by the bandwidth of the weights.
//
//   for step:  for a group of P panels:  acc[P][A] = xg (or bias + W x);  acc += U h;  cell on the P tiles -> y, c, tape
//
//   a tile of 6 rows waits for nobody: 24 chains of multiply-adds. One row of one panel is 4 chains, exactly the latency of a
//   multiply-add, and behind them the chain of the activations (about 150 cycles, LSTM, Zen 4) has nothing to hide behind.
//   P = 2: 8 chains, and the activations of two panels overlap.
//
// Where one group is the whole layer (H <= 2 vectors, RNN 4), all steps of a chunk run in one call, and h stays in registers:
// 59.5 instead of 62.5 ns a step out of a buffer, LSTM 1->16 (Zen 4). A single step of a caller's (seq_step) reads h in pieces
// of 16 bytes: a whole vector, that the step before has stored, comes 20 cycles later than they do, 68 instead of 63 ns. It
// writes h first, since the caller's next step waits for that. Registers: 8 accumulators, 4 broadcasts, 2 of h; the weights are
// memory operands of the multiply-adds.
//
// Each accumulator takes bias, x and h in the order of gemm.hpp: the bits are those of a tile of many rows.
// Called by seq_forward.hpp; step_row by the driver, through the kernel table.
#pragma once

#include "pack.hpp"

namespace fastrnn::FR_ISA {
namespace {

// acc[p] += b * w[p][k] for P panels.
template <class T, class S, int P, int A>
FR_INLINE void accumulate_k(Vec<T> (&acc)[P][A], Vec<T> b, const T* const (&w)[P], int64_t k) {
  constexpr int VL = lanes<T>, width = S::count * VL;
#pragma GCC unroll 8
  for (int p = 0; p < P; ++p) {
#pragma GCC unroll 8
    for (int j = 0; j < S::count; ++j)
      acc[p][S::at[j]] = fma(b, load(w[p] + k * width + j * VL), acc[p][S::at[j]]);
  }
}

// acc[p] += a[k] * w[p][k], k = 0, 1, 2, ...
template <class T, class S, int P, int A>
FR_INLINE void accumulate_panels(Vec<T> (&acc)[P][A], const T* a, const T* const (&w)[P],
                                 int64_t K) {
  constexpr int B = broadcasts<T>;
  int64_t k = 0;
  for (; k + B <= K; k += B) {
    Vec<T> b[B];
    broadcast_each(b, repeated(a + k));
#pragma GCC unroll 4
    for (int i = 0; i < B; ++i) accumulate_k<T, S>(acc, b[i], w, k + i);
  }
  for (; k < K; ++k) accumulate_k<T, S>(acc, set1(a[k]), w, k);
}

// The same with a in registers: K elements in N vectors.
template <class T, class S, int P, int A, int N>
FR_INLINE void accumulate_state(Vec<T> (&acc)[P][A], const Vec<T> (&a)[N], const T* const (&w)[P],
                                int64_t K) {
  constexpr int VL = lanes<T>, B = broadcasts<T>;
#pragma GCC unroll 4
  for (int n = 0; n < N; ++n) {
    const int64_t end = n + 1 < N ? (n + 1) * VL : K;
    Vec<T> left = a[n], b[B];
    int64_t k = n * VL;
    for (; k + B <= end; k += B) {
      broadcast_each(b, repeated(left));
      left = turned(left);
#pragma GCC unroll 4
      for (int i = 0; i < B; ++i) accumulate_k<T, S>(acc, b[i], w, k + i);
    }
    broadcast_each(b, repeated(left));
#pragma GCC unroll 4
    for (int i = 0; i < B; ++i) {
      if (k + i < end) accumulate_k<T, S>(acc, b[i], w, k + i);
    }
  }
}

// P panels from the p-th on.
template <class C, int P, int NV>
struct Group {
  using T = typename C::Element;
  using S = PanelSlots<C, NV>;
  static constexpr int units = C::interleaved ? lanes<T> : NV * lanes<T>;  // of a panel
  const T *bias[P], *w[P], *u[P];

  FR_INLINE Group(const void* packed, const Layout& layout, int64_t p) {
#pragma GCC unroll 4
    for (int i = 0; i < P; ++i) {
      const Panel<C, NV> panel(static_cast<const T*>(packed) + (p + i) * layout.panel_size, layout);
      bias[i] = panel.bias;
      w[i] = panel.w;
      u[i] = panel.u;
    }
  }

  // Accumulators before U h: bias + W x.
  FR_INLINE void seed(Vec<T> (&acc)[P][S::columns], const T* x, int64_t I) const {
    seed_biases(acc);
    accumulate_panels<T, typename S::X>(acc, x, w, I);
  }
  // Likewise, of a projected row: of the first panel at xg, of the next xg_stride further on.
  FR_INLINE void seed_projected(Vec<T> (&acc)[P][S::columns], const T* xg,
                                int64_t xg_stride) const {
    using X = typename S::X;
    seed_biases(acc);  // of what W does not feed
#pragma GCC unroll 4
    for (int i = 0; i < P; ++i) {
#pragma GCC unroll 8
      for (int j = 0; j < X::count; ++j) acc[i][X::at[j]] = load(xg + i * xg_stride + j * lanes<T>);
    }
  }

 private:
  FR_INLINE void seed_biases(Vec<T> (&acc)[P][S::columns]) const {
#pragma GCC unroll 4
    for (int i = 0; i < P; ++i) {
#pragma GCC unroll 8
      for (int j = 0; j < S::columns; ++j) acc[i][j] = load(bias[i] + j * lanes<T>);
    }
  }
};

// A row [n] in N vectors.
template <class T, int N>
FR_INLINE void load_row(Vec<T> (&v)[N], const T* from, int64_t n) {
#pragma GCC unroll 4
  for (int i = 0; i < N; ++i) {
    if (i * lanes<T> < n) v[i] = load_n(from + i * lanes<T>, n - i * lanes<T>);
  }
}
template <class T, int N>
FR_INLINE void store_row(T* to, const Vec<T> (&v)[N], int64_t n) {
#pragma GCC unroll 4
  for (int i = 0; i < N; ++i) {
    if (i * lanes<T> < n) store_n(to + i * lanes<T>, v[i], n - i * lanes<T>);
  }
}

// The cell on all panels of a layer: h [P*V], in registers, before the step becomes that after it. at(i): where panel i's row has
// the rest.
template <class C, class Policy, bool Keep, int P, int A, int N, class At>
FR_INLINE void finish_group(const Vec<typename C::Element> (&acc)[P][A],
                            Vec<typename C::Element> (&h)[N], At at) {
  using T = typename C::Element;
  constexpr int VL = lanes<T>, V = N / P;
#pragma GCC unroll 4
  for (int i = 0; i < P; ++i) {
    alignas(vector_bytes) T in[V * VL], out[V * VL];  // registers, once all of this is inlined
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) store(in + v * VL, h[i * V + v]);
    ForwardRow<T> row = at(i);
    row.h = row.u = in;
    row.y = out;
    row.valid = V * VL;
    C::template forward<Policy, Keep>(acc[i], row);
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) h[i * V + v] = load(out + v * VL);
  }
}

// Steps [begin, end) of the tables, each of at most one row, for panels p .. p+P-1 of NV vectors each. All: they are all panels.
template <class C, bool Keep, int P, int NV, bool All>
FR_TILE void single_tile(const ForwardArgs& f, int64_t p, int64_t begin, int64_t end,
                         const typename C::Element* xg, int64_t xg_stride) {
  using T = typename C::Element;
  using S = PanelSlots<C, NV>;
  using G = Group<C, P, NV>;
  const RowTables& tables = f.tables;
  const G group(f.packed, f.layout, p);
  const int64_t H = f.layout.H, first = p * f.layout.unit_panel;
  Vec<T> state[All ? P * G::units / lanes<T> : 1]{};  // h at in_state
  const void* in_state = nullptr;
  for (int64_t step = begin; step < end; ++step) {
    const int64_t row = tables.first[step];
    if (All && tables.first[step + 1] == row) continue;
    Vec<T> acc[P][S::columns];
    if (xg == nullptr) {
      group.seed(acc, static_cast<const T*>(tables.x[row]), f.layout.I);
    } else {
      group.seed_projected(acc, xg + row * S::X::count * lanes<T>, xg_stride);
    }
    const T* h = static_cast<const T*>(tables.u[row]);
    const auto at = [&](int i) FR_FLAT {
      return row_at<C, Keep>(f, p + i, first + i * G::units, row, tables.tape_row[step]);
    };
    if constexpr (All) {
      if (h != in_state) load_row(state, h, H);
      accumulate_state<T, typename S::U>(acc, state, group.u, H);
    } else {
      accumulate_panels<T, typename S::U>(acc, h, group.u, f.depth);
    }
    with_policy<T, C::has_relu>(f.activation, [&](auto policy) FR_FLAT {
      if constexpr (All) {
        finish_group<C, decltype(policy), Keep>(acc, state, at);
      } else {
#pragma GCC unroll 4
        for (int i = 0; i < P; ++i)
          finish_row<C, decltype(policy), Keep>(f, acc[i], at(i), first + i * G::units, 0);
      }
    });
    if constexpr (All) store_row(static_cast<T*>(tables.y[row]), state, H);
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
      single_tile<C, Keep, 2, 4, false>(f, 2 * item, step, step + 1, xg_of(2 * item), xg_stride);
    } else {
      with_panel<C>(f.layout, item + pairs, [&](auto nv, int64_t p, int64_t unit) FR_FLAT {
        ready_panel<C, decltype(nv)::value>(f, unit);
        single_tile<C, Keep, 1, decltype(nv)::value, false>(f, p, step, step + 1, xg_of(p), 0);
      });
    }
  });
}

// Panels of the largest layer that is one group.
template <class C>
constexpr int64_t group_panels = C::two_phase     ? 0
                                 : C::interleaved ? 2
                                                  : 1;

// Calls body(Int<P>, Int<NV>) with what a layer of one group of panels is made of; false: it has more of them.
template <class C, class Body>
FR_INLINE bool with_group(const Layout& layout, Body body) {
  if (layout.panels > group_panels<C>) return false;
  if constexpr (C::interleaved) {
    if constexpr (!C::two_phase) {
      if (layout.panels == 2) {
        body(Int<2>{}, Int<4>{});
      } else {
        body(Int<1>{}, Int<4>{});
      }
    }
  } else {
    with_panel<C>(layout, 0, [&](auto nv, int64_t, int64_t) FR_FLAT { body(Int<1>{}, nv); });
  }
  return true;
}

// All steps of the tables at once, if the layer is small enough and has one row; false: it is not.
template <class C, bool Keep>
FR_INLINE bool single_steps(const ForwardArgs& f, int64_t steps, int64_t capacity) {
  using T = typename C::Element;
  if (f.unpacked != nullptr || f.team.size > 1) return false;
  if (f.rows->n_end - f.rows->n_begin != 1) return false;
  const int64_t xg_stride = capacity * PanelSlots<C, 4>::X::count * lanes<T>;
  return with_group<C>(f.layout, [&](auto p, auto nv) FR_FLAT {
    single_tile<C, Keep, decltype(p)::value, decltype(nv)::value, true>(
        f, 0, 0, steps, static_cast<const T*>(f.projection), xg_stride);
  });
}

// One step of one row of such a layer, states in place: x [I], h and c [H] inout, y [H].
template <class C, int P, int NV>
FR_TILE void step_tile(const Layout& layout, Activation activation, const void* packed,
                       const void* x, void* h, void* c, void* y) {
  using T = typename C::Element;
  using S = PanelSlots<C, NV>;
  using G = Group<C, P, NV>;
  constexpr int vectors = P * G::units / lanes<T>;
  const G group(packed, layout, 0);
  Vec<T> acc[P][S::columns], state[vectors]{}, cell[vectors]{};
  group.seed(acc, static_cast<const T*>(x), layout.I);
  accumulate_panels<T, typename S::U>(acc, static_cast<const T*>(h), group.u, layout.H);
  load_row(state, static_cast<const T*>(h), layout.H);
  alignas(vector_bytes) T c_row[P * G::units];  // registers too
  if constexpr (C::has_c) {
    load_row(cell, static_cast<const T*>(c), layout.H);
    store_row(c_row, cell, P * G::units);
  }
  with_policy<T, C::has_relu>(activation, [&](auto policy) FR_FLAT {
    finish_group<C, decltype(policy), false>(acc, state, [&](int i) FR_FLAT {
      ForwardRow<T> at{};
      at.c_in = at.c_out = c_row + i * G::units;
      return at;
    });
  });
  store_row(static_cast<T*>(h), state, layout.H);
  store_row(static_cast<T*>(y), state, layout.H);
  if constexpr (C::has_c) {
    load_row(cell, c_row, P * G::units);
    store_row(static_cast<T*>(c), cell, layout.H);
  }
}

// For layers of at most group_panels.
template <class C>
void step_row(const Layout& layout, Activation activation, const void* packed, const void* x,
              void* h, void* c, void* y) {
  with_group<C>(layout, [&](auto p, auto nv) FR_FLAT {
    step_tile<C, decltype(p)::value, decltype(nv)::value>(layout, activation, packed, x, h, c, y);
  });
}

}  // namespace
}  // namespace fastrnn::FR_ISA
