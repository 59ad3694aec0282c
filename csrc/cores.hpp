// How many threads this process should use if nobody says (CPUs it may run on, less what a container's quota withholds), and
// how a worker finds a CPU of its own.
#pragma once

namespace fastrnn {

constexpr int most_threads = 256;

int default_threads() noexcept;  // FASTRNN_NUM_THREADS, or min(affinity, quota); at least 1
int current_cpu() noexcept;      // -1: unknown

// Moves the calling thread to the process's CPUs other than taken [count], if there are any.
void leave_cpus(const int* taken, int count) noexcept;

}  // namespace fastrnn
