// The wavefront by itself: every block once and in an order that keeps to its picture, and what happens when a worker loses its
// core in the middle of one.
#include <pthread.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <thread>

#include "wavefront.hpp"

namespace {

using fastrnn::WaveLayer;
constexpr int64_t layers = 3, blocks = 16;

#define CHECK(what)                                               \
  do {                                                            \
    if (!(what)) {                                                \
      std::fprintf(stderr, "line %d: not %s\n", __LINE__, #what); \
      std::exit(1);                                               \
    }                                                             \
  } while (0)

// One call. Blocks take 50 microseconds; the first one that a worker gets, `lost` longer. Blocks that workers had.
int64_t call(std::chrono::milliseconds lost) {
  WaveLayer progress[layers] = {};
  std::atomic<int64_t> done[layers] = {}, helped{0};
  const pthread_t caller = pthread_self();
  fastrnn::wavefront(2, progress, layers, blocks, [&](int64_t layer, int64_t block) {
    CHECK(done[layer].load() == block);
    CHECK(layer == 0 || done[layer - 1].load() > block);
    const bool first = pthread_equal(caller, pthread_self()) == 0 && helped.fetch_add(1) == 0;
    const auto begin = std::chrono::steady_clock::now();
    while (std::chrono::steady_clock::now() - begin < std::chrono::microseconds(50)) {
    }
    if (first) std::this_thread::sleep_for(lost);
    done[layer].store(block + 1);
  });
  for (const auto& layer : done) CHECK(layer.load() == blocks);
  return helped.load();
}

// Whether a worker takes part in a call.
bool comes() { return call({}) > 0; }

// Whether a call whose worker was away for long is followed by calls on the caller alone.
bool is_left_alone() {
  if (!call(std::chrono::milliseconds(10))) return false;
  for (int i = 0; i < 4; ++i) {
    if (comes()) return false;
  }
  return true;
}

// Whether it happens within 10 seconds. On a loaded machine a call may be held up, and so followed by some alone, without being
// asked to: a tenth of a second after a worker lost its core for 4 ms. And the caller's own blocks may take as long.
bool happens(bool (*what)()) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  do {
    if (what()) return true;
  } while (std::chrono::steady_clock::now() < end);
  return false;
}

}  // namespace

int main() {
  if (!happens(comes)) {
    std::printf("skipped: no worker came\n");
    return 77;
  }
  CHECK(happens(is_left_alone));
  CHECK(happens(comes));
  std::printf("every block once, in order; a call that was held up is followed by some alone\n");
  return 0;
}
