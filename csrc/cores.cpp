#include "cores.hpp"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <unistd.h>

#if defined(__linux__)
#include <sched.h>
#endif

namespace fastrnn {
namespace {

int clamp(long n) { return n < 1 ? 1 : n > most_threads ? most_threads : static_cast<int>(n); }

int allowed_cpus() {
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) return clamp(CPU_COUNT(&set));
#endif
  return clamp(sysconf(_SC_NPROCESSORS_ONLN));
}

// Two numbers from a file, "max" or an absent one read as -1.
bool read_numbers(const char* path, long& first, long& second) {
  std::FILE* file = std::fopen(path, "r");
  if (file == nullptr) return false;
  char text[64] = {};
  const size_t length = std::fread(text, 1, sizeof(text) - 1, file);
  std::fclose(file);
  if (length == 0) return false;
  char* end = nullptr;
  first = std::strtol(text, &end, 10);
  if (end == text) first = -1;
  second = -1;
  while (*end != '\0' && *end != ' ') ++end;
  char* rest = end;
  second = std::strtol(rest, &end, 10);
  if (end == rest) second = -1;
  return true;
}

// CPUs' worth of time a control group allows, rounded up; most_threads if it does not limit.
int quota_cpus() {
  long quota = -1, period = -1, none = -1;
  if (!read_numbers("/sys/fs/cgroup/cpu.max", quota, period)) {  // version 2, else version 1
    if (!read_numbers("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", quota, none)) return most_threads;
    if (!read_numbers("/sys/fs/cgroup/cpu/cpu.cfs_period_us", period, none)) return most_threads;
  }
  if (quota <= 0 || period <= 0) return most_threads;
  return clamp((quota + period - 1) / period);
}

}  // namespace

int default_threads() noexcept {
  const char* text = std::getenv("FASTRNN_NUM_THREADS");
  if (text != nullptr && *text != '\0') {
    char* end = nullptr;
    const long threads = std::strtol(text, &end, 10);
    if (*end == '\0' && threads >= 1) return clamp(threads);
  }
  const int cpus = allowed_cpus(), quota = quota_cpus();
  return cpus < quota ? cpus : quota;
}

int current_cpu() noexcept {
#if defined(__linux__)
  return sched_getcpu();
#else
  return -1;
#endif
}

CpuSet cpus_of_this_thread() noexcept {
  CpuSet out{};
#if defined(__linux__)
  static_assert(sizeof(cpu_set_t) == sizeof(out.bits), "CPU_SETSIZE is 1024");
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) std::memcpy(out.bits, &set, sizeof(set));
#endif
  return out;
}

void leave_cpus(const CpuSet& allowed, const int* taken, int count) noexcept {
#if defined(__linux__)
  cpu_set_t set;
  std::memcpy(&set, allowed.bits, sizeof(set));
  for (int i = 0; i < count; ++i) {
    if (taken[i] >= 0 && taken[i] < CPU_SETSIZE) CPU_CLR(static_cast<size_t>(taken[i]), &set);
  }
  if (CPU_COUNT(&set) > 0) sched_setaffinity(0, sizeof(set), &set);
#else
  static_cast<void>(allowed);
  static_cast<void>(taken);
  static_cast<void>(count);
#endif
}

}  // namespace fastrnn
