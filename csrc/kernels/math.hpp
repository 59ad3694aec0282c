// exp, sigmoid and tanh on vectors, and the activation policies the cells are written in.
//
//   e^x       n = round(x log2 e);  r = x - n ln 2 (in two pieces, Cody & Waite 1980);  q = r + r^2 Q(r) ~ e^r - 1
//             e^x = 2^n q + 2^n;    e^x - 1 = 2^n q + (2^n - 1)
//   sigmoid   1 / (1 + e^-x)
//   tanh      m / (m + 2), m = e^2x - 1: exact to the last bits at 0, where 1 - 2/(e^2x + 1) would cancel
//
// Q is minimax on [-ln2/2, ln2/2] (Remez, 60 digits): float degree 4, |error of q| / |q| <= 2.2e-8 = 0.36 ulp;
// double degree 9, 3.6e-17 = 0.16 ulp. Max errors over all floats stand in docs/numerics.md, measured by
// bench/bench_numerics.py. Cost per vector: 10 fma-pipe operations, 2 integer ones, 1 division.
// 2^n comes from the bits of round-to-integer by a magic constant and an integer shift (vscalefps takes 2 cycles on Zen 4).
// NaN propagates, infinities saturate: see at_most/at_least in vec.hpp. Called by the cells.
#pragma once

#include "../types.hpp"
#include "vec.hpp"

namespace fastrnn::FR_ISA {
namespace {

template <class T>
struct ExpTraits;

template <>
struct ExpTraits<float> {
  static constexpr float magic =
      12582912.0f;  // 1.5 * 2^23: adding it leaves the rounded integer in the low mantissa bits
  static constexpr int mantissa = 23;
  static constexpr float log2e = 1.44269504088896340736f;
  static constexpr float ln2_hi =
      0.693145751953125f;  // 16 bits: n * ln2_hi is exact for |n| < 2^8, with or without fma
  static constexpr float ln2_lo = 1.42860682030941723212e-6f;
  // sigmoid(+-65) rounds to 1 and to 5.9e-29; e^65 (e^18.1 + 2) = 1.2e36 stays below the largest float, so that two
  // sigmoid/tanh denominators can be multiplied (sigmoid_tanh).
  static constexpr float sigmoid_bound = 65.0f;
  static constexpr float tanh_bound = 9.02f;  // tanh(9.02) = 1 - 2.9e-8 rounds to 1
};

template <>
struct ExpTraits<double> {
  static constexpr double magic = 6755399441055744.0;  // 1.5 * 2^52
  static constexpr int mantissa = 52;
  static constexpr double log2e = 1.44269504088896340736;
  static constexpr double ln2_hi = 6.93147180369123816490e-01;  // 32 bits
  static constexpr double ln2_lo = 1.90821492927058770002e-10;
  static constexpr double sigmoid_bound = 600.0;  // e^600 (e^38.2 + 2) = 1.5e277 < 1.8e308
  static constexpr double tanh_bound = 19.1;      // 1 - 5.2e-17 rounds to 1
};

// Q(r), by pairs (Estrin 1960): half the latency of Horner's chain, which tiny layers wait for.
FR_INLINE Vec<float> exp_q(Vec<float> r, Vec<float> r2) {
  const Vec<float> a = fma(set1(0.1666657682641860919f), r, set1(0.50000000270162718369f));
  const Vec<float> b = fma(set1(0.0083632051509641868859f), r, set1(0.041666374646897661146f));
  const Vec<float> c = fma(set1(0.001394116744168227699f), r2, b);
  return fma(c, r2, a);
}
FR_INLINE Vec<double> exp_q(Vec<double> r, Vec<double> r2) {
  const Vec<double> a = fma(set1(0.16666666666666674553), r, set1(0.50000000000000010263));
  const Vec<double> b = fma(set1(0.0083333333333221813652), r, set1(0.041666666666623988243));
  const Vec<double> c = fma(set1(0.00019841269886666426254), r, set1(0.0013888888917283137991));
  const Vec<double> d = fma(set1(2.7557242254565157889e-6), r, set1(0.000024801521188443390154));
  const Vec<double> e = fma(set1(2.5110080115481935607e-8), r, set1(2.7620139456898413505e-7));
  const Vec<double> r4 = r2 * r2;
  const Vec<double> high = fma(fma(e, r2, d), r4, fma(c, r2, b));
  return fma(high, r2, a);
}

template <class T>
struct ExpParts {
  Vec<T> q, scale;  // e^x = scale * q + scale
};

// Of e^(x Factor), Factor -1 or 2: a product that is exact, so that it goes into the constant, off the chain that tiny layers
// wait for. It must lie where 2^n is a normal number: |x Factor| <= 87 (float), 708 (double). A NaN passes through q.
template <class T, int Factor>
FR_INLINE ExpParts<T> exp_parts(Vec<T> x) {
  using K = ExpTraits<T>;
  static_assert(Factor == -1 || Factor == 2);
  const Vec<T> z = fma(x, set1<T>(Factor * K::log2e), set1<T>(K::magic));
  const Vec<T> n = z - K::magic;
  Vec<T> r = fma(n, set1<T>(-K::ln2_hi), Factor == 2 ? x + x : -x);
  r = fma(n, set1<T>(-K::ln2_lo), r);
  const Vec<T> r2 = r * r;
  const Vec<T> q = fma(exp_q(r, r2), r2, r);
  const VecBits<T> one = (VecBits<T>)set1<T>(T(1));
  const VecBits<T> power = (VecBits<T>)z << K::mantissa;
  return {q, (Vec<T>)(one + power)};
}

template <class T>
FR_INLINE Vec<T> one_plus_exp_neg(Vec<T> x) {  // 1 + e^-x, the denominator of the sigmoid
  using K = ExpTraits<T>;
  const ExpParts<T> e = exp_parts<T, -1>(at_least(at_most(x, K::sigmoid_bound), -K::sigmoid_bound));
  return fma(e.q, e.scale, e.scale) + T(1);
}

template <class T>
FR_INLINE Vec<T> expm1_twice(
    Vec<T> x) {  // e^2x - 1, the numerator of tanh; + 2 gives its denominator
  using K = ExpTraits<T>;
  const ExpParts<T> e = exp_parts<T, 2>(at_least(at_most(x, K::tanh_bound), -K::tanh_bound));
  return fma(e.q, e.scale, e.scale - T(1));
}

// Activation policies: gate() for what lies in (0, 1), cell() for the rest, and their derivatives from the output a.
template <class T>
struct Standard {
  using V = Vec<T>;
  static FR_INLINE V gate(V x) { return T(1) / one_plus_exp_neg<T>(x); }
  static FR_INLINE V cell(V x) {
    const V m = expm1_twice<T>(x);
    return m / (m + T(2));
  }
  // gate(a) * cell(b) in one division: 61 instead of 70 cycles per 16 LSTM cells (Zen 4, 3 divisions instead of 5).
  static FR_INLINE V gate_cell(V a, V b) {
    const V m = expm1_twice<T>(b);
    return m / (one_plus_exp_neg<T>(a) * (m + T(2)));
  }
  static FR_INLINE V gate_slope(V a) { return fma(-a, a, a); }
  static FR_INLINE V cell_slope(V a) { return fma(-a, a, set1<T>(T(1))); }
};

template <class T>
struct Relu : Standard<T> {
  using V = Vec<T>;
  static FR_INLINE V cell(V x) { return at_least(x, T(0)); }
  static FR_INLINE V cell_slope(V a) { return a > T(0) ? set1<T>(T(1)) : V{}; }
};

// For tests: piecewise linear, so that small integers stay exact in float and all paths must agree bit for bit.
template <class T>
struct Clamp {
  using V = Vec<T>;
  static FR_INLINE V gate(V x) { return at_least(at_most(x, T(1)), T(-1)); }
  static FR_INLINE V cell(V x) { return gate(x); }
  static FR_INLINE V gate_cell(V a, V b) { return gate(a) * gate(b); }
  static FR_INLINE V gate_slope(V a) { return ((a > T(-1)) & (a < T(1))) ? set1<T>(T(1)) : V{}; }
  static FR_INLINE V cell_slope(V a) { return gate_slope(a); }
};

// Calls body(policy) for the activation: one predicted branch a tile. The sums before it are then the same code whichever it
// is, so that tests in exact arithmetic (Clamp) run what users run, and the binary holds them once.
template <class T, bool HasRelu, class Body>
FR_INLINE void with_policy(Activation activation, Body body) {
  if (activation == Activation::standard) {
    body(Standard<T>{});
  } else if (HasRelu && activation == Activation::relu) {
    if constexpr (HasRelu) body(Relu<T>{});
  } else {
    body(Clamp<T>{});
  }
}

}  // namespace
}  // namespace fastrnn::FR_ISA
