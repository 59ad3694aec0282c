#include "wavefront.hpp"

#include "threads.hpp"

namespace fastrnn {
namespace {

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
  const int64_t useful = count < threads ? count : threads;
  parallel(threads, useful, [&](int64_t) {
    for (int64_t mine = 0;;) {
      const uint32_t seen = news.load(std::memory_order_acquire);
      const int64_t layer = claim_layer(layers, count, blocks, mine);
      if (layer == finished) return;
      if (layer == none) {
        wait_change(news, seen);
        continue;
      }
      mine = layer;
      const int64_t block = layers[layer].done.load(std::memory_order_relaxed);
      task(context, layer, block);
      layers[layer].done.store(block + 1, std::memory_order_release);
      layers[layer].busy.store(false, std::memory_order_release);
      news.fetch_add(1, std::memory_order_release);
      news.notify_all();
    }
  });
}

}  // namespace fastrnn
