// How many threads this process should use if nobody says (CPUs it may run on, less what a container's quota withholds), and
// how a worker finds a CPU of its own.
#pragma once

namespace fastrnn {

constexpr int most_threads = 256;

int default_threads() noexcept;  // FASTRNN_NUM_THREADS, or min(affinity, quota); at least 1
int current_cpu() noexcept;      // -1: unknown

// CPUs that a thread may use; none where the system does not say.
struct CpuSet {
  alignas(8) unsigned char bits[128];
};
CpuSet cpus_of_this_thread() noexcept;

// Moves the calling thread to those of `allowed` other than taken [count], if there are any.
void leave_cpus(const CpuSet& allowed, const int* taken, int count) noexcept;

}  // namespace fastrnn
