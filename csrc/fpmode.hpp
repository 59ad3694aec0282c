// Subnormal numbers cost up to 100 cycles an operation; a state that decays to zero is made of them. While one of these
// lives, the thread reads and writes them as zero, rounds to nearest and traps nothing, as every other thread of the call
// does, so that results depend on no caller's mode; then that mode is back.
#pragma once

#include <cstdint>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace fastrnn {

class FlushSubnormals {
 public:
  FlushSubnormals() noexcept : saved_(get()) {
    if (differs()) set(mode);
  }
  ~FlushSubnormals() {
    if (differs()) set(saved_);
  }
  FlushSubnormals(const FlushSubnormals&) = delete;
  FlushSubnormals& operator=(const FlushSubnormals&) = delete;

 private:
#if defined(__x86_64__)
  using Mode = unsigned;
  static constexpr Mode mode =
      0x9fc0;  // MXCSR: FTZ (bit 15), DAZ (bit 6), all exceptions masked (bits 7-12)
  static constexpr Mode flags = 0x3f;
  static Mode get() { return _mm_getcsr(); }
  static void set(Mode to) { _mm_setcsr(to); }
#elif defined(__aarch64__)
  using Mode = uint64_t;
  static constexpr Mode mode = uint64_t{1} << 24, flags = 0;  // FPCR: FZ
  static Mode get() {
    Mode now;
    asm volatile("mrs %0, fpcr" : "=r"(now));
    return now;
  }
  static void set(Mode to) { asm volatile("msr fpcr, %0" : : "r"(to)); }
#else
  using Mode = unsigned;
  static constexpr Mode mode = 0, flags = 0;
  static Mode get() { return 0; }
  static void set(Mode) {}
#endif
  // Flags of past exceptions aside. Audio threads are in this mode as a rule, and setting it waits for all arithmetic under way:
  // two times 5 of the 80 ns of a step (LSTM 1->16, Zen 4).
  bool differs() const noexcept { return (saved_ | flags) != (mode | flags); }

  Mode saved_;
};

}  // namespace fastrnn
