// What a caller in C can get wrong: every question is asked once a call, before anything is read or written, and on ranges of
// addresses only. Of a call of one step of one row this takes 21 of 384 ns (fastrnn_forward, LSTM 1->16, Zen 4), of a stepper's
// 3 of 66 (is_clean in step.hpp).
#pragma once

#include <cstring>

#include "fastrnn/fastrnn.h"
#include "memory.hpp"

namespace fastrnn {

// Structs only grow at their end: an older caller's is shorter, and what it does not have counts as zero; a newer caller's is
// longer, and may say nothing in what is not known here. first: sizeof in ABI version 1, below which nobody can be.
// Returns `given` itself or a copy in `room`; null: neither of these.
template <class S>
const S* read_struct(const S* given, uint32_t first, S& room) noexcept {
  constexpr uint32_t ours = sizeof(S), most = 4096;
  const uint32_t size = given->struct_size;
  if (size == ours) return given;
  if (size < first || size > most) return nullptr;
  const char* all = reinterpret_cast<const char*>(given);
  for (uint32_t i = ours; i < size; ++i) {
    if (all[i] != 0) return nullptr;
  }
  room = S{};
  std::memcpy(static_cast<void*>(&room), all, size < ours ? size : ours);
  room.struct_size = ours;
  return &room;
}

fastrnn_status check_pack(const Plan& plan, const void* weights, const void* packed,
                          const void* packed_backward) noexcept;
fastrnn_status check_forward(const Plan& plan, const fastrnn_forward_args& args,
                             const Arena& workspace) noexcept;
fastrnn_status check_backward(const Plan& plan, const fastrnn_backward_args& args,
                              const Arena& workspace) noexcept;
struct StepPlan;
fastrnn_status check_step(const StepPlan& step, const fastrnn_step_args& args) noexcept;

}  // namespace fastrnn
