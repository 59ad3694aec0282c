#include "wavefront.hpp"

#include <chrono>

#include "threads.hpp"

namespace fastrnn {
namespace {

using Clock = std::chrono::steady_clock;

// When a call may ask for workers again. One that shares its core with another process loses it for a scheduler's slice, some
// milliseconds, in the middle of a block that all others then wait for: calls of 1.5 to 4 ms took 1.8 to 1.9 of one thread's time
// beside a busy neighbour. A call that was held up like that is followed by calls on the caller alone, for 32 times as long, so
// that trying again costs 3 % at most; what they compute is the same.
std::atomic<int64_t> alone_until{0};  // of Clock

bool may_share(Clock::time_point now) noexcept {
  return now.time_since_epoch().count() >= alone_until.load(std::memory_order_relaxed);
}
void stay_alone(Clock::time_point begin) noexcept {
  const Clock::time_point now = Clock::now();
  alone_until.store((now + 32 * (now - begin)).time_since_epoch().count(),
                    std::memory_order_relaxed);
}

// What the threads of one call did with their time, each by a Lap of its own. Looked at when the call is over: a thread that
// waits for the first block of all cannot tell yet how long one takes.
class Times {
 public:
  class Lap {
   public:
    explicit Lap(Times& times) noexcept : times_(times) {}
    ~Lap() {
      times_.worked_.fetch_add(worked_.count(), std::memory_order_relaxed);
      int64_t most = times_.waited_.load(std::memory_order_relaxed);
      while (most < waited_.count() && !times_.waited_.compare_exchange_weak(
                                           most, waited_.count(), std::memory_order_relaxed)) {
      }
    }
    Lap(const Lap&) = delete;
    Lap& operator=(const Lap&) = delete;
    void worked() noexcept { worked_ += next(); }
    void waited() noexcept {
      const Clock::duration time = next();
      if (time > waited_) waited_ = time;
    }

   private:
    Clock::duration next() noexcept {
      const Clock::time_point last = since_;
      return (since_ = Clock::now()) - last;
    }
    Times& times_;
    Clock::time_point since_ = Clock::now();
    Clock::duration worked_{}, waited_{};  // in all; longest
  };

  // Whether somebody waited for longer than a few of the blocks. Half a millisecond is less than any slice, and more than a wake.
  bool held_up(int64_t blocks) const noexcept {
    const Clock::duration block(worked_.load(std::memory_order_relaxed) / blocks),
        longest(waited_.load(std::memory_order_relaxed));
    return longest > 4 * block + std::chrono::microseconds(500);
  }

 private:
  std::atomic<int64_t> worked_{0}, waited_{0};
};
constexpr int64_t none = -1, finished = -2;

// Claims a layer whose next block may begin: `mine` if it can be, else the highest, which frees the line behind it.
int64_t claim_layer(WaveLayer* layers, int64_t count, int64_t blocks, int64_t mine) noexcept {
  bool open = false;
  for (int64_t i = 0; i <= count; ++i) {
    const int64_t l = i == 0 ? mine : count - i;
    WaveLayer& layer = layers[l];
    if (layer.done.load(std::memory_order_acquire) == blocks) continue;
    open = true;
    if (layer.busy.exchange(true, std::memory_order_acquire)) continue;
    const int64_t block = layer.done.load(std::memory_order_relaxed);
    if (block < blocks && (l == 0 || layers[l - 1].done.load(std::memory_order_acquire) > block))
      return l;
    layer.busy.store(false, std::memory_order_release);
  }
  return open ? none : finished;
}

}  // namespace

void run_wavefront(int threads, WaveLayer* layers, int64_t count, int64_t blocks,
                   void (*task)(void* context, int64_t layer, int64_t block),
                   void* context) noexcept {
  std::atomic<uint32_t> news{0};
  Times times;
  const Clock::time_point begin = Clock::now();
  const int64_t useful = !may_share(begin) ? 1 : count < threads ? count : threads;
  parallel(threads, useful, [&](int64_t) {
    Times::Lap lap(times);
    for (int64_t mine = 0;;) {
      const uint32_t seen = news.load(std::memory_order_acquire);
      const int64_t layer = claim_layer(layers, count, blocks, mine);
      if (layer == finished) return;
      if (layer == none) {
        wait_change(news, seen);
        lap.waited();
        continue;
      }
      mine = layer;
      const int64_t block = layers[layer].done.load(std::memory_order_relaxed);
      task(context, layer, block);
      layers[layer].done.store(block + 1, std::memory_order_release);
      layers[layer].busy.store(false, std::memory_order_release);
      news.fetch_add(1, std::memory_order_release);
      news.notify_all();
      lap.worked();
    }
  });
  if (times.held_up(count * blocks)) stay_alone(begin);
}

}  // namespace fastrnn
