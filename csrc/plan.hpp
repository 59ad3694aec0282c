// From a problem to everything the driver needs to know before it touches memory: sizes, where things lie, how work splits.
#pragma once

#include "fastrnn/fastrnn.h"
#include "table.hpp"

namespace fastrnn {

// Hands out 64-byte aligned pieces of one block. Without a block it only adds up sizes, so that what is asked for and what
// is used come from the same lines of code; `overflow` says that a size left 63 bits.
class Arena {
 public:
  explicit Arena(void* base) noexcept : base_(static_cast<char*>(base)) {}
  void* take(int64_t count, int64_t item) noexcept;
  int64_t used() const noexcept { return used_; }
  bool overflow() const noexcept { return overflow_; }

 private:
  char* base_;
  int64_t used_ = 0;
  bool overflow_ = false;
};

struct Plan {
  fastrnn_problem p;
  int isa;
  const CellKernels* kernels;
  int64_t item;  // bytes of an element
  int64_t lanes;
  int64_t gates;  // G
  int64_t
      columns;  // accumulators of a panel (biases): 4 LSTM, GRU; 3 GRU with reset before; RNN 1 per vector
  bool interleaved, has_c, keeps_gates, two_phase;
  int wanted_threads;  // how many the caller allows
  int threads;         // how many work at once, forward and backward
  bool hidden_split;   // a team shares each direction's hidden units, one phase a step
  bool wavefront;      // forward: layers one behind the other (then not the hidden split)
  int64_t wave_steps;  // steps of one of its blocks
  int64_t slices;      // batch slices a direction is split into
  bool recompute;      // backward makes the gates again, from states kept at the ends of segments
  int64_t segment;     // steps of one; all of them where the tape keeps the gates
  int64_t segments;    // at least 1

  int64_t layer_input(int64_t layer) const noexcept {
    return layer == 0 ? p.I : int64_t{p.D} * p.H;
  }
  Layout layout(int64_t layer, int64_t rows) const noexcept;
  int64_t packed_elements(int64_t layer) const noexcept;  // of one direction
  int64_t packed_backward_hh(int64_t layer) const noexcept;
  int64_t packed_backward_ih(int64_t layer) const noexcept;
  int64_t weight_elements(int64_t layer) const noexcept;
  // Sum of per_direction(l) * D over the layers below `layer`, plus direction d's share within it.
  template <class F>
  int64_t offset(int64_t layer, int64_t direction, F per_direction) const noexcept {
    const int64_t first = per_direction(0), other = p.L > 1 ? per_direction(1) : 0, D = p.D;
    return layer == 0 ? direction * first : D * first + ((layer - 1) * D + direction) * other;
  }
  int64_t chunk_steps(int64_t layer) const noexcept;
  int64_t shares() const noexcept;    // of a large product after the time loop, at most
  double work() const noexcept;       // floating-point operations of one forward call
  bool saves_gates() const noexcept;  // on the tape
  int64_t c_rows() const noexcept;    // of the tape's c, each direction
  bool has_tape() const noexcept;
  bool projects(
      int64_t layer) const noexcept;  // W x for a chunk at once, or within each step's product
};

// Threads, slices and split of a problem whose other fields are filled: the one place that decides.
void choose_split(Plan& plan) noexcept;

// How many steps backward recomputes and works off at a time.
void choose_segment(Plan& plan) noexcept;

// Checks the problem and fills the plan; sizes may be null.
fastrnn_status make_plan(const fastrnn_problem& problem, Plan& plan, fastrnn_sizes* sizes) noexcept;

// One direction's share of the tape.
struct DirectionTape {
  void* gates;  // [panels][R][4*lanes] or null
  void* c;      // [R][Hp]; without gates [segments][N][Hp]; or null
};
struct TapeMemory {
  DirectionTape at(const Plan& plan, int64_t layer, int64_t direction) const noexcept;
  void* y(const Plan& plan, int64_t layer) const noexcept;  // [T,N,D*H] of an inner layer
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
  int64_t table_bytes, projection_bytes, scratch_bytes;
};
// What a layer works in; used again by every layer, but in a wavefront each has its own.
struct LayerMemory {
  DirectionForward direction[2];
  LoopMemory loop;
};
struct ForwardMemory {
  void* zero;  // a row of zeros
  int64_t zero_bytes;
  LayerMemory layer(const Plan& plan, int64_t layer) const noexcept;
  char* layers;  // one or L times layer_bytes
  int64_t layer_bytes;
  void* wave;          // [L] lines, wavefront only
  ForwardCall* calls;  // [L]
  void* y(int64_t layer) const noexcept { return ys + layer % inner * y_bytes; }
  char*
      ys;  // [inner][T,N,D*H] between layers, inference: two, or in a wavefront all, whose states lie there
  int64_t inner, y_bytes;
  void* dropped;  // [T,N,D*H] what enters a layer after dropout, training
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
  void* zero;
  DirectionForward direction[2];  // h_of and c_of [segments][N]: the states before each
  void* tables[2];
  RecomputeMemory again;
  void* dgates[2];  // RNN, or when the tape is retained
  void* dh[2];      // [N][Hp]
  void* dc[2];
  void* rh[2];  // GRU with reset before
  void* drh[2];
  void* panels[2];  // sums of weight gradients
  void* copies[2];  // shares * outer_part_rows * outer_part_bytes: rows of x and h for them
  void* dys[2];     // [T,N,D*H] between layers
  void* dropped;
  int64_t zero_bytes;
};
BackwardMemory backward_memory(const Plan& plan, Arena& arena) noexcept;

}  // namespace fastrnn
