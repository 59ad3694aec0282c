// Calls of the forward kernel, one for each {direction, batch slice} of a layer, and how threads share them: for the forward
// driver, and for backward where it computes gates again.
#pragma once

#include "places.hpp"
#include "memory.hpp"
#include "rows.hpp"
#include "sequence.hpp"
#include "threads.hpp"

namespace fastrnn {

// The part that does not depend on where states lie, what is written and what is kept.
inline void begin_call(const Plan& plan, const Sequence& seq, const LoopMemory& memory,
                       const void* packed, int64_t layer, int64_t d, int64_t slice,
                       ForwardCall& call) {
  const Range rows = slice_of(seq, plan.slices, slice);
  const int64_t count = rows.end - rows.begin;
  RowSource& source = call.source;
  ForwardArgs& f = call.args;
  source = {};
  f = {};
  f.layout = plan.layout(layer, 0);
  f.activation = static_cast<Activation>(plan.p.activation);
  source.seq = direction_of(seq, d);
  source.n_begin = rows.begin;
  source.n_end = rows.end;
  source.c_row = f.layout.hidden_padded * plan.item;
  source.c_steps = plan.segment;
  f.rows = &source;
  f.end = plan.p.T;
  // Slices of equal work may have more rows than others; their chunks are shorter then.
  f.chunk = plan.chunk_steps(layer);
  if (f.chunk * count > plan.chunk_rows(layer)) f.chunk = plan.chunk_rows(layer) / count;
  f.tables = row_tables_in(bytes(memory.tables[d]) + slice * memory.table_bytes, f.chunk * count,
                           f.chunk, true, plan.regular());
  if (packed != nullptr) f.packed = packed_at(plan, packed, layer, d);
  if (plan.projects(layer))
    f.projection = bytes(memory.projection[d]) + slice * memory.projection_bytes;
  f.scratch = bytes(memory.scratch[d]) + slice * memory.scratch_bytes;
  f.far = f.projection == nullptr && plan.rows() * f.layout.I * plan.item > l2_bytes;
  f.team = {0, 1, nullptr, 0, 0};
}

// Recurrent dropout and zoneout of a call that begin_call has seen.
inline void begin_regular(const LoopMemory& memory, const Regular& from, int64_t d, int64_t slice,
                          ForwardCall& call) {
  call.regular = from;
  call.regular.masked_by_row = false;
  call.regular.masked = bytes(memory.masked[d]) + slice * memory.state_bytes;
  if (from.zone_c.base != nullptr)
    call.regular.c_new = bytes(memory.c_new[d]) + slice * memory.state_bytes;
  call.source.regular = &call.regular;
}

// prepare(d, slice, call) fills a call, finish(d, call) follows it, both on the thread that runs it.
template <class Kernel, class Prepare, class Finish>
void run_calls(const Plan& plan, Kernel kernel, Prepare prepare, Finish finish) {
  if (plan.hidden_split) {
    for (int64_t d = 0; d < plan.p.D; ++d) {
      ForwardCall call;
      prepare(d, int64_t{0}, call);
      Phases phases(plan.threads);
      team(plan.threads, [&](int member) {
        ForwardArgs mine = call.args;
        mine.team = {member, plan.threads, &phases, 0, 0};
        kernel(mine);
      });
      finish(d, call);
    }
    return;
  }
  parallel(plan.threads, plan.p.D * plan.slices, [&](int64_t i) {
    ForwardCall call;
    const int64_t d = i / plan.slices;
    prepare(d, i % plan.slices, call);
    kernel(call.args);
    finish(d, call);
  });
}

}  // namespace fastrnn
