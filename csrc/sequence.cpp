#include "sequence.hpp"

#include <algorithm>
#include <cstring>

namespace fastrnn {
namespace {

fastrnn_status check_offsets(const fastrnn_problem& p, const int64_t* offsets) {
  if (offsets[0] != 0 || offsets[p.N] != p.rows) return FASTRNN_BAD_PACKING;
  for (int64_t n = 0; n < p.N; ++n) {  // each in its range first: no difference overflows
    if (offsets[n + 1] < offsets[n] || offsets[n + 1] > p.rows) return FASTRNN_BAD_PACKING;
    if (offsets[n + 1] - offsets[n] > p.T) return FASTRNN_BAD_PACKING;
  }
  return FASTRNN_OK;
}

fastrnn_status check_batch_sizes(const fastrnn_problem& p, const int64_t* sizes) {
  int64_t before = p.N, total = 0;
  for (int64_t t = 0; t < p.T; ++t) {
    if (sizes[t] < 1 || sizes[t] > before) return FASTRNN_BAD_PACKING;
    before = sizes[t];
    total += sizes[t];  // at most T * N
  }
  return total == p.rows ? FASTRNN_OK : FASTRNN_BAD_PACKING;
}

fastrnn_status check_places(const fastrnn_problem& p, const int64_t* places, int64_t* seen) {
  std::fill(seen, seen + p.N, 0);
  for (int64_t n = 0; n < p.N; ++n) {
    if (places[n] < 0 || places[n] >= p.N || seen[places[n]]++ != 0) return FASTRNN_BAD_PACKING;
  }
  return FASTRNN_OK;
}

void sort_rows(int64_t N, const int64_t* lengths, int64_t* order) {
  for (int64_t n = 0; n < N; ++n) order[n] = n;
  // Rows of equal length in the caller's order: sums over rows then have one order, whatever the layout.
  std::sort(order, order + N, [lengths](int64_t a, int64_t b) {
    return lengths[a] != lengths[b] ? lengths[a] > lengths[b] : a < b;
  });
}

}  // namespace

fastrnn_status check_rows(const fastrnn_problem& p, const RowArgs& rows,
                          const SequenceMemory& memory) noexcept {
  if (p.rows == 0) {
    if (rows.offsets != nullptr || rows.batch_sizes != nullptr || rows.places != nullptr)
      return FASTRNN_BAD_PACKING;
    for (int64_t n = 0; rows.lengths != nullptr && n < p.N; ++n) {
      if (rows.lengths[n] < 0 || rows.lengths[n] > p.T) return FASTRNN_BAD_LENGTHS;
    }
    return FASTRNN_OK;
  }
  if (rows.lengths != nullptr || (rows.offsets == nullptr) == (rows.batch_sizes == nullptr))
    return FASTRNN_BAD_PACKING;
  if (rows.offsets != nullptr)
    return rows.places == nullptr ? check_offsets(p, rows.offsets) : FASTRNN_BAD_PACKING;
  const fastrnn_status status = check_batch_sizes(p, rows.batch_sizes);
  return status != FASTRNN_OK || rows.places == nullptr
             ? status
             : check_places(p, rows.places, memory.order);
}

Sequence begin_sequence(const fastrnn_problem& p, const RowArgs& rows,
                        const SequenceMemory& memory) noexcept {
  Sequence seq{};
  seq.T = p.T;
  seq.N = p.N;
  seq.lengths = rows.lengths;
  seq.flag_step = p.rows == 0 ? p.N : 1;
  seq.reset = rows.reset;
  seq.mask = rows.mask;
  if (rows.offsets != nullptr) {
    seq.row_of = rows.offsets;
    for (int64_t n = 0; n < p.N; ++n) memory.lengths[n] = rows.offsets[n + 1] - rows.offsets[n];
    seq.lengths = memory.lengths;
  } else if (rows.batch_sizes != nullptr) {
    seq.row_of = rows.places;
    seq.step_of = memory.step_of;
    for (int64_t t = 0, row = 0; t < p.T; row += rows.batch_sizes[t++]) memory.step_of[t] = row;
    int64_t* at_place = memory.order;  // the length of the row at each place
    for (int64_t place = 0, t = p.T; place < p.N; ++place) {
      while (t > 0 && rows.batch_sizes[t - 1] <= place) --t;
      at_place[place] = t;
    }
    for (int64_t n = 0; n < p.N; ++n) memory.lengths[n] = at_place[row_of(seq, n)];
    seq.lengths = memory.lengths;
  }
  if (seq.lengths == nullptr) return seq;
  sort_rows(p.N, seq.lengths, memory.order);
  seq.order = memory.order;
  return seq;
}

// A cut lies before the first place whose middle is in the next share.
Range slice_of(const Sequence& seq, int64_t slices, int64_t slice) noexcept {
  if (seq.lengths == nullptr || slices == 1) return share(seq.N, slices, slice);
  int64_t total = 0;
  for (int64_t n = 0; n < seq.N; ++n) total += seq.lengths[n];
  const auto cut = [&](int64_t i) {
    if (i == slices) return seq.N;  // rows without a step among them
    int64_t place = 0, before = 0;
    for (; place < seq.N; ++place) {
      const int64_t length = seq.lengths[seq.order[place]];
      if ((2 * before + length) * slices >= 2 * i * total) break;
      before += length;
    }
    return place;
  };
  return {slice == 0 ? 0 : cut(slice), cut(slice + 1)};
}

}  // namespace fastrnn
