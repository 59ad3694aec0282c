// Where things lie in the three kinds of memory: packed weights, tape, workspace. Sizes come from the lines that hand the pieces out.
#pragma once

#include "plan.hpp"
#include "sequence.hpp"

namespace fastrnn {

constexpr int64_t line = 64;  // bytes of a line of cache, on which blocks begin

// Hands out 64-byte aligned pieces of one block. Without a block it only adds up sizes, so that what is asked for and what
// is used come from the same lines of code; `overflow` says that a size left 63 bits.
class Arena {
 public:
  explicit Arena(void* base) noexcept : base_(reinterpret_cast<uintptr_t>(base)) {}
  void* take(int64_t count, int64_t item) noexcept;
  int64_t used() const noexcept { return used_; }
  bool overflow() const noexcept { return overflow_; }

 private:
  uintptr_t base_;
  int64_t used_ = 0;
  bool overflow_ = false;
};

// The sizes that a caller is told: of weights, packed weights, tape and workspaces.
fastrnn_status plan_sizes(const Plan& plan, fastrnn_sizes& sizes) noexcept;

int64_t all_weights(const Plan& plan) noexcept;   // elements
int64_t packed_bytes(const Plan& plan) noexcept;  // of the stack
int64_t packed_backward_bytes(const Plan& plan) noexcept;

// One direction's share of the tape.
struct DirectionTape {
  void* gates;  // [panels][R][4*lanes] or null
  void* c;      // [R][Hp]; without gates [segments][N][Hp]; or null
};
struct TapeMemory {
  DirectionTape at(const Plan& plan, int64_t layer, int64_t direction) const noexcept;
  void* y(const Plan& plan, int64_t layer) const noexcept;  // [rows,D*H] of an inner layer
  char *gates, *c, *ys;
};
TapeMemory tape_memory(const Plan& plan, Arena& arena) noexcept;

// Memory of one direction, used again by every layer.
struct DirectionForward {
  const void** h_of;  // [N]
  const void** c_of;  // [N]
  void* c;            // [N][Hp]
};
// What the forward time loops work in.
struct LoopMemory {
  void* tables[2];      // slices * table_bytes, one piece for each slice
  void* projection[2];  // slices * projection_bytes
  void* scratch[2];     // slices * scratch_bytes
  void* masked[2];      // slices * state_bytes, recurrent dropout: mask * h
  void* c_new[2];       // slices * state_bytes, zoneout: c as the cell gives it
  int64_t table_bytes, projection_bytes, scratch_bytes, state_bytes;
};
// What a layer works in; used again by every layer, but in a wavefront each has its own.
struct LayerMemory {
  DirectionForward direction[2];
  LoopMemory loop;
};
struct ForwardMemory {
  SequenceMemory sequence;
  void* zero;  // a row of zeros
  int64_t zero_bytes;
  LayerMemory layer(const Plan& plan, int64_t layer) const noexcept;
  char* layers;  // one or L times layer_bytes
  int64_t layer_bytes;
  void* wave;          // [L] lines, wavefront only
  ForwardCall* calls;  // [L]
  void* y(int64_t layer) const noexcept { return ys + layer % inner * y_bytes; }
  char*
      ys;  // [inner][rows,D*H] between layers, inference: two, or in a wavefront all, whose states lie there
  int64_t inner, y_bytes;
  void* dropped;  // [rows,D*H] what enters a layer after dropout, training
  char* panels;   // where unpacked_forward, [D] of panel_bytes: room for a packed panel
  int64_t panel_bytes;
};
ForwardMemory forward_memory(const Plan& plan, Arena& arena) noexcept;

// To compute the gates of a segment again, each direction.
struct RecomputeMemory {
  LoopMemory loop;
  const void** h_of[2];  // [N] the loop's own: it moves them along
  const void** c_of[2];
  void* gates[2];  // [panels][R][4*lanes] R: rows of a segment, at most segment*N
  void* c[2];      // [R][Hp]
  void* spare[2];  // [N][Hp]
};
struct BackwardMemory {
  SequenceMemory sequence;
  void* zero;
  DirectionForward direction[2];  // h_of and c_of [segments][N]: the states before each
  void* tables[2];
  RecomputeMemory again;
  void* dgates[2];  // RNN, or when the tape is retained
  void* dh[2];      // [N][Hp]
  void* dc[2];
  void* rh[2];  // GRU with reset before
  void* drh[2];
  void* masked[2];  // recurrent dropout: [R][Hp] mask * h
  void* du[2];      // [N][Hp] its gradient
  void* panels[2];  // sums of weight gradients
  void* copies[2];  // shares * outer_part_rows * outer_part_bytes: rows of x and h for them
  void* dys[2];     // [rows,D*H] between layers
  void* dropped;
  int64_t zero_bytes;
};
BackwardMemory backward_memory(const Plan& plan, Arena& arena) noexcept;

}  // namespace fastrnn
