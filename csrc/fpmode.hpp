// Subnormal numbers cost up to 100 cycles an operation; a state that decays to zero is made of them. While one of these
// lives, the thread reads and writes them as zero; then the caller's mode is back.
#pragma once

#include <cstdint>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace fastrnn {

class FlushSubnormals {
 public:
  FlushSubnormals() noexcept : saved_(get()) { set(saved_ | flags); }
  ~FlushSubnormals() { set(saved_); }
  FlushSubnormals(const FlushSubnormals&) = delete;
  FlushSubnormals& operator=(const FlushSubnormals&) = delete;

 private:
#if defined(__x86_64__)
  using Mode = unsigned;
  static constexpr Mode flags = 0x8040;  // FTZ (bit 15) and DAZ (bit 6) of MXCSR
  static Mode get() { return _mm_getcsr(); }
  static void set(Mode mode) { _mm_setcsr(mode); }
#elif defined(__aarch64__)
  using Mode = uint64_t;
  static constexpr Mode flags = uint64_t{1} << 24;  // FZ of FPCR
  static Mode get() {
    Mode mode;
    asm volatile("mrs %0, fpcr" : "=r"(mode));
    return mode;
  }
  static void set(Mode mode) { asm volatile("msr fpcr, %0" : : "r"(mode)); }
#else
  using Mode = unsigned;
  static constexpr Mode flags = 0;
  static Mode get() { return 0; }
  static void set(Mode) {}
#endif
  Mode saved_;
};

}  // namespace fastrnn
