// Vectors of the instruction set's full width, on GCC/Clang vector extensions.
//
// What they compute: elementwise arithmetic; +, -, *, / and comparisons are the compiler's own, the rest is here.
// Intrinsics stand only where the extensions cannot say it (fma, min/max with x86's NaN rule, masked tails).
//
//   ISA      bytes  float lanes  double lanes  registers  fused multiply-add
//   base     16     4            2             16 (x86)   no on x86: a*b rounds, then + rounds; yes on AArch64
//   avx2     32     8            4             16         yes
//   avx512   64     16           8             32         yes
//
// Everything has internal linkage: the same names exist once per instruction set and must never be merged.
// Called by: math.hpp, gemm.hpp, the cells, pack.hpp.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#define FR_INLINE inline __attribute__((always_inline))
// A register tile: its own function, small enough for the compiler to keep every accumulator in a register. Inlined into the
// loops over panels and row blocks, GCC 12 stored the RNN's weight vectors to the stack at every k: 62 % of the FMA peak.
#define FR_TILE __attribute__((noinline))
#define FR_FLAT __attribute__((always_inline))  // of a lambda

namespace fastrnn::FR_ISA {
namespace {

#if defined(__AVX512F__)
constexpr int vector_bytes = 64;
constexpr int vector_registers = 32;
#elif defined(__AVX2__)
constexpr int vector_bytes = 32;
constexpr int vector_registers = 16;
#else
constexpr int vector_bytes = 16;
#if defined(__aarch64__)
constexpr int vector_registers = 32;
#else
constexpr int vector_registers = 16;
#endif
#endif

template <class T>
struct VecOf;
template <>
struct VecOf<float> {
  typedef float type __attribute__((vector_size(vector_bytes)));
  typedef float loose __attribute__((vector_size(vector_bytes), aligned(4), may_alias));
  typedef int32_t bits __attribute__((vector_size(vector_bytes)));
};
template <>
struct VecOf<double> {
  typedef double type __attribute__((vector_size(vector_bytes)));
  typedef double loose __attribute__((vector_size(vector_bytes), aligned(8), may_alias));
  typedef int64_t bits __attribute__((vector_size(vector_bytes)));
};

template <class T>
using Vec = typename VecOf<T>::type;
template <class T>
using VecBits = typename VecOf<T>::bits;

template <class T>
constexpr int lanes = vector_bytes / static_cast<int>(sizeof(T));

template <class T>
FR_INLINE Vec<T> set1(T a) {
  return a -
         Vec<T>{};  // folds to a broadcast; a + 0 may not (it would turn -0 into +0) and costs an addition
}

template <class T>
FR_INLINE Vec<T> load(const T* p) {
  return *reinterpret_cast<const typename VecOf<T>::loose*>(p);
}

template <class T>
FR_INLINE void store(T* p, Vec<T> v) {
  *reinterpret_cast<typename VecOf<T>::loose*>(p) = v;
}

// The first n lanes, the others 0; nothing is read past p[n-1]. Full vectors take the branch, so tails alone pay for masks.
FR_INLINE Vec<float> load_n(const float* p, int64_t n) {
  if (n >= lanes<float>) return load<float>(p);
#if defined(__AVX512F__)
  return _mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << n) - 1u), p);
#else
  Vec<float> v{};
  std::memcpy(&v, p, static_cast<size_t>(n) * sizeof(float));
  return v;
#endif
}
FR_INLINE Vec<double> load_n(const double* p, int64_t n) {
  if (n >= lanes<double>) return load<double>(p);
#if defined(__AVX512F__)
  return _mm512_maskz_loadu_pd(static_cast<__mmask8>((1u << n) - 1u), p);
#else
  Vec<double> v{};
  std::memcpy(&v, p, static_cast<size_t>(n) * sizeof(double));
  return v;
#endif
}
FR_INLINE void store_n(float* p, Vec<float> v, int64_t n) {
  if (n >= lanes<float>) return store<float>(p, v);
#if defined(__AVX512F__)
  _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1u << n) - 1u), v);
#else
  std::memcpy(p, &v, static_cast<size_t>(n) * sizeof(float));
#endif
}
FR_INLINE void store_n(double* p, Vec<double> v, int64_t n) {
  if (n >= lanes<double>) return store<double>(p, v);
#if defined(__AVX512F__)
  _mm512_mask_storeu_pd(p, static_cast<__mmask8>((1u << n) - 1u), v);
#else
  std::memcpy(p, &v, static_cast<size_t>(n) * sizeof(double));
#endif
}

// a*b + c in one rounding where the instruction set has it, in two where not: never left to the compiler's choice.
FR_INLINE Vec<float> fma(Vec<float> a, Vec<float> b, Vec<float> c) {
#if defined(__AVX512F__)
  return _mm512_fmadd_ps(a, b, c);
#elif defined(__FMA__)
  return _mm256_fmadd_ps(a, b, c);
#elif defined(__aarch64__)
  return vfmaq_f32(c, a, b);
#else
  return a * b + c;
#endif
}
FR_INLINE Vec<double> fma(Vec<double> a, Vec<double> b, Vec<double> c) {
#if defined(__AVX512F__)
  return _mm512_fmadd_pd(a, b, c);
#elif defined(__FMA__)
  return _mm256_fmadd_pd(a, b, c);
#elif defined(__aarch64__)
  return vfmaq_f64(c, a, b);
#else
  return a * b + c;
#endif
}

// min and max against a bound: a NaN in x stays a NaN (x86 returns the second operand when the comparison is unordered).
// The zero-masked forms with a full mask are the plain instructions, without GCC 12's false warning about the plain intrinsics.
FR_INLINE Vec<float> at_most(Vec<float> x, float bound) {
  const Vec<float> b = set1<float>(bound);
#if defined(__AVX512F__)
  return _mm512_maskz_min_ps(0xffff, b, x);
#elif defined(__AVX2__)
  return _mm256_min_ps(b, x);
#elif defined(__x86_64__)
  return _mm_min_ps(b, x);
#else
  return b < x ? b : x;
#endif
}
FR_INLINE Vec<float> at_least(Vec<float> x, float bound) {
  const Vec<float> b = set1<float>(bound);
#if defined(__AVX512F__)
  return _mm512_maskz_max_ps(0xffff, b, x);
#elif defined(__AVX2__)
  return _mm256_max_ps(b, x);
#elif defined(__x86_64__)
  return _mm_max_ps(b, x);
#else
  return b > x ? b : x;
#endif
}
FR_INLINE Vec<double> at_most(Vec<double> x, double bound) {
  const Vec<double> b = set1<double>(bound);
#if defined(__AVX512F__)
  return _mm512_maskz_min_pd(0xff, b, x);
#elif defined(__AVX2__)
  return _mm256_min_pd(b, x);
#elif defined(__x86_64__)
  return _mm_min_pd(b, x);
#else
  return b < x ? b : x;
#endif
}
FR_INLINE Vec<double> at_least(Vec<double> x, double bound) {
  const Vec<double> b = set1<double>(bound);
#if defined(__AVX512F__)
  return _mm512_maskz_max_pd(0xff, b, x);
#elif defined(__AVX2__)
  return _mm256_max_pd(b, x);
#elif defined(__x86_64__)
  return _mm_max_pd(b, x);
#else
  return b > x ? b : x;
#endif
}

// Sixteen bytes at a time: a piece of memory or of a vector in every 16 bytes of one, and from there b[i] = element i of it in all
// lanes. Of memory that is one load and a shuffle for each element instead of a load for each. One row at a time is bound by
// loads, a vector a cycle for a multiply-add a cycle (Zen 4): 69 instead of 72 ns a step, LSTM 1->16.
template <class T>
constexpr int broadcasts = 16 / static_cast<int>(sizeof(T));
FR_INLINE Vec<float> repeated(const float* p) {
#if defined(__AVX512F__)
  return _mm512_maskz_broadcast_f32x4(0xffff, _mm_loadu_ps(p));
#elif defined(__AVX2__)
  return _mm256_broadcast_ps(reinterpret_cast<const __m128*>(p));
#else
  return load(p);
#endif
}
FR_INLINE Vec<double> repeated(const double* p) {
#if defined(__AVX512F__)
  return _mm512_maskz_broadcast_f64x2(0xff, _mm_loadu_pd(p));
#elif defined(__AVX2__)
  return _mm256_broadcast_pd(reinterpret_cast<const __m128d*>(p));
#else
  return load(p);
#endif
}
// Of a vector: its first 16 bytes.
FR_INLINE Vec<float> repeated(Vec<float> v) {
#if defined(__AVX512F__)
  return _mm512_maskz_shuffle_f32x4(0xffff, v, v, 0x00);
#elif defined(__AVX2__)
  return _mm256_permute2f128_ps(v, v, 0x00);
#else
  return v;
#endif
}
FR_INLINE Vec<double> repeated(Vec<double> v) {
#if defined(__AVX512F__)
  return _mm512_maskz_shuffle_f64x2(0xff, v, v, 0x00);
#elif defined(__AVX2__)
  return _mm256_permute2f128_pd(v, v, 0x00);
#else
  return v;
#endif
}
// The next 16 bytes of a vector first, and the first last.
FR_INLINE Vec<float> turned(Vec<float> v) {
#if defined(__AVX512F__)
  return _mm512_maskz_shuffle_f32x4(0xffff, v, v, 0x39);
#elif defined(__AVX2__)
  return _mm256_permute2f128_ps(v, v, 0x01);
#else
  return v;
#endif
}
FR_INLINE Vec<double> turned(Vec<double> v) {
#if defined(__AVX512F__)
  return _mm512_maskz_shuffle_f64x2(0xff, v, v, 0x39);
#elif defined(__AVX2__)
  return _mm256_permute2f128_pd(v, v, 0x01);
#else
  return v;
#endif
}
FR_INLINE void broadcast_each(Vec<float> (&b)[4], Vec<float> q) {
#if defined(__AVX512F__)
  b[0] = _mm512_maskz_permute_ps(0xffff, q, 0x00);
  b[1] = _mm512_maskz_permute_ps(0xffff, q, 0x55);
  b[2] = _mm512_maskz_permute_ps(0xffff, q, 0xaa);
  b[3] = _mm512_maskz_permute_ps(0xffff, q, 0xff);
#elif defined(__AVX2__)
  b[0] = _mm256_permute_ps(q, 0x00);
  b[1] = _mm256_permute_ps(q, 0x55);
  b[2] = _mm256_permute_ps(q, 0xaa);
  b[3] = _mm256_permute_ps(q, 0xff);
#else
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) b[i] = set1(q[i]);
#endif
}
FR_INLINE void broadcast_each(Vec<double> (&b)[2], Vec<double> q) {
#if defined(__AVX512F__)
  b[0] = _mm512_maskz_permute_pd(0xff, q, 0x00);
  b[1] = _mm512_maskz_permute_pd(0xff, q, 0xff);
#elif defined(__AVX2__)
  b[0] = _mm256_permute_pd(q, 0x0);
  b[1] = _mm256_permute_pd(q, 0xf);
#else
  b[0] = set1(q[0]);
  b[1] = set1(q[1]);
#endif
}

FR_INLINE void prefetch(const void* p) { __builtin_prefetch(p); }
// NV vectors that will be written: the lines' way from memory is then over before the stores wait for it. x86 without -mprfchw
// has it as a fetch for reading; a line that no other core has is this one's own then too.
template <int NV, class T>
FR_INLINE void prefetch_to_write(const T* p) {
#pragma GCC unroll 4
  for (int j = 0; j < NV; ++j) __builtin_prefetch(p + j * lanes<T>, 1);
}
// Into L2: what is not used at once would push out of L1 what is.
FR_INLINE void prefetch_l2(const void* p) { __builtin_prefetch(p, 0, 2); }
// 256 bytes: rows 4 KB apart share few sets of L1 and would push each other out.
FR_INLINE void prefetch_block_l2(const void* p) {
  for (int i = 0; i < 4; ++i) prefetch_l2(static_cast<const char*>(p) + 64 * i);
}

// At the end of a function that only prefetches: GCC takes it for one without effect, and drops its calls.
FR_INLINE void has_effect() { asm volatile(""); }

// Pins v in a register. Without it GCC 12 folds a weight load into every fused multiply-add that uses it: four loads where
// one would do, and 72-79 % of the FMA peak instead of 98 % (4x64 and 2x64 tiles, Zen 4).
template <class V>
FR_INLINE void keep(V& v) {
#if defined(__AVX__)
  asm("" : "+v"(v));
#elif defined(__x86_64__)
  asm("" : "+x"(v));
#elif defined(__aarch64__)
  asm("" : "+w"(v));
#endif
}

}  // namespace
}  // namespace fastrnn::FR_ISA
