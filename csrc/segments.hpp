// The steps of a layer as backward takes them, a segment at a time: all at once where the tape holds the gates, else in pieces
// whose gates are computed again into memory that the next piece uses too.
//
//   steps of a direction      0 ......... S ......... 2S ......... T      in its own order: reverse time has its own segments
//   tape, all                 [gates and c of every row                ]
//   tape, recompute                     [c]          [c]          [c]     states [N][Hp] at the ends; h is y itself
//   backward, recompute                              [gates, c of a row]  the last segment first
//
// A row may end, start, be cut or held anywhere. Where its state before a segment lies is therefore not computed but looked
// up: the tables of all steps are gone through once, and the pointers at each segment's beginning noted (16 bytes a row).
#pragma once

#include "fastrnn/fastrnn.h"
#include "memory.hpp"

namespace fastrnn {

// One direction of a layer's backward pass; its tables, over the steps of a segment, serve the time loop and the products.
struct BackwardCall {
  RowSource source;
  BackwardArgs args;
  Regular regular;
};

// Notes the states before each segment; direction[d] of the memory begins with those before the first.
void find_states(const Plan& plan, const BackwardMemory& memory, int64_t d,
                 BackwardCall& call) noexcept;

// Makes segment k that of the call.
void enter_segment(const Plan& plan, const BackwardMemory& memory, int64_t d, int64_t k,
                   BackwardCall& call) noexcept;

// Computes the gates, and c, of segment k of all directions again, once it has been entered.
void recompute_segment(const Plan& plan, const void* packed, const BackwardMemory& memory,
                       int64_t layer, int64_t k, const BackwardCall* calls) noexcept;

}  // namespace fastrnn
