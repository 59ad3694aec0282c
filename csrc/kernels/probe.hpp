// What the machine can do at most, in this instruction set: the denominators of the benchmarks.
//
//   fma    rounds x chains x { acc = a * b + acc }    one chain per accumulator, all in registers; 2 * lanes operations each
//   read   repeats x { acc ^= p[0..n) }               one vector load and one operation on it per vector
//
// Chains: three quarters of the registers, 12 or 24. Zen 4 needs 8 to hide the latency of 4 cycles on two pipes, Haswell 10,
// four pipes of 4 cycles 16; what is left holds a, b and what the compiler wants. Without a fused instruction (base on
// x86) a round is a multiplication and an addition, and only the addition is in the chain.
// A read is combined by exclusive or, which no CPU does slower than it loads (an addition of 64 bytes runs at half the rate of
// the loads on Golden Cove), in 8 chains.
//
// Nothing here may be optimised away: `keep` makes a opaque, no sum may be reordered, and the result goes to the caller's memory.
//
// Measured (2-vCPU Zen 4, avx512, against its clock): 118 GFLOP/s in float32, 59 in float64, as 64 bytes of FMA a cycle.
// Called by: probe.cpp through the table.
#pragma once

#include "vec.hpp"

namespace fastrnn::FR_ISA {
namespace {

constexpr int fma_chains = vector_registers / 4 * 3;

template <class T>
FR_TILE void probe_fma(int64_t rounds, void* sink) {
  Vec<T> acc[fma_chains];
  for (int i = 0; i < fma_chains; ++i) acc[i] = set1<T>(static_cast<T>(i));
  Vec<T> a = set1<T>(T{0.5}), b = set1<T>(T{0.25});
  for (int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 24
    for (int i = 0; i < fma_chains; ++i) {
      keep(a);  // or a * b would be computed once for all of them
      acc[i] = fma(a, b, acc[i]);
    }
  }
  for (int i = 1; i < fma_chains; ++i) acc[0] += acc[i];
  store(static_cast<T*>(sink), acc[0]);
}

constexpr int read_chains = 8;

// [bytes / (read_chains * vector_bytes)] whole blocks are read, what is left over is not.
FR_TILE void probe_read(const void* data, int64_t bytes, int64_t repeats, void* sink) {
  constexpr int64_t step = lanes<float>;
  VecBits<float> acc[read_chains]{};
  const float* const end =
      static_cast<const float*>(data) + bytes / (read_chains * vector_bytes) * read_chains * step;
  for (int64_t repeat = 0; repeat < repeats; ++repeat) {
    for (const float* p = static_cast<const float*>(data); p != end; p += read_chains * step) {
#pragma GCC unroll 8
      for (int i = 0; i < read_chains; ++i) {
        acc[i] ^= reinterpret_cast<VecBits<float>>(load<float>(p + i * step));
      }
    }
  }
  for (int i = 1; i < read_chains; ++i) acc[0] ^= acc[i];
  store(static_cast<float*>(sink), reinterpret_cast<Vec<float>>(acc[0]));
}

}  // namespace
}  // namespace fastrnn::FR_ISA
