// The pool: independent tasks that threads claim, and teams that share one task phase by phase.
//
// Workers are started when first wanted and kept; between calls they spin a bounded while, then sleep on a futex (through
// std::atomic::wait). A call that finds the pool busy runs alone. A thread that cannot be created is one fewer. A forked
// child starts with no pool and builds its own. The caller's affinity is never touched; a worker leaves the caller's CPU.
//
// Every task runs with subnormals flushed; the mode of the calling thread is back when the call returns.
#pragma once

#include <atomic>
#include <cstdint>

#include "cores.hpp"
#include "types.hpp"

namespace fastrnn {

int get_num_threads() noexcept;
void set_num_threads(int threads) noexcept;  // clamped to 1 or more

// Calls task(context, i) once for each i in [0, count) on at most `threads` threads; indices are claimed, in ascending order,
// so that a thread held up by other work on its core takes fewer. Returns when all have returned.
void parallel_for(int threads, int64_t count, void (*task)(void* context, int64_t index),
                  void* context) noexcept;

// Returns when value is no longer `old`: after a bounded spin, it sleeps until it is notified.
void wait_change(const std::atomic<uint32_t>& value, uint32_t old) noexcept;

// Work that the members of a team share, phase by phase: the items of a phase, [0, count), are claimed one by one, each member
// its own share first, so that its weights stay in its cache, then what others have not begun. A phase ends when its items
// are done, not when all members have come: one that lost its core holds up the others for the one item it holds, and finds
// its way back by passing over the phases that ended without it.
class Phases {
 public:
  explicit Phases(int members) noexcept : members_(members) {}

  // The next item for this member, or -1: all are done, by whomever, and what they wrote is visible; the next call is about
  // the next phase. All members ask for the same phases in the same order.
  int64_t claim(Team& mine, int64_t count) noexcept;

 private:
  int64_t claim_from(int share, uint64_t phase, int64_t count) noexcept;

  struct alignas(64) Share {
    std::atomic<uint64_t> claimed{0};  // phase above, claimed items of this share below
  };
  const int members_;
  alignas(64) std::atomic<uint32_t> phase_{0};  // the one that is open
  alignas(64) std::atomic<int64_t> done_{0};    // its finished items
  Share shares_[most_threads];
};

// Calls task(context, member) on the caller, member 0, and on those of `threads` - 1 workers that come, as members 1 and up: any of
// them, or none. What they share is a Phases of `threads` members.
void run_team(int threads, void (*task)(void* context, int member), void* context) noexcept;

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
      threads, [](void* context, int member) { (*static_cast<Task*>(context))(member); }, &task);
}

}  // namespace fastrnn
