#include "threads.hpp"

#include <atomic>
#include <cstdlib>

#include "fpmode.hpp"

namespace fastrnn {
namespace {

// FASTRNN_NUM_THREADS, or one: the plan does not split work yet, so more would have nothing to do.
int initial_threads() noexcept {
  const char* text = std::getenv("FASTRNN_NUM_THREADS");
  if (text == nullptr) return 1;
  const long threads = std::strtol(text, nullptr, 10);
  return threads < 1 ? 1 : threads > 4096 ? 4096 : static_cast<int>(threads);
}

std::atomic<int> wanted{0};

}  // namespace

int get_num_threads() noexcept {
  int threads = wanted.load(std::memory_order_relaxed);
  if (threads == 0) wanted.store(threads = initial_threads(), std::memory_order_relaxed);
  return threads;
}

void set_num_threads(int threads) noexcept { wanted.store(threads < 1 ? 1 : threads, std::memory_order_relaxed); }

void parallel_for(int, int64_t count, void (*task)(void* context, int64_t index), void* context) noexcept {
  const FlushSubnormals flush;
  for (int64_t i = 0; i < count; ++i) task(context, i);
}

}  // namespace fastrnn
