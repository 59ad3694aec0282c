// PyTorch's weights [G*H,K] into the panels that the products stream.
//
//   forward  panel p, hidden units p*VL ..:   biases [A][VL] | W [I][gates][VL] | U [H][gates][VL] (| U_n [H][VL])
//            RNN: 4 vectors of units instead of the gates, the last panel as narrow as H allows
//   backward [q][(p, gate, v)][4*VL]: rows of the weight matrix as they are, columns q*4*VL .., rows in dG's order
//
// Padding is in columns only and zero; k is never padded. VL is this instruction set's: packed weights belong to it.
// Called by the driver through the kernel table, and panel by panel by the forward kernels (ready_panel).
#pragma once

#include "panel.hpp"
#include "transpose.hpp"

namespace fastrnn::FR_ISA {
namespace {

// to[k][j][v] = from[row(j, v)][k], rows as in gradients.hpp; 64 k at a time: 16 KB to, four lines on end of each row from.
template <class T>
FR_INLINE T* pack_columns(T* to, const T* from, int64_t K, int count, const PanelRows& rows) {
  constexpr int VL = lanes<T>;
  for (int64_t k0 = 0; k0 < K; k0 += 64) {
    const int64_t k1 = min_of(K, k0 + 64);
    for (int j = 0; j < count; ++j) {
      const int64_t valid = min_of(VL, rows.valid_at(j));
      const T* row = from + (rows.first + j * rows.step) * K;
      T* column = to + j * VL + k0 * count * VL;
      for (int64_t v = 0; k1 < K && v < valid; ++v) prefetch_block_l2(row + v * K + k1);
      transpose(column, count * VL, row + k0, K, k1 - k0, valid, false);
      for (int64_t k = 0; valid < VL && k < k1 - k0; ++k)
        for (int64_t v = valid < 0 ? 0 : valid; v < VL; ++v) column[k * count * VL + v] = T(0);
    }
  }
  return to + K * count * VL;
}

// to: a panel; without `state` its U is left as it was.
template <class C, int NV>
FR_TILE void pack_forward_panel(const PackArgs& a, int64_t unit, typename C::Element* to,
                                bool state) {
  using T = typename C::Element;
  using S = PanelSlots<C, NV>;
  constexpr int VL = lanes<T>;
  const int64_t H = a.layout.H;
  const PanelRows rows = panel_rows<C>(a.layout, unit);
  const T *b_ih = static_cast<const T*>(a.b_ih), *b_hh = static_cast<const T*>(a.b_hh);
  for (int j = 0; j < S::columns * VL; ++j) to[j] = T(0);
  if (b_ih != nullptr) {
    for (int j = 0; j < S::X::count; ++j) {
      for (int64_t v = 0; v < min_of(VL, rows.valid_at(j)); ++v) {
        const int64_t row = rows.first + j * rows.step + v;
        to[S::X::at[j] * VL + v] += b_ih[row];
        if constexpr (C::interleaved) {
          to[C::HiddenBias::at[j] * VL + v] += b_hh[row];
        } else {
          to[j * VL + v] += b_hh[row];
        }
      }
    }
  }
  to += S::columns * VL;
  to = pack_columns(to, static_cast<const T*>(a.w_ih), a.layout.I, S::X::count, rows);
  if (!state) return;
  const T* w_hh = static_cast<const T*>(a.w_hh);
  to = pack_columns(to, w_hh, H, S::U::count, rows);
  if constexpr (C::two_phase) pack_columns(to, w_hh, H, 1, rows.moved(2 * H));
}

// A panel that the call under way packs for itself, before its only use (T = 1), into room that stays in L2. Packing all of them
// first takes them through L3 or memory twice more: this way took 0.71 to 0.99 of the other's time with a state (LSTM, N=1,
// I=H=1024 to 64; 0.96 at N=64, I=H=256), and 0.30 to 0.65, and 0.86, without one, whose U stays unpacked (Zen 4).
template <class C, int NV>
FR_INLINE void ready_panel(const ForwardArgs& f, int64_t unit) {
  using T = typename C::Element;
  if (f.unpacked == nullptr) return;
  pack_forward_panel<C, NV>(*f.unpacked, unit, static_cast<T*>(const_cast<void*>(f.packed)),
                            f.depth > 0);
}

// Rows (p, gate in [first_gate, first_gate+gates), v) of `from` [G*H,K] into column blocks of 4*VL.
template <class C>
void pack_rows(typename C::Element* to, const typename C::Element* from, const Layout& layout,
               int64_t K, int64_t padded, int first_gate, int gates, int64_t share,
               int64_t shares) {
  using T = typename C::Element;
  constexpr int VL = lanes<T>;
  const Range blocks = share_of((padded + 4 * VL - 1) / (4 * VL), share, shares);
  to += blocks.begin * 4 * VL * layout.H * gates;
  for (int64_t column = blocks.begin * 4 * VL; column < min_of(padded, blocks.end * 4 * VL);
       column += 4 * VL) {
    const int64_t width = min_of(4 * VL, padded - column);
    for (int64_t unit = 0; unit < layout.H; unit += layout.unit_panel) {
      const int64_t valid = min_of(layout.unit_panel, layout.H - unit);
      for (int gate = first_gate; gate < first_gate + gates; ++gate) {
        for (int64_t v = 0; v < valid; ++v, to += width) {
          const T* row = from + (gate * layout.H + unit + v) * K + column;
          for (int64_t j = 0; j < width; j += VL) {
            store(to + j, K - column > j ? load_n(row + j, K - column - j) : Vec<T>{});
          }
        }
      }
    }
  }
}

template <class C>
void pack(const PackArgs& args, int64_t share, int64_t shares) {
  using T = typename C::Element;
  const PackArgs a = args;
  if (a.forward != nullptr) {
    const Range panels = share_of(a.layout.panels, share, shares);
    for_panels<C>(a.layout, panels, [&](auto nv, int64_t p, int64_t unit) FR_FLAT {
      pack_forward_panel<C, decltype(nv)::value>(
          a, unit, static_cast<T*>(a.forward) + p * a.layout.panel_size, true);
    });
  }
  using S = PanelSlots<C, C::interleaved ? 4 : 1>;
  const int64_t H = a.layout.H, Hp = a.layout.hidden_padded;
  if (a.backward_hh != nullptr) {
    T* to = static_cast<T*>(a.backward_hh);
    const T* w_hh = static_cast<const T*>(a.w_hh);
    pack_rows<C>(to, w_hh, a.layout, H, Hp, 0, S::U::count, share, shares);
    if constexpr (C::two_phase)
      pack_rows<C>(to + S::U::count * H * Hp, w_hh, a.layout, H, Hp, 2, 1, share, shares);
  }
  if (a.backward_ih != nullptr) {
    pack_rows<C>(static_cast<T*>(a.backward_ih), static_cast<const T*>(a.w_ih), a.layout,
                 a.layout.I, a.layout.input_padded, 0, S::X::count, share, shares);
  }
}

}  // namespace
}  // namespace fastrnn::FR_ISA
