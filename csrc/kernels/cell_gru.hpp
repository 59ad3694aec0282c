// GRU (Cho et al. 2014), gates r z n, in both forms:
//
//   r = sigmoid(W_r x + b_r + U_r h + c_r)      z likewise      h' = (1 - z) n + z h, computed as n + z (h - n)
//   Gru             (reset after, cuDNN, PyTorch)    n = tanh(W_n x + b_n + r (U_n h + c_n))
//   GruResetBefore  (the paper, ONNX's default)      n = tanh(W_n x + b_n + c_n + U_n (r h))
//
//   panel   Gru             biases [r z nx nh][VL], W [I][r z n][VL], U [H][r z n][VL]: four accumulators, W feeds
//                           columns 0 1 2, U columns 0 1 3, so no second product is needed
//           GruResetBefore  biases [r z n][VL], W [I][r z n][VL], U [H][r z][VL], U_n [H][VL]: two phases a step, the
//                           second over rows of r*h
//   tape    gates [panels][R][r z n nh][VL] (r z n and an unused vector for GruResetBefore); with y 5H values a row
//   error   two sigmoids and a tanh: math.hpp
//
// Called by seq_forward.hpp (forward, second) and seq_backward.hpp (backward, second_backward).
#pragma once

#include "cell_rnn.hpp"

namespace fastrnn::FR_ISA {
namespace {

template <class T>
struct Gru {
  using Element = T;
  static constexpr int gates = 3;
  static constexpr int columns = 4;
  using X = Slots<0, 1, 2>;
  using U = Slots<0, 1, 3>;
  using HiddenBias = Slots<0, 1, 3>;
  static constexpr bool has_relu = false;
  static constexpr bool interleaved = true;
  static constexpr bool keeps_gates = true, has_c = false, carries = true, two_phase = false;
  // Inference runs the function of training, which asks each row for its tape: 1 % of the time, 100 KB of the wheel.
  static constexpr bool infer_keeps = true;

  template <class P, bool Keep, int A>
  static FR_INLINE void forward(const Vec<T> (&acc)[A], const ForwardRow<T>& at) {
    constexpr int VL = lanes<T>;
    const Vec<T> h = load_n(at.h, at.valid);
    const Vec<T> r = P::gate(acc[0]), z = P::gate(acc[1]);
    const Vec<T> n = P::cell(fma(r, acc[3], acc[2]));
    if (Keep && at.gates != nullptr) {
      store(at.gates, r);
      store(at.gates + VL, z);
      store(at.gates + 2 * VL, n);
      store(at.gates + 3 * VL, acc[3]);
    }
    store_n(at.y, fma(z, h - n, n), at.valid);
  }

  static FR_INLINE void fetch(const BackwardRow<T>& at) {
    fetch_gates(at);
    prefetch_l2(at.h);
  }

  template <class P>
  static FR_INLINE void backward(const BackwardRow<T>& at) {
    constexpr int VL = lanes<T>;
    const Vec<T> dh = whole_gradient(at);
    const Vec<T> r = load(at.gates), z = load(at.gates + VL), n = load(at.gates + 2 * VL),
                 nh = load(at.gates + 3 * VL);
    const Vec<T> carry = dh * z;
    const Vec<T> dn = (dh - carry) * P::cell_slope(n);
    store(at.dgates, dn * nh * P::gate_slope(r));
    store(at.dgates + VL, dh * (load_n(at.h, at.valid) - n) * P::gate_slope(z));
    store(at.dgates + 2 * VL, dn);
    store(at.dgates + 3 * VL, dn * r);
    store(at.dh, carry);
  }
};

template <class T>
struct GruResetBefore {
  using Element = T;
  static constexpr int gates = 3;
  static constexpr int columns = 3;
  using X = Slots<0, 1, 2>;
  using U = Slots<0, 1>;
  using HiddenBias = Slots<0, 1, 2>;
  static constexpr bool has_relu = false;
  static constexpr bool interleaved = true;
  static constexpr bool keeps_gates = true, has_c = false, carries = true, two_phase = true;
  static constexpr bool infer_keeps = true;

  // First phase: r and z; leaves z, the input part of n, and r*h [VL each] for the second. Here and below h of r*h is what U
  // multiplies.
  template <class P, bool Keep, int A>
  static FR_INLINE void forward(const Vec<T> (&acc)[A], const ForwardRow<T>& at, T* z_out, T* n_out,
                                T* rh_out) {
    constexpr int VL = lanes<T>;
    const Vec<T> r = P::gate(acc[0]), z = P::gate(acc[1]);
    if (Keep && at.gates != nullptr) {
      store(at.gates, r);
      store(at.gates + VL, z);
    }
    store(z_out, z);
    store(n_out, acc[2]);
    store(rh_out, r * load_n(at.u, at.valid));
  }

  // Second phase: n's pre-activation, complete, in acc.
  template <class P, bool Keep>
  static FR_INLINE void second(Vec<T> acc, const ForwardRow<T>& at, const T* z_in) {
    const Vec<T> n = P::cell(acc);
    if (Keep && at.gates != nullptr) store(at.gates + 2 * lanes<T>, n);
    store_n(at.y, fma(load(z_in), load_n(at.h, at.valid) - n, n), at.valid);
  }

  static FR_INLINE void fetch(const BackwardRow<T>& at) { Gru<T>::fetch(at); }

  // Before the product with U_n: dz and dn.
  template <class P>
  static FR_INLINE void backward(const BackwardRow<T>& at) {
    constexpr int VL = lanes<T>;
    const Vec<T> dh = whole_gradient(at);
    const Vec<T> z = load(at.gates + VL), n = load(at.gates + 2 * VL);
    const Vec<T> carry = dh * z;
    store(at.dgates + VL, dh * (load_n(at.h, at.valid) - n) * P::gate_slope(z));
    store(at.dgates + 2 * VL, (dh - carry) * P::cell_slope(n));
    store(at.dh, carry);
  }

  // After it: drh [VL] is the gradient of r*h. Gives dr, its share of dh, and r*h itself, which dU_n needs.
  template <class P>
  static FR_INLINE void second_backward(const BackwardRow<T>& at, const T* drh_in, T* rh_out) {
    const Vec<T> r = load(at.gates), h = load_n(at.u, at.valid), drh = load(drh_in);
    store(rh_out, r * h);
    store(at.dgates, drh * h * P::gate_slope(r));
    store(at.dh, fma(drh, r, load(at.dh)));
  }
};

}  // namespace
}  // namespace fastrnn::FR_ISA
