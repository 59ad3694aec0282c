#include "wavefront.hpp"

#include <chrono>

#include "threads.hpp"

namespace fastrnn {
namespace {

// Whether a call should ask for workers at all. One that shares its core with another process loses it for a scheduler's slice, some
// milliseconds, in the middle of a block that all others then wait for: calls of 1.5 to 4 ms took 1.8 to 1.9 of one thread's time
// beside a busy neighbour. A call that was held up like that is followed by some on the caller alone, twice as many each time in a
// row; what they compute is the same.
class Company {
 public:
  bool wanted() noexcept {
    int left = alone_.load(std::memory_order_relaxed);
    while (left > 0 && !alone_.compare_exchange_weak(left, left - 1, std::memory_order_relaxed)) {
    }
    return left == 0;
  }
  void report(bool held_up) noexcept {
    const int calls = held_up ? next_.load(std::memory_order_relaxed) : 0;
    alone_.store(calls, std::memory_order_relaxed);
    next_.store(!held_up ? fewest : calls < most ? 2 * calls : most, std::memory_order_relaxed);
  }

 private:
  // 1 of 65 calls that takes twice its time costs 1.5 %; 64 calls of blocks that are short beside a slice are over in 2 s.
  static constexpr int fewest = 4, most = 64;
  std::atomic<int> alone_{0}, next_{fewest};
};
Company company;

// Of one thread in one call: what it waited for at most, beside the blocks that it computed.
class Patience {
 public:
  using Clock = std::chrono::steady_clock;
  void worked(Clock::duration time) noexcept { longest_ = time > longest_ ? time : longest_; }
  // Blocks of one call take about the same time, and none waits for more than a few. Before the first of its own a thread cannot
  // know. Half a millisecond is less than any slice, and more than a wake.
  bool lost(Clock::duration waited) const noexcept {
    return longest_.count() > 0 && waited > 4 * longest_ + std::chrono::microseconds(500);
  }

 private:
  Clock::duration longest_{};
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
  std::atomic<bool> held_up{false};
  const bool shared = company.wanted();
  const int64_t useful = !shared ? 1 : count < threads ? count : threads;
  parallel(threads, useful, [&](int64_t) {
    Patience patience;
    Patience::Clock::time_point since = Patience::Clock::now();
    const auto lap = [&] {
      const Patience::Clock::time_point last = since;
      return (since = Patience::Clock::now()) - last;
    };
    for (int64_t mine = 0;;) {
      const uint32_t seen = news.load(std::memory_order_acquire);
      const int64_t layer = claim_layer(layers, count, blocks, mine);
      if (layer == finished) return;
      if (layer == none) {
        wait_change(news, seen);
        if (patience.lost(lap())) held_up.store(true, std::memory_order_relaxed);
        continue;
      }
      mine = layer;
      const int64_t block = layers[layer].done.load(std::memory_order_relaxed);
      task(context, layer, block);
      layers[layer].done.store(block + 1, std::memory_order_release);
      layers[layer].busy.store(false, std::memory_order_release);
      news.fetch_add(1, std::memory_order_release);
      news.notify_all();
      patience.worked(lap());
    }
  });
  if (shared) company.report(held_up.load(std::memory_order_relaxed));
}

}  // namespace fastrnn
