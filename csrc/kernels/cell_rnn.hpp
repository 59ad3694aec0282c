// Elman RNN (Elman 1990): h' = act(W x + b + U h + c), act tanh or relu by the policy.
//
//   panel    [1+I+H][NV][VL]   NV = 4 vectors of hidden units wide (fewer in the last), the sum of both biases first
//   tape     none: act' follows from the output
//   dgates   [panels][R][NV*VL]
//   error    one tanh: see math.hpp. Registers: those of the tile; the epilogue needs 8 more after the accumulators die.
//
// Called by seq_forward.hpp (forward) and seq_backward.hpp (backward).
#pragma once

#include "gemm.hpp"
#include "math.hpp"

namespace fastrnn::FR_ISA {
namespace {

// Pointers of one row at a panel's first unit. y and dy may end after `valid` elements; c, dh, dc and gates are padded.
template <class T>
struct ForwardRow {
  const T* h;     // [valid] state before the step
  const T* u;     // [valid] what U multiplies: h, or h times a mask
  const T* c_in;  // [VL]
  T* c_out;       // [VL]
  T* y;           // [valid]
  T* gates;       // [4*VL] tape, null where gates are not kept
  int64_t valid;  // hidden units from here to H, may exceed the panel
};

template <class T>
struct BackwardRow {
  const T* gates;  // [4*VL]
  T* dgates;       // [4*VL] may be gates
  const T* h;      // [valid] state before the step
  const T* u;      // [valid] what U multiplied
  const T* y;      // [valid] after it
  const T* c_in;   // [VL]
  const T* c_out;  // [VL]
  const T* dy;     // [valid] or null
  T* dh;  // [VL] inout: gradient of the state after the step; on return what of it bypasses the product
  T* dc;  // [VL] inout
  int64_t valid;
};

// Gradient of the state after the step.
template <class T>
FR_INLINE Vec<T> whole_gradient(const BackwardRow<T>& at) {
  const Vec<T> dh = load(at.dh);
  return at.dy == nullptr ? dh : dh + load_n(at.dy, at.valid);
}

template <class T>
FR_INLINE void fetch_gates(const BackwardRow<T>& at) {
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) prefetch_l2(at.gates + i * lanes<T>);
}

template <class T>
struct Rnn {
  using Element = T;
  static constexpr int gates = 1;
  static constexpr bool has_relu = true;
  static constexpr bool interleaved =
      false;  // a panel is 4 vectors of hidden units of the one gate
  static constexpr bool keeps_gates = false, has_c = false, carries = false, two_phase = false;
  static constexpr bool infer_keeps = false;

  template <class P, bool Keep, int NV>
  static FR_INLINE void forward(const Vec<T> (&acc)[NV], const ForwardRow<T>& at) {
    constexpr int VL = lanes<T>;
#pragma GCC unroll 4
    for (int j = 0; j < NV; ++j) store_n(at.y + j * VL, P::cell(acc[j]), at.valid - j * VL);
  }

  // What backward is going to touch, into L2.
  static FR_INLINE void fetch(const BackwardRow<T>& at) {
    prefetch_l2(at.y);
    prefetch_l2(at.dgates);
  }

  // One vector of hidden units.
  template <class P>
  static FR_INLINE void backward(const BackwardRow<T>& at) {
    const Vec<T> dh = whole_gradient(at);
    store(at.dgates, dh * P::cell_slope(load_n(at.y, at.valid)));
  }
};

}  // namespace
}  // namespace fastrnn::FR_ISA
