// Running independent tasks, on one thread or several.
#pragma once

#include <cstdint>

namespace fastrnn {

int get_num_threads() noexcept;
void set_num_threads(int threads) noexcept;  // clamped to 1 or more

// Calls task(context, i) once for each i in [0, count), in no stated order, and returns when all have returned.
// Every call runs with subnormals flushed; the caller's floating-point mode is back afterwards.
void parallel_for(int threads, int64_t count, void (*task)(void* context, int64_t index), void* context) noexcept;

// The same for a callable; the type is erased without allocation.
template <class Task>
void parallel(int threads, int64_t count, Task&& task) noexcept {
  parallel_for(threads, count, [](void* context, int64_t index) { (*static_cast<Task*>(context))(index); }, &task);
}

}  // namespace fastrnn
