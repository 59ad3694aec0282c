// Layers of a stack, each a block of steps behind the one below it:
//
//   layer 0   0 1 2 3 4 5            a block may begin when its own layer has done the block before, and the layer below
//   layer 1     0 1 2 3 4 5          this one: T steps of L layers take the time of T + (L-1) blocks
//   layer 2       0 1 2 3 4 5
//
// Threads claim blocks; a thread stays with its layer while it can, for the weights are in its cache. One that lost its core
// holds up one block, and a caller alone does them all.
#pragma once

#include <atomic>
#include <cstdint>

namespace fastrnn {

// How far a layer has come, on a line of its own; zero-initialised before use.
struct alignas(64) WaveLayer {
  std::atomic<int64_t> done;  // blocks
  std::atomic<bool> busy;     // a thread works on the next one
};

// Calls task(context, layer, block) once for every block of every layer [layers], in an order that keeps to the picture.
void run_wavefront(int threads, WaveLayer* layers, int64_t count, int64_t blocks,
                   void (*task)(void* context, int64_t layer, int64_t block),
                   void* context) noexcept;

template <class Task>
void wavefront(int threads, WaveLayer* layers, int64_t count, int64_t blocks,
               Task&& task) noexcept {
  run_wavefront(
      threads, layers, count, blocks,
      [](void* context, int64_t layer, int64_t block) {
        (*static_cast<Task*>(context))(layer, block);
      },
      &task);
}

}  // namespace fastrnn
