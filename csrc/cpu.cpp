#include "cpu.hpp"

#include <atomic>
#include <cstdlib>
#include <cstring>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

// fastrnn_isas.inc: FR_ISA_ROW(name) for each, ascending, written by cmake/isa.cmake.
#define FR_ISA_ROW(name)      \
  namespace fastrnn::name {   \
  const KernelTable& table(); \
  }
#include "fastrnn_isas.inc"
#undef FR_ISA_ROW

namespace fastrnn {
namespace {

struct IsaRow {
  const char* name;
  const KernelTable& (*table)();
};

#define FR_ISA_ROW(name) {#name, name::table},
constexpr IsaRow isas[] = {
#include "fastrnn_isas.inc"
};
#undef FR_ISA_ROW
constexpr int count = static_cast<int>(sizeof(isas) / sizeof(isas[0]));

#if defined(__x86_64__)
bool bit(unsigned word, int index) { return (word >> index & 1u) != 0; }

// What the CPU has and the operating system saves on a context switch (XCR0): AVX without the latter dies or corrupts.
bool can_run(const char* name) {
  if (std::strcmp(name, "base") == 0) return true;
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid(1, &a, &b, &c, &d) == 0 || !bit(c, 27)) return false;  // OSXSAVE
  const bool fma = bit(c, 12), avx = bit(c, 28), f16c = bit(c, 29);
  unsigned xcr0 = 0, high = 0;
  asm("xgetbv" : "=a"(xcr0), "=d"(high) : "c"(0));
  const bool saves_ymm = (xcr0 & 0x6u) == 0x6u, saves_zmm = (xcr0 & 0xe6u) == 0xe6u;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0) return false;
  const bool avx2 =
      saves_ymm && avx && fma && f16c && bit(b, 5) && bit(b, 3) && bit(b, 8);  // AVX2, BMI1, BMI2
  if (std::strcmp(name, "avx2") == 0) return avx2;
  const bool f = bit(b, 16), dq = bit(b, 17), cd = bit(b, 28), bw = bit(b, 30), vl = bit(b, 31);
  if (std::strcmp(name, "avx512") == 0) return avx2 && saves_zmm && f && dq && cd && bw && vl;
  return false;
}
#else
bool can_run(const char* name) { return std::strcmp(name, "base") == 0; }
#endif

// Asked once: CPUID traps to the hypervisor in a virtual machine, 15 microseconds a call there.
struct Runnable {
  bool at[count];
  Runnable() {
    for (int i = 0; i < count; ++i) at[i] = can_run(isas[i].name);
  }
};
const Runnable& runnable() {
  static const Runnable once;
  return once;
}

fastrnn_status find(const char* name, int& index) {
  for (int i = 0; i < count; ++i) {
    if (std::strcmp(isas[i].name, name) != 0) continue;
    if (!runnable().at[i]) return FASTRNN_ISA_NOT_RUNNABLE;
    index = i;
    return FASTRNN_OK;
  }
  return FASTRNN_UNKNOWN_ISA;
}

constexpr int undecided = -1;
std::atomic<int> active{undecided};

}  // namespace

int isa_count() noexcept { return count; }
const char* isa_name(int index) noexcept {
  return index >= 0 && index < count ? isas[index].name : nullptr;
}
bool isa_runnable(int index) noexcept {
  return index >= 0 && index < count && runnable().at[index];
}
const KernelTable& isa_table(int index) noexcept { return isas[index].table(); }

fastrnn_status isa_active(int& index) noexcept {
  index = active.load(std::memory_order_relaxed);
  if (index != undecided) return FASTRNN_OK;
  const char* wanted = std::getenv("FASTRNN_ISA");
  if (wanted != nullptr && wanted[0] != '\0') {
    const fastrnn_status status = find(wanted, index);
    if (status != FASTRNN_OK) return status;
  } else {
    for (index = count - 1; index > 0 && !runnable().at[index];) --index;
  }
  active.store(index, std::memory_order_relaxed);  // the same value whoever stores it
  return FASTRNN_OK;
}

fastrnn_status isa_set(const char* name) noexcept {
  int index = undecided;
  if (name != nullptr) {
    const fastrnn_status status = find(name, index);
    if (status != FASTRNN_OK) return status;
  }
  active.store(index, std::memory_order_relaxed);
  return FASTRNN_OK;
}

}  // namespace fastrnn
