// The gradients that need no order in time, once dG is complete for all R rows: products of full size.
//
//   dx = dG W            tile MR rows x 4 vectors of I, k over (panel, gate, unit); W panels as U's in seq_backward.hpp
//   dW = dG^T x          tile MR columns of x x the gates of VL units, k over rows; dU = dG^T h_prev likewise; db = sum dG
//
//   scratch of one panel   [I][X][VL] | [H][U][VL] | (r*h part [H][VL]) | [4][VL]   then written out as PyTorch's [G*H,K]
//
// The vector operand, dG [panels][R][4*VL], is one contiguous stream; rows of x and h are broadcast through the pointer
// table. Rows are taken in blocks that keep x (or h) in L2 while every panel passes over it, wide ones in parts of their
// columns (outer_product); accumulators return to scratch between blocks, so each sum has one order, that of the rows: the
// same for any number of threads. Where gates are computed again, the rows come in several calls, a segment of steps each, the
// last segment first, and the sums run through them all.
// Called by the driver through the kernel table.
#pragma once

#include "seq_backward.hpp"
#include "transpose.hpp"

namespace fastrnn::FR_ISA {
namespace {

// dx of MR rows, columns column .. column+NV*VL-1. Its lines are fetched first: 0.92 to 1.00 of the time without (RNN, H=128 to
// 512, LSTM and GRU, H=64 to 256, Zen 4).
template <class T, int MR, int NV>
FR_TILE void input_tile(const GateView<T>& g, const InputGradArgs& args, int64_t row,
                        int64_t column, const T* w) {
  constexpr int VL = lanes<T>;
  Vec<T> acc[MR][NV] = {};
#pragma GCC unroll 8
  for (int r = 0; r < MR; ++r)
    prefetch_to_write<NV>(static_cast<const T*>(args.dx[row + r]) + column);
  multiply_dgates<T>(acc, g, row, w);
#pragma GCC unroll 8
  for (int r = 0; r < MR; ++r) {
    T* to = static_cast<T*>(args.dx[row + r]) + column;
#pragma GCC unroll 4
    for (int j = 0; j < NV; ++j) {
      const int64_t left = args.layout.I - column - j * VL;
      store_n(to + j * VL, args.accumulate ? load_n(to + j * VL, left) + acc[r][j] : acc[r][j],
              left);
    }
  }
}

template <class T>
void input_product(const GateView<T>& g, const InputGradArgs& args, int64_t K, int64_t row_begin,
                   int64_t row_end) {
  const T* w = static_cast<const T*>(args.packed);
  // As many rows at a time as leave their dG in a quarter of L2 for all column blocks; at least eight tiles for each panel of W.
  const int64_t fit = l2_bytes / 4 / (K * static_cast<int64_t>(sizeof(T)));
  const int64_t block = (fit < 8 * tile_rows ? 8 * tile_rows : fit) / tile_rows * tile_rows;
  for (int64_t begin = row_begin; begin < row_end; begin += block) {
    const int64_t end = min_of(begin + block, row_end);
    for_column_blocks<T>({0, args.layout.input_padded}, args.layout.input_padded,
                         [&](auto nv, int64_t column) FR_FLAT {
                           constexpr int NV = decltype(nv)::value;
                           for_row_blocks(begin, end, [&](auto mr, int64_t row) FR_FLAT {
                             input_tile<T, decltype(mr)::value, NV>(g, args, row, column,
                                                                    w + column * K);
                           });
                         });
  }
}

// The same from W [G*H,I] as it lies.
template <class T>
void unpacked_input_product(const GateView<T>& g, const InputGradArgs& args, int64_t row_begin,
                            int64_t row_end) {
  constexpr int VL = lanes<T>;
  const int64_t I = args.layout.I;
  for (int64_t row = row_begin; row < row_end; ++row) {
    T* dx = static_cast<T*>(args.dx[row]);
    unpacked_product<T>(
        g, row, static_cast<const T*>(args.weights), I, {0, I},
        [](int64_t, int64_t length, T* sums) FR_FLAT {
          for (int64_t c = 0; c < length; c += VL) store(sums + c, Vec<T>{});
        },
        [&](int64_t column, int64_t length, const T* sums) FR_FLAT {
          for (int64_t c = 0; c < length; c += VL) {
            T* to = dx + column + c;
            const Vec<T> sum = load(sums + c);
            store_n(to, args.accumulate ? load_n(to, length - c) + sum : sum, length - c);
          }
        });
  }
}

template <class C>
void input_grad(const InputGradArgs& args, int64_t row_begin, int64_t row_end) {
  using T = typename C::Element;
  const GateView<T> view = view_for_input<C, T>(args.layout, args.dgates);
  if (args.packed == nullptr) return unpacked_input_product<T>(view, args, row_begin, row_end);
  input_product<T>(view, args, C::gates * args.layout.H, row_begin, row_end);
}

// to [MC][S] (=, or += after the first block) sum over `count` rows of a[r][column + i] * g[r][S].
template <class T, class S, int MC>
FR_TILE void outer_tile(T* to, bool first, const void* const* a, int64_t column, const T* g,
                        int64_t stride, int64_t count) {
  constexpr int VL = lanes<T>;
  Vec<T> acc[MC][S::count];
#pragma GCC unroll 8
  for (int i = 0; i < MC; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < S::count; ++j)
      acc[i][j] = first ? Vec<T>{} : load(to + (i * S::count + j) * VL);
  }
  accumulate_outer<T, S, MC>(acc, a, column, g, stride, count);
#pragma GCC unroll 8
  for (int i = 0; i < MC; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < S::count; ++j) store(to + (i * S::count + j) * VL, acc[i][j]);
  }
}

// The next block's rows [K] of x or h into L2, some at each tile of this block, where two blocks leave half of L2 free: a tile
// takes columns of them, which looks like no stream. dW and dU of an RNN, I=H=256, took 0.96 of the time without, of LSTM and
// GRU 0.98 to 1.00 (Zen 4).
template <class T>
struct BlockAhead {
  const void* const* rows;
  int64_t count, K;
  int64_t all;      // columns of this block, of all panels together
  int64_t done;     // of them
  int64_t fetched;  // rows

  FR_TILE void advance(int64_t columns) {
    done += columns;
    while (fetched < count && fetched * all < count * done) {
      const T* row = static_cast<const T*>(rows[fetched++]);
      for (int64_t k = 0; k < K; k += 64 / static_cast<int64_t>(sizeof(T))) prefetch_l2(row + k);
    }
  }
};

// to [K][S] (=, or += after the first block) sum over `count` rows of a[r][k] * g[r][S].
template <class T, class S>
FR_TILE void outer_block(T* to, bool first, const void* const* a, int64_t K, const T* g,
                         int64_t stride, int64_t count, BlockAhead<T>& ahead) {
  for_row_blocks(0, K, [&](auto mc, int64_t column) FR_FLAT {
    ahead.advance(decltype(mc)::value);
    outer_tile<T, S, decltype(mc)::value>(to + column * S::count * lanes<T>, first, a, column, g,
                                          stride, count);
  });
}

// Rows a block: x (or h) of a block within half of L2; at least 32, or the accumulators' way to memory and back
// (72 cycles) would show beside 32 * 24 multiply-adds; at most 256, where it is 1 %.
template <class T>
FR_INLINE int64_t block_rows(int64_t width) {
  const int64_t rows = l2_bytes / 2 / (width * static_cast<int64_t>(sizeof(T)));
  return rows < 32 ? 32 : min_of(rows, 256);
}

// Which vectors of dG's panel W or U takes part in: S, or all NV of an RNN's.
template <class C, class S, int NV>
struct OuterSlots {
  using type = S;
};
template <class T, class S, int NV>
struct OuterSlots<Rnn<T>, S, NV> {
  using type = typename FirstSlots<NV>::Plain;
};

// Where a panel's sums lie in the scratch.
template <class C>
FR_INLINE int64_t sums_size(const Layout& layout) {
  using S = PanelSlots<C, 4>;
  constexpr int VL = lanes<typename C::Element>;
  if constexpr (!C::interleaved) return (layout.I + layout.H + 1) * 4 * VL;
  return (layout.I * S::X::count + layout.H * (S::U::count + (C::two_phase ? 1 : 0)) + 4) * VL;
}

// Columns [k.begin, k.end) of some rows, one after the other: from -> to, which points to the copies.
template <class T>
FR_INLINE void copy_rows(const void** to, T* copies, const void* const* from, int64_t count,
                         Range k) {
  const int64_t width = k.end - k.begin;
  for (int64_t i = 0; i < count; ++i, copies += width) {
    const T* row = static_cast<const T*>(from[i]) + k.begin;
    std::memcpy(copies, row, static_cast<size_t>(width) * sizeof(T));
    to[i] = copies;
  }
}

// Sums over rows of x or h for a range of panels; they begin offset_per_lane vectors into each panel's scratch.
//
// Wide rows go in parts, copied for all panels: 512 rows of 384 bytes (192 KB) stay in L2 beside a panel's dG (128 KB), where
// few whole rows would fit, and the sums of all columns travel to memory and back a quarter as often. Measured, dW and dU of an
// LSTM, R=3200, I=H=1024: 74 -> 91 % of the FMA peak, I=H=512: 83 -> 91 %; parts that are not copied: 82 % (rows 4 KB apart
// share a few sets of the caches).
template <class C, class S, class Rows>
FR_INLINE void outer_product(const WeightGradArgs& g, int64_t begin, int64_t end, int64_t K,
                             Rows rows_at, int64_t offset_per_lane) {
  using T = typename C::Element;
  constexpr int VL = lanes<T>;
  const int64_t bytes = K * static_cast<int64_t>(sizeof(T)), R = g.layout.rows;
  const int64_t parts =
      bytes > outer_whole_bytes ? (bytes + outer_part_bytes - 1) / outer_part_bytes : 1;
  const int64_t block = parts > 1 ? outer_part_rows : block_rows<T>(K);
  const void* copies[outer_part_rows];
  for (int64_t part = 0; part < parts; ++part) {
    const Range k = share_of(K, part, parts);
    for (int64_t row = 0; row < R || row == 0; row += block) {
      const int64_t count = min_of(block, R - row);
      const void* const* rows = parts > 1 ? copies : rows_at(row);
      const int64_t after = min_of(row + block, R);
      BlockAhead<T> ahead{};
      if (parts == 1 && 2 * block * bytes <= l2_bytes / 2)
        ahead = {rows_at(after), min_of(block, R - after), K, K * (end - begin), 0, 0};
      if (parts > 1) copy_rows(copies, static_cast<T*>(g.copies), rows_at(row), count, k);
      for_panels<C>(g.layout, {begin, end}, [&](auto nv, int64_t p, int64_t) FR_FLAT {
        constexpr int NV = decltype(nv)::value;
        using V = typename OuterSlots<C, S, NV>::type;
        const int64_t stride = (C::interleaved ? 4 : NV) * VL;
        const T* dg = static_cast<const T*>(g.dgates) + p * R * 4 * VL + row * stride;
        T* to = static_cast<T*>(g.panels) + p * sums_size<C>(g.layout) +
                (offset_per_lane * (C::interleaved ? 1 : NV) + k.begin * V::count) * VL;
        outer_block<T, V>(to, g.first && row == 0, rows, k.end - k.begin, dg, stride, count, ahead);
      });
    }
  }
}

// GRU with reset before: dU_n from rows of r*h, which lie in one array and need their own small pointer table.
template <class C>
FR_INLINE void outer_product_rh(const WeightGradArgs& g, int64_t begin, int64_t end) {
  using T = typename C::Element;
  using S = PanelSlots<C, 4>;
  constexpr int VL = lanes<T>;
  const void* rows[256];
  BlockAhead<T> none{};
  const int64_t R = g.layout.rows, Hp = g.layout.hidden_padded, block = block_rows<T>(g.layout.H);
  for (int64_t row = 0; row < R || row == 0; row += block) {
    const int64_t count = min_of(block, R - row);
    for (int64_t i = 0; i < count; ++i) rows[i] = static_cast<const T*>(g.rh) + (row + i) * Hp;
    for (int64_t p = begin; p < end; ++p) {
      T* to = static_cast<T*>(g.panels) + p * sums_size<C>(g.layout) +
              (g.layout.I * S::X::count + g.layout.H * S::U::count) * VL;
      const T* dg = static_cast<const T*>(g.dgates) + (p * R + row) * 4 * VL;
      outer_block<T, Slots<2>>(to, g.first && row == 0, rows, g.layout.H, dg, 4 * VL, count, none);
    }
  }
}

// to[row(j, v)][k] (= or +=) from[k][j][v]: a panel's sums back to PyTorch's order, 64 k at a time: 16 KB of sums stay in L1
// and each row is written four lines on end (one line at a time, their misses cost as much as the product at T*N = 100).
template <class T>
FR_TILE void write_out(T* to, int64_t K, const T* from, int count, const PanelRows& rows,
                       bool accumulate) {
  constexpr int VL = lanes<T>;
  for (int64_t k0 = 0; k0 < K; k0 += 64) {
    const int64_t k1 = min_of(K, k0 + 64);
    for (int j = 0; j < count; ++j) {
      const int64_t valid = min_of(VL, rows.valid_at(j));
      T* row = to + (rows.first + j * rows.step) * K;
      for (int64_t v = 0; k1 < K && v < valid; ++v) prefetch_block_l2(row + v * K + k1);
      transpose(row + k0, K, from + k0 * count * VL + j * VL, count * VL, valid, k1 - k0,
                accumulate);
    }
  }
}

template <class C, int NV>
FR_INLINE void write_panel(const WeightGradArgs& g, int64_t p, int64_t unit) {
  using T = typename C::Element;
  using S = PanelSlots<C, NV>;
  constexpr int VL = lanes<T>;
  const int64_t I = g.layout.I, H = g.layout.H;
  const PanelRows rows = panel_rows<C>(g.layout, unit);
  const T* sums = static_cast<const T*>(g.panels) + p * sums_size<C>(g.layout);
  T* dw_hh = static_cast<T*>(g.dw_hh);
  write_out<T>(static_cast<T*>(g.dw_ih), I, sums, S::X::count, rows, g.accumulate);
  sums += I * S::X::count * VL;
  write_out<T>(dw_hh, H, sums, S::U::count, rows, g.accumulate);
  sums += H * S::U::count * VL;
  if constexpr (C::two_phase) {
    write_out<T>(dw_hh, H, sums, 1, rows.moved(2 * H), g.accumulate);
  }
}

// Column sums of dG over all rows (= or, after the first call, +=), behind the panel's other sums.
template <class T, int NV>
FR_INLINE void sum_rows(T* to, bool first, const T* dg, int64_t R) {
  constexpr int VL = lanes<T>;
  Vec<T> sum[NV] = {};
  if (!first) {
#pragma GCC unroll 4
    for (int j = 0; j < NV; ++j) sum[j] = load(to + j * VL);
  }
  for (int64_t r = 0; r < R; ++r, dg += NV * VL) {
#pragma GCC unroll 4
    for (int j = 0; j < NV; ++j) sum[j] += load(dg + j * VL);
  }
#pragma GCC unroll 4
  for (int j = 0; j < NV; ++j) store(to + j * VL, sum[j]);
}

// The biases' gradients of one panel from its column sums.
template <class C, int NV>
FR_INLINE void write_biases(const WeightGradArgs& g, int64_t unit,
                            const typename C::Element* sums) {
  using T = typename C::Element;
  constexpr int VL = lanes<T>;
  const int64_t H = g.layout.H;
  const PanelRows rows = panel_rows<C>(g.layout, unit);
  if (g.db_ih == nullptr) return;
  if constexpr (C::interleaved) {
    for (int j = 0; j < C::gates; ++j) {
      write_out<T>(static_cast<T*>(g.db_ih), 1, sums + C::X::at[j] * VL, 1, rows.moved(j * H),
                   g.accumulate);
      write_out<T>(static_cast<T*>(g.db_hh), 1, sums + C::HiddenBias::at[j] * VL, 1,
                   rows.moved(j * H), g.accumulate);
    }
  } else {
    write_out<T>(static_cast<T*>(g.db_ih), 1, sums, NV, rows, g.accumulate);
    write_out<T>(static_cast<T*>(g.db_hh), 1, sums, NV, rows, g.accumulate);
  }
}

// All gradients of one panel's weights, written where they belong (unpacked.hpp): of one block of rows that is first and last.
template <class C, int NV>
FR_INLINE void unpacked_panel(const WeightGradArgs& g, int64_t p, int64_t unit) {
  using T = typename C::Element;
  using S = PanelSlots<C, NV>;
  constexpr int VL = lanes<T>;
  const int64_t I = g.layout.I, H = g.layout.H, R = g.layout.rows;
  const T* dg = static_cast<const T*>(g.dgates) + p * R * 4 * VL;
  const auto rows = [&](void* dw, int64_t K, const void* const* x, int gate, int slot) FR_FLAT {
    weight_rows<T>(static_cast<T*>(dw) + (gate * H + unit) * K,
                   min_of(C::interleaved ? VL : NV * VL, H - unit), K, x, dg + slot * VL,
                   (C::interleaved ? 4 : NV) * VL, R, g.accumulate);
  };
  for (int gate = 0; gate < C::gates; ++gate) {
    rows(g.dw_ih, I, g.x, gate, S::X::at[gate]);
    rows(g.dw_hh, H, g.h, gate, S::U::at[gate]);
  }
  T sums[NV * VL];
  sum_rows<T, NV>(sums, true, dg, R);
  write_biases<C, NV>(g, unit, sums);
}

template <class C>
void weight_grad(const WeightGradArgs& args, int64_t panel_begin, int64_t panel_end) {
  using T = typename C::Element;
  constexpr int VL = lanes<T>;
  const WeightGradArgs g = args;
  const int64_t I = g.layout.I, H = g.layout.H;
  if constexpr (!C::two_phase) {
    if (g.first && g.last && g.layout.rows <= unpacked_gradient_rows) {
      for_panels<C>(g.layout, {panel_begin, panel_end},
                    [&](auto nv, int64_t p, int64_t unit)
                        FR_FLAT { unpacked_panel<C, decltype(nv)::value>(g, p, unit); });
      return;
    }
  }
  using S = PanelSlots<C, 4>;
  outer_product<C, typename S::X>(
      g, panel_begin, panel_end, I, [&](int64_t row) { return g.x + row; }, 0);
  const int64_t after_x = C::interleaved ? I * S::X::count : I;
  outer_product<C, typename S::U>(
      g, panel_begin, panel_end, H, [&](int64_t row) { return g.h + row; }, after_x);
  if constexpr (C::two_phase) outer_product_rh<C>(g, panel_begin, panel_end);
  for_panels<C>(g.layout, {panel_begin, panel_end}, [&](auto nv, int64_t p, int64_t unit) FR_FLAT {
    constexpr int NV = decltype(nv)::value;
    const int64_t size = sums_size<C>(g.layout);
    const int64_t biases = (C::interleaved ? size - 4 * VL : (I + H) * NV * VL);
    const T* dg = static_cast<const T*>(g.dgates) + p * g.layout.rows * 4 * VL;
    T* sums = static_cast<T*>(g.panels) + p * size + biases;
    sum_rows<T, NV>(sums, g.first, dg, g.layout.rows);
    if (!g.last) return;
    write_panel<C, NV>(g, p, unit);
    write_biases<C, NV>(g, unit, sums);
  });
}

}  // namespace
}  // namespace fastrnn::FR_ISA
