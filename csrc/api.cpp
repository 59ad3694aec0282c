// extern "C": read the structs, make the plan, check the arguments, run the driver, return a status.
#include <cstddef>

#include "check.hpp"
#include "cpu.hpp"
#include "driver.hpp"
#include "fastrnn/fastrnn.h"
#include "memory.hpp"
#include "plan.hpp"
#include "probe.hpp"
#include "step.hpp"
#include "threads.hpp"

namespace {

using fastrnn::Plan;

// What each struct began as, in ABI version 1: these numbers stay.
#define FR_FIRST(S, last) (offsetof(S, last) + sizeof(S::last))
constexpr uint32_t first_problem = FR_FIRST(fastrnn_problem, segment);
constexpr uint32_t first_sizes = FR_FIRST(fastrnn_sizes, work);
constexpr uint32_t first_forward = FR_FIRST(fastrnn_forward_args, workspace);
constexpr uint32_t first_backward = FR_FIRST(fastrnn_backward_args, workspace);
constexpr uint32_t first_step = FR_FIRST(fastrnn_step_args, workspace);
constexpr uint32_t first_probe = FR_FIRST(fastrnn_probe, bytes);

// Calls body with the struct as it is now. A pointer that is no struct's, or null, is refused.
template <class S, class Body>
fastrnn_status with(const S* given, uint32_t first, Body body) {
  if (given == nullptr) return FASTRNN_NULL_POINTER;
  if (reinterpret_cast<uintptr_t>(given) % alignof(S) != 0) return FASTRNN_MISALIGNED;
  S room;
  const S* read = fastrnn::read_struct(given, first, room);
  return read == nullptr ? FASTRNN_BAD_STRUCT_SIZE : body(*read);
}

template <class Body>
fastrnn_status with_plan(const fastrnn_problem* problem, Body body) {
  return with(problem, first_problem, [&](const fastrnn_problem& p) {
    Plan plan;
    const fastrnn_status status = fastrnn::make_plan(p, plan);
    return status == FASTRNN_OK ? body(plan) : status;
  });
}

// A call that regularises must have been planned for it.
template <class Args>
bool regularisers_fit(const fastrnn_problem& p, const Args& a) {
  const bool masked = (p.regularisers & FASTRNN_RECURRENT_DROPOUT) != 0;
  const bool zoned = (p.regularisers & FASTRNN_ZONEOUT) != 0;
  return (masked || a.recurrent_dropout == nullptr) &&
         (zoned || (a.zoneout_h == nullptr && a.zoneout_c == nullptr));
}

}  // namespace

extern "C" {

fastrnn_status fastrnn_plan(const fastrnn_problem* problem, fastrnn_sizes* sizes) {
  return with_plan(problem, [&](const Plan& plan) {
    return with(sizes, first_sizes, [&](const fastrnn_sizes& given) {
      fastrnn_sizes filled = given;
      const fastrnn_status status = fastrnn::plan_sizes(plan, filled);
      if (status != FASTRNN_OK) return status;
      filled.struct_size = sizes->struct_size;
      std::memcpy(sizes, &filled,
                  sizes->struct_size < sizeof filled ? sizes->struct_size : sizeof filled);
      return FASTRNN_OK;
    });
  });
}

fastrnn_status fastrnn_pack(const fastrnn_problem* problem, const void* weights, void* packed,
                            void* packed_backward) {
  if (problem == nullptr || weights == nullptr) return FASTRNN_NULL_POINTER;
  return with_plan(problem, [&](const Plan& plan) {
    const fastrnn_status status = fastrnn::check_pack(plan, weights, packed, packed_backward);
    if (status == FASTRNN_OK) fastrnn::run_pack(plan, weights, packed, packed_backward);
    return status;
  });
}

fastrnn_status fastrnn_forward(const fastrnn_problem* problem, const fastrnn_forward_args* args) {
  return with(args, first_forward, [&](const fastrnn_forward_args& a) {
    return with_plan(problem, [&](const Plan& plan) {
      if (!regularisers_fit(plan.p, a)) return FASTRNN_BAD_PROBLEM;
      fastrnn::Arena workspace(
          a.workspace);  // where things will lie in it, once it has been checked
      const fastrnn::ForwardMemory memory = fastrnn::forward_memory(plan, workspace);
      const fastrnn_status status = fastrnn::check_forward(plan, a, workspace);
      return status == FASTRNN_OK ? fastrnn::run_forward(plan, a, memory) : status;
    });
  });
}

fastrnn_status fastrnn_backward(const fastrnn_problem* problem, const fastrnn_backward_args* args) {
  return with(args, first_backward, [&](const fastrnn_backward_args& a) {
    return with_plan(problem, [&](const Plan& plan) {
      if (!regularisers_fit(plan.p, a)) return FASTRNN_BAD_PROBLEM;
      fastrnn::Arena workspace(
          a.workspace);  // where things will lie in it, once it has been checked
      const fastrnn::BackwardMemory memory = fastrnn::backward_memory(plan, workspace);
      const fastrnn_status status = fastrnn::check_backward(plan, a, workspace);
      return status == FASTRNN_OK ? fastrnn::run_backward(plan, a, memory) : status;
    });
  });
}

fastrnn_status fastrnn_make_stepper(const fastrnn_problem* problem, fastrnn_stepper* stepper) {
  if (stepper == nullptr) return FASTRNN_NULL_POINTER;
  if (reinterpret_cast<uintptr_t>(stepper) % alignof(fastrnn_stepper) != 0)
    return FASTRNN_MISALIGNED;
  return with_plan(problem, [&](const Plan& plan) {
    fastrnn::StepPlan step{};
    const fastrnn_status status = fastrnn::make_step(plan, step);
    if (status == FASTRNN_OK) std::memcpy(stepper, &step, sizeof step);
    return status;
  });
}

fastrnn_status fastrnn_step(const fastrnn_stepper* stepper, const fastrnn_step_args* args) {
  if (stepper == nullptr) return FASTRNN_NULL_POINTER;
  if (reinterpret_cast<uintptr_t>(stepper) % alignof(fastrnn_stepper) != 0)
    return FASTRNN_MISALIGNED;
  return with(args, first_step, [&](const fastrnn_step_args& a) {
    const auto& step = *reinterpret_cast<const fastrnn::StepPlan*>(stepper);
    if (!fastrnn::is_made(step)) return FASTRNN_BAD_STEPPER;
    if (!fastrnn::is_clean(step, a)) {
      const fastrnn_status status = fastrnn::check_step(step, a);
      if (status != FASTRNN_OK || step.p.N == 0) return status;
    }
    if (step.kernel == nullptr) {
      const fastrnn_forward_args f = fastrnn::as_forward(a);
      return fastrnn_forward(&step.p, &f);
    }
    fastrnn::run_step(step, a);
    return FASTRNN_OK;
  });
}

int32_t fastrnn_isa_count(void) { return fastrnn::isa_count(); }
const char* fastrnn_isa_name(int32_t index) { return fastrnn::isa_name(index); }
int32_t fastrnn_isa_runnable(int32_t index) { return fastrnn::isa_runnable(index) ? 1 : 0; }
fastrnn_status fastrnn_isa_active(int32_t* index) {
  return index == nullptr ? FASTRNN_NULL_POINTER : fastrnn::isa_active(*index);
}
fastrnn_status fastrnn_set_isa(const char* name) { return fastrnn::isa_set(name); }

int32_t fastrnn_get_num_threads(void) { return fastrnn::get_num_threads(); }
void fastrnn_set_num_threads(int32_t threads) { fastrnn::set_num_threads(threads); }

fastrnn_status fastrnn_run_probe(const fastrnn_probe* probe, double* work) {
  if (work == nullptr) return FASTRNN_NULL_POINTER;
  return with(probe, first_probe,
              [&](const fastrnn_probe& p) { return fastrnn::run_probe(p, *work); });
}

const char* fastrnn_version(void) { return FASTRNN_VERSION; }
const char* fastrnn_compiler(void) { return FASTRNN_COMPILER; }

const char* fastrnn_status_text(fastrnn_status status) {
  switch (status) {
    case FASTRNN_OK:
      return "ok";
    case FASTRNN_NULL_POINTER:
      return "a pointer that must be given is null";
    case FASTRNN_BAD_STRUCT_SIZE:
      return "struct_size is none that a version of this struct has, or what lies behind is not "
             "zero";
    case FASTRNN_BAD_PROBLEM:
      return "a field of the problem is out of its range";
    case FASTRNN_TOO_LARGE:
      return "the sizes are too large";
    case FASTRNN_UNSUPPORTED:
      return "no kernel for this combination of cell, activation and dtype";
    case FASTRNN_UNKNOWN_ISA:
      return "no instruction set of that name was built";
    case FASTRNN_ISA_NOT_RUNNABLE:
      return "this CPU or operating system cannot run that instruction set";
    case FASTRNN_MISALIGNED:
      return "packed weights, tape and workspace must lie on 64-byte boundaries, other arrays on "
             "one of their elements";
    case FASTRNN_BAD_LENGTHS:
      return "a length is negative or above the number of steps";
    case FASTRNN_BAD_PACKING:
      return "offsets, batch_sizes or places are not those of the problem's packed rows";
    case FASTRNN_BAD_STEPPER:
      return "the stepper was not made by fastrnn_make_stepper in this process";
    case FASTRNN_OVERLAP:
      return "an output overlaps another array, or its rows overlap each other";
  }
  return "unknown status";
}

}  // extern "C"
