#include "threads.hpp"

#include <pthread.h>

#include <chrono>
#include <new>

#include "cores.hpp"
#include "fpmode.hpp"
#include "team.hpp"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace fastrnn {
namespace {

void pause() noexcept {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Spins before sleeping: 1000 pauses are 10 to 40 microseconds (10 to 40 ns each on current x86), a few times what waking
// a sleeper costs (a futex wake and a switch, 5 to 10 microseconds), so that waiting costs at most a few wakes.
constexpr int spins = 1000;

// False: it is still `old`.
bool spin_change(const std::atomic<uint32_t>& value, uint32_t old, int turns) noexcept {
  for (int i = 0; i < turns; ++i) {
    if (value.load(std::memory_order_acquire) != old) return true;
    pause();
  }
  return false;
}

void sleep_change(const std::atomic<uint32_t>& value, uint32_t old) noexcept {
  while (value.load(std::memory_order_acquire) == old) value.wait(old, std::memory_order_acquire);
}

// How long a worker spins for the next call: as `spins`, unless the last call came soon after it had gone to sleep, as in a loop
// that changes weights or prepares data in between. Virtual machines take 50 microseconds to wake a CPU that sleeps: training
// steps of 0.3 to 0.9 ms took 0.92 to 0.97 of the time (N=16, T=50, I=H=64, two threads).
class Rest {
 public:
  void until_change(const std::atomic<uint32_t>& value, uint32_t old) noexcept {
    if (spin_change(value, old, turns_)) return;
    const auto asleep = std::chrono::steady_clock::now();
    sleep_change(value, old);
    const bool soon = std::chrono::steady_clock::now() - asleep < std::chrono::microseconds(200);
    turns_ = soon ? 8 * spins : spins;
  }

 private:
  int turns_ = spins;
};

}  // namespace

void wait_change(const std::atomic<uint32_t>& value, uint32_t old) noexcept {
  if (!spin_change(value, old, spins)) sleep_change(value, old);
}

namespace {

constexpr int most_workers = most_threads - 1;

struct Job {
  void (*task)(void*, int64_t);
  void* context;
};

// One job at a time, announced by one 64-bit word: the job's number above, unclaimed indices below. Whoever takes an index by
// compare-and-swap knows that the job's fields are valid until it reports that index done. A worker that wakes late finds
// nothing to claim, or a newer job, never a stale one.
class Pool {
 public:
  struct Start {  // what a worker is told
    Pool* pool;
    int member;
  };

  // False if another thread uses the pool.
  bool acquire() noexcept { return !busy_.exchange(true, std::memory_order_acquire); }
  void release() noexcept { busy_.store(false, std::memory_order_release); }

  // Workers there are, after trying to have that many.
  int ensure(int workers) noexcept;

  // Announces `count` tickets for job to that many workers, calls lead(), takes back what nobody claimed, and returns when all
  // that was claimed is done.
  template <class Lead>
  void run(int workers, int64_t count, const Job& job, Lead lead) noexcept {
    job_ = job;
    done_.store(0, std::memory_order_relaxed);
    helpers_.store(workers, std::memory_order_relaxed);
    cpu_[0].store(current_cpu(), std::memory_order_relaxed);
    for (int i = 1; i <= workers; ++i)
      cpu_[i].store(-1, std::memory_order_relaxed);  // not seen yet
    const uint64_t number = (ticket_.load(std::memory_order_relaxed) >> 32) + 1;
    ticket_.store(number << 32 | static_cast<uint64_t>(count), std::memory_order_release);
    announced_.fetch_add(1, std::memory_order_release);
    announced_.notify_all();
    lead();
    const uint64_t unclaimed =
        ticket_.exchange(number << 32, std::memory_order_acq_rel) & 0xffffffffu;
    const uint32_t claimed = static_cast<uint32_t>(static_cast<uint64_t>(count) - unclaimed);
    for (uint32_t done; (done = done_.load(std::memory_order_acquire)) != claimed;)
      wait_change(done_, done);
  }

  // A worker on the CPU of the caller or of an earlier worker moves to another. Schedulers wake a thread beside the one that
  // woke it and may leave it there for milliseconds: two threads then took 1.0 to 1.2 times the time of one in calls of up to
  // 30 ms. A look costs 5 ns, a move 30 microseconds, and the next wake finds the worker where it went.
  void settle(int member, const CpuSet& allowed) noexcept {
    const int cpu = current_cpu();
    cpu_[member].store(cpu, std::memory_order_relaxed);
    int taken[most_threads];
    bool shared = false;
    for (int i = 0; i < member; ++i) {
      taken[i] = cpu_[i].load(std::memory_order_relaxed);
      shared |= taken[i] == cpu;
    }
    if (!shared || cpu < 0) return;
    leave_cpus(allowed, taken, member);
    cpu_[member].store(current_cpu(), std::memory_order_relaxed);
  }

  // Takes tickets until there are none, or none for this member; 0 is the caller.
  void claim(int member, const CpuSet& allowed) noexcept {
    for (;;) {
      uint64_t ticket = ticket_.load(std::memory_order_acquire);
      do {
        if ((ticket & 0xffffffffu) == 0) return;
        if (member > helpers_.load(std::memory_order_relaxed)) return;
      } while (!ticket_.compare_exchange_weak(ticket, ticket - 1, std::memory_order_acq_rel,
                                              std::memory_order_acquire));
      if (member > 0) settle(member, allowed);
      const Job job = job_;
      job.task(job.context, static_cast<int64_t>(ticket & 0xffffffffu) - 1);
      done_.fetch_add(1, std::memory_order_acq_rel);
      done_.notify_one();
    }
  }

  void worker(int member) noexcept {
    const FlushSubnormals flush;
    const CpuSet allowed = cpus_of_this_thread();  // inherited from the caller that started it
    Rest rest;
    for (;;) {
      const uint32_t seen = announced_.load(std::memory_order_acquire);
      if (member <= helpers_.load(std::memory_order_relaxed)) claim(member, allowed);
      rest.until_change(announced_, seen);
    }
  }

 private:
  std::atomic<bool> busy_{false};
  int workers_ = 0;
  bool exhausted_ = false;
  Job job_{};
  alignas(64) std::atomic<uint64_t> ticket_{0};
  alignas(64) std::atomic<uint32_t> done_{0};
  alignas(64) std::atomic<uint32_t> announced_{0};
  std::atomic<int> helpers_{0};
  std::atomic<int> cpu_[most_threads] = {};  // where each member was last seen
  Start starts_[most_threads] =
      {};  // not on the heap: a worker that starts late would free its own in somebody's step
};

void* worker_main(void* argument) {
  const Pool::Start* start = static_cast<const Pool::Start*>(argument);
  start->pool->worker(start->member);
  return nullptr;
}

int Pool::ensure(int workers) noexcept {
  while (workers_ < workers && workers_ < most_workers && !exhausted_) {
    Start* start = &starts_[workers_];
    *start = {this, workers_ + 1};
    pthread_attr_t attributes;
    pthread_t thread;
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    const int error = pthread_create(&thread, &attributes, worker_main, start);
    pthread_attr_destroy(&attributes);
    if (error != 0) {
      exhausted_ = true;  // a limit of the system: asking again at each call would only cost time
      break;
    }
    ++workers_;
  }
  return workers_ < workers ? workers_ : workers;
}

// Never destroyed: workers may be asleep in it when the process ends.
std::atomic<Pool*> the_pool{nullptr};

void forget_pool() noexcept {
  the_pool.store(nullptr, std::memory_order_relaxed);
}  // in a forked child: its threads are gone

Pool* pool() noexcept {
  Pool* existing = the_pool.load(std::memory_order_acquire);
  if (existing != nullptr) return existing;
  static const int registered = pthread_atfork(nullptr, nullptr, forget_pool);
  if (registered != 0) return nullptr;
  Pool* made = new (std::nothrow) Pool;
  if (made == nullptr) return nullptr;
  if (the_pool.compare_exchange_strong(existing, made, std::memory_order_acq_rel)) return made;
  delete made;
  return existing;
}

std::atomic<int> wanted{0};

// The pool, taken, with that many workers at hand (fewer if they cannot be had); null: run alone.
Pool* take_pool(int& workers) noexcept {
  if (workers <= 0) return nullptr;
  Pool* p = pool();
  if (p == nullptr || !p->acquire()) return nullptr;
  workers = p->ensure(workers);
  if (workers > 0) return p;
  p->release();
  return nullptr;
}

}  // namespace

int get_num_threads() noexcept {
  int threads = wanted.load(std::memory_order_relaxed);
  if (threads == 0) wanted.store(threads = default_threads(), std::memory_order_relaxed);
  return threads;
}

void set_num_threads(int threads) noexcept {
  wanted.store(threads < 1                  ? 1
               : threads > most_workers + 1 ? most_workers + 1
                                            : threads,
               std::memory_order_relaxed);
}

void parallel_for(int threads, int64_t count, void (*task)(void* context, int64_t index),
                  void* context) noexcept {
  const FlushSubnormals flush;
  int workers = static_cast<int>(count < threads ? count : threads) - 1;
  Pool* p = take_pool(workers);
  if (p == nullptr) {
    for (int64_t i = 0; i < count; ++i) task(context, i);
    return;
  }
  struct Ascending {  // tickets count down; tasks are numbered up
    void (*task)(void*, int64_t);
    void* context;
    int64_t count;
  } ascending{task, context, count};
  p->run(workers, count,
         {[](void* c, int64_t left) {
            const Ascending& a = *static_cast<Ascending*>(c);
            a.task(a.context, a.count - 1 - left);
          },
          &ascending},
         [p] { p->claim(0, CpuSet{}); });
  p->release();
}

int64_t team_claim(Team& team, int64_t count) noexcept {
  return static_cast<Phases*>(team.phases)->claim(team, count);
}

namespace {

// Share s of [0, count) as equal as can be.
int64_t share_begin(int64_t count, int64_t shares, int64_t s) noexcept {
  return count * s / shares;
}

}  // namespace

// An item of one share, or -1 if all of them are claimed (or the phase is over). Every other phase goes backwards, as in the
// kernels' phase alone. The first to come in a phase finds the word of an older one: nobody need reset it.
int64_t Phases::claim_from(int share, uint64_t phase, int64_t count) noexcept {
  const int64_t begin = share_begin(count, members_, share);
  const uint64_t size = static_cast<uint64_t>(share_begin(count, members_, share + 1) - begin);
  std::atomic<uint64_t>& claimed = shares_[share].claimed;
  uint64_t word = claimed.load(std::memory_order_relaxed);
  for (;;) {
    if (word >> 32 > phase) return -1;
    const uint64_t taken = word >> 32 == phase ? word & 0xffffffffu : 0;
    if (taken >= size) return -1;
    if (claimed.compare_exchange_weak(word, phase << 32 | (taken + 1), std::memory_order_acq_rel,
                                      std::memory_order_relaxed))
      return begin + static_cast<int64_t>((phase & 1) != 0 ? size - 1 - taken : taken);
  }
}

int64_t Phases::claim(Team& mine, int64_t count) noexcept {
  const uint32_t phase = mine.phase;
  if (phase_.load(std::memory_order_acquire) == phase) {
    for (int i = 0; i < members_; ++i) {
      const int share = (mine.member + i) % members_;
      const int64_t item = claim_from(share, phase, count);
      if (item < 0) continue;
      ++mine.taken;
      return item;
    }
    // Reported together, once a phase: one line moves between cores, not one for each item.
    const int64_t taken = mine.taken;
    if (taken > 0 && done_.fetch_add(taken, std::memory_order_acq_rel) + taken == count) {
      done_.store(0, std::memory_order_relaxed);
      // An exchange, not a store: notify_all looks whether anybody sleeps, and must not look before the new phase is seen.
      phase_.exchange(phase + 1, std::memory_order_seq_cst);
      phase_.notify_all();
    } else {
      wait_change(phase_, phase);
    }
  }
  mine.taken = 0;
  ++mine.phase;
  return -1;
}

void run_team(int threads, void (*task)(void* context, int member), void* context) noexcept {
  const FlushSubnormals flush;
  int workers = threads - 1;
  Pool* p = take_pool(workers);
  if (p == nullptr) {
    task(context, 0);
    return;
  }
  struct Members {
    void (*task)(void*, int);
    void* context;
  } members{task, context};
  p->run(workers, workers,
         {[](void* c, int64_t left) {
            const Members& m = *static_cast<Members*>(c);
            m.task(m.context, static_cast<int>(left) + 1);
          },
          &members},
         [&] { task(context, 0); });
  p->release();
}

}  // namespace fastrnn
