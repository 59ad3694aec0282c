// Rows of different length: which there are, in which order, where they lie.
//
//   padded, with lengths    x [T,N,I]      t, n
//   packed by rows          x [rows,I]     offsets[n] + t                a row after the other
//   packed by steps         x [rows,I]     starts[t] + places[n]         a step after the other; starts: sums of batch_sizes
//
// Not for kernels: functions here are inline, see types.hpp.
#pragma once

#include "fastrnn/fastrnn.h"
#include "types.hpp"

namespace fastrnn {

// Part of the arguments of a call.
struct RowArgs {
  const int64_t* lengths;      // [N] or null
  const int64_t* offsets;      // [N+1] or null
  const int64_t* batch_sizes;  // [T] or null
  const int64_t* places;       // [N] or null
  const uint8_t *reset, *mask;
};
template <class Args>
RowArgs rows_in(const Args& a) {
  return {a.lengths, a.offsets, a.batch_sizes, a.places, a.reset, a.mask};
}

// Where a sequence's tables are made.
struct SequenceMemory {
  int64_t* order;    // [N]
  int64_t* lengths;  // [N] packed
  int64_t* step_of;  // [T] packed
};

// Nothing is read before it is known to be there, and no index outside of the problem's arrays will come of it. Only
// memory.order is written.
fastrnn_status check_rows(const fastrnn_problem& problem, const RowArgs& rows,
                          const SequenceMemory& memory) noexcept;

// The forward direction's, of arguments that were checked.
Sequence begin_sequence(const fastrnn_problem& problem, const RowArgs& rows,
                        const SequenceMemory& memory) noexcept;

// Contiguous shares of [0, count): share i of `shares`.
struct Range {
  int64_t begin, end;
};
inline Range share(int64_t count, int64_t shares, int64_t i) {
  const int64_t small = count / shares, larger = count % shares;
  const int64_t begin = i * small + (i < larger ? i : larger);
  return {begin, begin + small + (i < larger ? 1 : 0)};
}

// The places of one of `slices` of a batch, of which each has about the same number of steps; it may be empty.
Range slice_of(const Sequence& seq, int64_t slices, int64_t slice) noexcept;

inline int64_t step_of(const Sequence& seq, int64_t t) {
  return seq.step_of != nullptr ? seq.step_of[t] : t;
}
inline int64_t row_of(const Sequence& seq, int64_t n) {
  return seq.row_of != nullptr ? seq.row_of[n] : n;
}
inline int64_t flag_at(const Sequence& seq, int64_t t, int64_t n) {
  return step_of(seq, t) * seq.flag_step + row_of(seq, n);
}
inline bool is_processed(const Sequence& seq, int64_t t, int64_t n) {
  return seq.mask == nullptr || seq.mask[flag_at(seq, t, n)] != 0;
}
// The n at a place of the order.
inline int64_t row_at(const Sequence& seq, int64_t place) {
  return seq.order != nullptr ? seq.order[place] : place;
}
// How many rows have a step t: those at the first places.
inline int64_t alive_at(const Sequence& seq, int64_t t) {
  if (seq.lengths == nullptr) return seq.N;
  int64_t begin = 0, end = seq.N;
  while (begin < end) {
    const int64_t middle = begin + (end - begin) / 2;
    if (seq.lengths[seq.order[middle]] > t) {
      begin = middle + 1;
    } else {
      end = middle;
    }
  }
  return begin;
}
// How many of those at places [begin, end) of step t, all alive, are processed.
inline int64_t count_processed(const Sequence& seq, int64_t t, int64_t begin, int64_t end) {
  if (seq.mask == nullptr) return end - begin;
  int64_t count = 0;
  for (int64_t place = begin; place < end; ++place)
    count += is_processed(seq, t, row_at(seq, place)) ? 1 : 0;
  return count;
}

// Calls body(t, n) for every (t, n) that there is.
template <class Body>
void for_rows(const Sequence& seq, Body body) {
  for (int64_t t = 0; t < seq.T; ++t) {
    const int64_t alive = alive_at(seq, t);
    for (int64_t place = 0; place < alive; ++place) body(t, row_at(seq, place));
  }
}

}  // namespace fastrnn
