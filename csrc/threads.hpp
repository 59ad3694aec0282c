// The pool: independent tasks that threads claim, and teams that meet at a barrier.
//
// Workers are started when first wanted and kept; between calls they spin a bounded while, then sleep on a futex (through
// std::atomic::wait). A call that finds the pool busy runs alone. A thread that cannot be created is one fewer. A forked
// child starts with no pool and builds its own. The caller's affinity is never touched.
//
// Every task runs with subnormals flushed; the mode of the calling thread is back when the call returns.
#pragma once

#include <atomic>
#include <cstdint>

namespace fastrnn {

int get_num_threads() noexcept;
void set_num_threads(int threads) noexcept;  // clamped to 1 or more

// Calls task(context, i) once for each i in [0, count) on at most `threads` threads; indices are claimed, in ascending order,
// so that a thread held up by other work on its core takes fewer. Returns when all have returned.
void parallel_for(int threads, int64_t count, void (*task)(void* context, int64_t index),
                  void* context) noexcept;

// Where the members of a team wait for each other.
class Barrier {
 public:
  void set_size(int members) noexcept { members_ = static_cast<uint32_t>(members); }
  void wait() noexcept;

 private:
  uint32_t members_ = 1;
  std::atomic<uint32_t> arrived_{0}, phase_{0};
};

// Calls task(context, member, team, barrier) on each of the threads that came within a bounded while: team members, at most
// `threads`, at least the caller. Members run at the same time and may meet at the barrier.
void run_team(int threads, void (*task)(void* context, int member, int team, Barrier& barrier),
              void* context) noexcept;

// The same for callables; the type is erased without allocation.
template <class Task>
void parallel(int threads, int64_t count, Task&& task) noexcept {
  parallel_for(
      threads, count, [](void* context, int64_t index) { (*static_cast<Task*>(context))(index); },
      &task);
}
template <class Task>
void team(int threads, Task&& task) noexcept {
  run_team(
      threads,
      [](void* context, int member, int size, Barrier& barrier) {
        (*static_cast<Task*>(context))(member, size, barrier);
      },
      &task);
}

}  // namespace fastrnn
