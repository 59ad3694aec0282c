#include "segments.hpp"

#include <cstring>

#include "forward_calls.hpp"
#include "places.hpp"
#include "rows.hpp"

namespace fastrnn {
namespace {

Range steps_of(const Plan& plan, int64_t k) {
  const int64_t begin = k * plan.segment, end = begin + plan.segment;
  return {begin, end < plan.p.T ? end : plan.p.T};
}

void copy_pointers(const void** to, const void* const* from, int64_t count) {
  if (from != nullptr && count > 0) std::memcpy(to, from, size_of(count) * sizeof *from);
}

}  // namespace

void find_states(const Plan& plan, const BackwardMemory& memory, int64_t d,
                 BackwardCall& call) noexcept {
  const DirectionForward& state = memory.direction[d];
  RowSource& source = call.source;
  source.h_of = state.h_of;
  source.c_of = state.c_of;
  source.c_by_row = false;  // as the forward pass left c
  source.c_steps = plan.segment;
  for (int64_t k = 0; k + 1 < plan.segments; ++k) {
    copy_pointers(source.h_of + plan.p.N, source.h_of, plan.p.N);
    source.h_of += plan.p.N;
    if (plan.has_c) {
      copy_pointers(source.c_of + plan.p.N, source.c_of, plan.p.N);
      source.c_of += plan.p.N;
    }
    const Range steps = steps_of(plan, k);
    build_rows(source, steps.begin, steps.end, call.args.tables);
  }
}

void enter_segment(const Plan& plan, const BackwardMemory& memory, int64_t d, int64_t k,
                   BackwardCall& call) noexcept {
  const DirectionForward& state = memory.direction[d];
  RowSource& source = call.source;
  BackwardArgs& b = call.args;
  source.h_of = state.h_of + k * plan.p.N;
  if (plan.has_c) source.c_of = state.c_of + k * plan.p.N;
  if (plan.recompute) {
    copy_pointers(memory.again.h_of[d], source.h_of, plan.p.N);
    copy_pointers(memory.again.c_of[d], source.c_of, plan.p.N);
    source.c = bytes(memory.again.c[d]);
  }
  source.c_by_row = true;
  source.tape_rows = 0;
  const Range steps = steps_of(plan, k);
  build_rows(source, steps.begin, steps.end, b.tables);
  b.begin = steps.begin;
  b.steps = steps.end - steps.begin;
  b.layout.rows = b.tables.first[b.steps];
}

void recompute_segment(const Plan& plan, const void* packed, const BackwardMemory& memory,
                       int64_t layer, int64_t k, const BackwardCall* calls) noexcept {
  const RecomputeMemory& again = memory.again;
  const Range steps = steps_of(plan, k);
  const auto prepare = [&](int64_t d, int64_t slice, ForwardCall& call) {
    const RowSource& from = calls[d].source;
    begin_call(plan, from.seq, again.loop, packed, layer, d, slice, call);
    RowSource& source = call.source;
    source.x = from.x;
    source.y = from.y;
    source.zero = from.zero;
    source.h_of = again.h_of[d];
    source.c_of = again.c_of[d];
    source.c = bytes(again.c[d]);
    source.c_by_row = true;
    source.spare = bytes(again.spare[d]);
    source.spare_row = source.c_row;
    if (plan.regular()) begin_regular(again.loop, calls[d].regular, d, slice, call);
    call.args.layout.rows = calls[d].args.layout.rows;
    call.args.gates = again.gates[d];
    call.args.begin = steps.begin;
    call.args.end = steps.end;
  };
  run_calls(plan, plan.kernels->forward_tape, prepare, [](int64_t, const ForwardCall&) {});
}

}  // namespace fastrnn
