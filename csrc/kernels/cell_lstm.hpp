// LSTM (Hochreiter & Schmidhuber 1997, with the forget gate of Gers et al. 2000), gates i f g o:
//
//   c' = sigmoid(f) c + sigmoid(i) tanh(g);   h' = sigmoid(o) tanh(c')
//
//   panel    [1+I+H][i f g o][VL]   one tile holds all gates of VL hidden units for MR rows: the cell runs on its registers
//   tape     gates [panels][R][i f g o][VL] after activation, c [R][Hp]; with y 6H values a row
//   backward tanh(c') is computed again: 12 cycles for 16 cells cost less than a store and a load out of cache
//   error    two sigmoids and a tanh: math.hpp. Inference pairs divisions (gate_cell), the tape needs each gate by itself.
//
// Called by seq_forward.hpp (forward) and seq_backward.hpp (backward).
#pragma once

#include "cell_rnn.hpp"

namespace fastrnn::FR_ISA {
namespace {

template <class T>
struct Lstm {
  using Element = T;
  static constexpr int gates = 4;
  static constexpr int columns = 4;
  using X = Slots<0, 1, 2, 3>;           // accumulator column of each gate of W
  using U = Slots<0, 1, 2, 3>;           // and of U
  using HiddenBias = Slots<0, 1, 2, 3>;  // and of bias_hh
  static constexpr bool has_relu = false;
  static constexpr bool interleaved = true;
  static constexpr bool keeps_gates = true, has_c = true, carries = false, two_phase = false;
  // Inference takes three divisions instead of five, so it is a function of its own.
  static constexpr bool infer_keeps = false;

  template <class P, bool Keep, int A>
  static FR_INLINE void forward(const Vec<T> (&acc)[A], const ForwardRow<T>& at) {
    constexpr int VL = lanes<T>;
    const Vec<T> c_in = load(at.c_in);
    if constexpr (Keep) {
      const Vec<T> i = P::gate(acc[0]), f = P::gate(acc[1]), g = P::cell(acc[2]),
                   o = P::gate(acc[3]);
      const Vec<T> c = fma(f, c_in, i * g);
      if (at.gates != nullptr) {
        store(at.gates, i);
        store(at.gates + VL, f);
        store(at.gates + 2 * VL, g);
        store(at.gates + 3 * VL, o);
      }
      store(at.c_out, c);
      store_n(at.y, o * P::cell(c), at.valid);
    } else {
      const Vec<T> c = fma(P::gate(acc[1]), c_in, P::gate_cell(acc[0], acc[2]));
      store(at.c_out, c);
      store_n(at.y, P::gate_cell(acc[3], c), at.valid);
    }
  }

  // c_out was c_in of the step behind.
  static FR_INLINE void fetch(const BackwardRow<T>& at) {
    fetch_gates(at);
    prefetch_l2(at.c_in);
  }

  // Gradient of c', by way of h' too; tc = tanh(c').
  template <class P>
  static FR_INLINE Vec<T> c_gradient(const BackwardRow<T>& at, Vec<T> dh, Vec<T> o, Vec<T> tc) {
    return fma(dh * o, P::cell_slope(tc), load(at.dc));
  }

  template <class P>
  static FR_INLINE void backward(const BackwardRow<T>& at) {
    constexpr int VL = lanes<T>;
    const Vec<T> dh = whole_gradient(at);
    const Vec<T> i = load(at.gates), f = load(at.gates + VL), g = load(at.gates + 2 * VL),
                 o = load(at.gates + 3 * VL);
    const Vec<T> tc = P::cell(load(at.c_out));
    const Vec<T> dc = c_gradient<P>(at, dh, o, tc);
    store(at.dgates, dc * g * P::gate_slope(i));
    store(at.dgates + VL, dc * load(at.c_in) * P::gate_slope(f));
    store(at.dgates + 2 * VL, dc * i * P::cell_slope(g));
    store(at.dgates + 3 * VL, dh * tc * P::gate_slope(o));
    store(at.dc, dc * f);
  }
};

}  // namespace
}  // namespace fastrnn::FR_ISA
