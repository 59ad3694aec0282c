// From a problem to everything the driver needs to know before it touches memory: shapes of panels, chunks, segments, how work
// splits. How large the memory is and where things lie in it follows in memory.hpp.
#pragma once

#include "fastrnn/fastrnn.h"
#include "table.hpp"

namespace fastrnn {

// b is a power of two: lanes and lines are. A division would be 5 ns, of which a plan has dozens.
inline int64_t round_up(int64_t a, int64_t b) { return (a + b - 1) & -b; }

struct Plan {
  fastrnn_problem p;
  int isa;
  const CellKernels* kernels;
  int64_t item;  // bytes of an element
  int64_t lanes;
  int64_t gates;             // G
  int64_t w_gates, u_gates;  // that W and U have in their panels
  int64_t
      columns;  // accumulators of a panel (biases): 4 LSTM, GRU; 3 GRU with reset before; RNN 1 per vector
  bool interleaved, has_c, keeps_gates, two_phase;
  bool masked, zoned;  // recurrent dropout, zoneout
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
  int64_t widest_panel() const noexcept;                  // elements, of all layers
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
  int64_t projected_steps(int64_t rows) const noexcept;  // that xg may have at once
  int64_t chunk_steps(int64_t layer) const noexcept;
  int64_t chunk_rows(int64_t layer) const noexcept;  // (t, n) of a slice's chunk, at most
  bool packed() const noexcept { return p.rows != 0; }
  int64_t rows() const noexcept { return packed() ? p.rows : p.T * p.N; }  // of x and y
  int64_t all_states_bytes() const noexcept { return p.L * p.D * p.T * p.N * p.H * item; }
  int64_t segment_rows() const noexcept {  // at most
    return segment * p.N < rows() ? segment * p.N : rows();
  }
  bool regular() const noexcept { return masked || zoned; }
  int64_t shares() const noexcept;  // of a large product after the time loop, at most
  bool unpacked_backward()
      const noexcept;  // the weights as they lie, where there are no packed ones
  bool unpacked_forward() const noexcept;  // panels are packed one at a time, as the call goes
  double work() const noexcept;            // floating-point operations of one forward call
  bool saves_gates() const noexcept;       // on the tape
  int64_t c_rows() const noexcept;         // of the tape's c, each direction
  bool has_tape() const noexcept;
  bool projects(
      int64_t layer) const noexcept;  // W x for a chunk at once, or within each step's product
};

// Threads, slices and split of a problem whose other fields are filled: the one place that decides.
void choose_split(Plan& plan) noexcept;

// How many steps backward recomputes and works off at a time.
void choose_segment(Plan& plan) noexcept;

// Checks the problem and fills the plan.
fastrnn_status make_plan(const fastrnn_problem& problem, Plan& plan) noexcept;

}  // namespace fastrnn
