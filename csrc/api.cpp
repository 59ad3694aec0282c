// extern "C": check the problem, make the plan, run the driver, return a status.
#include "cpu.hpp"
#include "driver.hpp"
#include "fastrnn/fastrnn.h"
#include "memory.hpp"
#include "plan.hpp"
#include "probe.hpp"
#include "threads.hpp"

namespace {

using fastrnn::Plan;

bool aligned(const void* p) { return (reinterpret_cast<uintptr_t>(p) & 63) == 0; }

}  // namespace

extern "C" {

fastrnn_status fastrnn_plan(const fastrnn_problem* problem, fastrnn_sizes* sizes) {
  if (problem == nullptr || sizes == nullptr) return FASTRNN_NULL_POINTER;
  Plan plan;
  const fastrnn_status status = fastrnn::make_plan(*problem, plan);
  return status == FASTRNN_OK ? fastrnn::plan_sizes(plan, *sizes) : status;
}

fastrnn_status fastrnn_pack(const fastrnn_problem* problem, const void* weights, void* packed,
                            void* packed_backward) {
  if (problem == nullptr || weights == nullptr) return FASTRNN_NULL_POINTER;
  if (!aligned(packed) || !aligned(packed_backward)) return FASTRNN_MISALIGNED;
  Plan plan;
  const fastrnn_status status = fastrnn::make_plan(*problem, plan);
  if (status == FASTRNN_OK) fastrnn::run_pack(plan, weights, packed, packed_backward);
  return status;
}

fastrnn_status fastrnn_forward(const fastrnn_problem* problem, const fastrnn_forward_args* args) {
  if (problem == nullptr || args == nullptr) return FASTRNN_NULL_POINTER;
  if (args->struct_size != sizeof(fastrnn_forward_args)) return FASTRNN_BAD_STRUCT_SIZE;
  Plan plan;
  fastrnn_status status = fastrnn::make_plan(*problem, plan);
  if (status != FASTRNN_OK) return status;
  const bool empty = problem->T == 0 || problem->N == 0;
  if (args->packed == nullptr || args->workspace == nullptr) return FASTRNN_NULL_POINTER;
  if (!empty && (args->x == nullptr || args->y == nullptr)) return FASTRNN_NULL_POINTER;
  if (!aligned(args->packed) || !aligned(args->workspace) || !aligned(args->tape))
    return FASTRNN_MISALIGNED;
  return fastrnn::run_forward(plan, *args);
}

fastrnn_status fastrnn_backward(const fastrnn_problem* problem, const fastrnn_backward_args* args) {
  if (problem == nullptr || args == nullptr) return FASTRNN_NULL_POINTER;
  if (args->struct_size != sizeof(fastrnn_backward_args)) return FASTRNN_BAD_STRUCT_SIZE;
  Plan plan;
  fastrnn_status status = fastrnn::make_plan(*problem, plan);
  if (status != FASTRNN_OK) return status;
  const bool empty = problem->T == 0 || problem->N == 0;
  if (args->packed_backward == nullptr || args->workspace == nullptr) return FASTRNN_NULL_POINTER;
  if (!empty && (args->x == nullptr || args->y == nullptr)) return FASTRNN_NULL_POINTER;
  if (!empty && args->tape == nullptr && plan.has_tape()) return FASTRNN_NULL_POINTER;
  if (plan.recompute && args->packed == nullptr) return FASTRNN_NULL_POINTER;
  if (!aligned(args->packed_backward) || !aligned(args->packed) || !aligned(args->workspace) ||
      !aligned(args->tape))
    return FASTRNN_MISALIGNED;
  return fastrnn::run_backward(plan, *args);
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
  if (probe == nullptr || work == nullptr) return FASTRNN_NULL_POINTER;
  if (probe->struct_size != sizeof(fastrnn_probe)) return FASTRNN_BAD_STRUCT_SIZE;
  return fastrnn::run_probe(*probe, *work);
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
      return "struct_size is not that of this version";
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
      return "packed weights, tape and workspace must lie on 64-byte boundaries";
    case FASTRNN_BAD_LENGTHS:
      return "a length is negative or above the number of steps";
    case FASTRNN_BAD_PACKING:
      return "offsets, batch_sizes or places are not those of the problem's packed rows";
  }
  return "unknown status";
}

}  // extern "C"
