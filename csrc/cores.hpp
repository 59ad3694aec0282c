// How many threads this process should use if nobody says: CPUs it may run on, less what a container's quota withholds.
#pragma once

namespace fastrnn {

constexpr int most_threads = 256;

int default_threads() noexcept;  // FASTRNN_NUM_THREADS, or min(affinity, quota); at least 1

}  // namespace fastrnn
