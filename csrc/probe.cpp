#include "probe.hpp"

#include <atomic>

#include "cores.hpp"
#include "cpu.hpp"
#include "threads.hpp"

namespace fastrnn {
namespace {

fastrnn_status resolve(int32_t wanted, int& isa) noexcept {
  isa = wanted;
  if (wanted < 0) return isa_active(isa);
  if (isa_runnable(isa)) return FASTRNN_OK;
  return isa < isa_count() ? FASTRNN_ISA_NOT_RUNNABLE : FASTRNN_UNKNOWN_ISA;
}

// Every task waits for all others, else the caller would have done each of them before the first worker woke; but for a
// bounded while, about a millisecond, since there may be fewer workers than were asked for.
constexpr int patience = 1 << 20;

void meet(std::atomic<int64_t>& begun, int64_t wanted) noexcept {
  begun.fetch_add(1, std::memory_order_acq_rel);
  for (int n = 0; n < patience && begun.load(std::memory_order_acquire) < wanted;) ++n;
}

void pool_calls(int threads, int64_t repeats) noexcept {
  for (int64_t i = 0; i < repeats; ++i) {
    std::atomic<int64_t> begun{0};
    parallel(threads, threads, [&](int64_t) { meet(begun, threads); });
  }
}

void team_phases(int threads, int64_t repeats) noexcept {
  constexpr int64_t most = 1 << 20;  // in one team: phases are counted in 32 bits
  for (; repeats > 0; repeats -= most) {
    const int64_t count = repeats < most ? repeats : most;
    Phases phases(threads);
    std::atomic<int64_t> begun{0};
    team(threads, [&](int member) {
      Team mine{member, threads, &phases, 0, 0};
      for (int64_t i = 1; i <= count; ++i) {
        while (phases.claim(mine, threads) >= 0) meet(begun, i * threads);
      }
    });
  }
}

}  // namespace

fastrnn_status run_probe(const fastrnn_probe& probe, double& work) noexcept {
  if (probe.kind > FASTRNN_PROBE_PHASE || probe.dtype >= dtype_count || probe.repeats < 0 ||
      probe.bytes < 0)
    return FASTRNN_BAD_PROBLEM;
  int isa = 0;
  const fastrnn_status status = resolve(probe.isa, isa);
  if (status != FASTRNN_OK) return status;
  const ProbeKernels& kernels = isa_table(isa).probe;
  alignas(64) char sink[64];
  const double repeats = static_cast<double>(probe.repeats);
  switch (probe.kind) {
    case FASTRNN_PROBE_FMA:
      kernels.fma[probe.dtype](probe.repeats, sink);
      work = repeats * kernels.fma_operations[probe.dtype];
      break;
    case FASTRNN_PROBE_READ:
      if (probe.buffer == nullptr) return FASTRNN_NULL_POINTER;
      kernels.read(probe.buffer, probe.bytes, probe.repeats, sink);
      work = repeats * static_cast<double>(probe.bytes / kernels.read_block * kernels.read_block);
      break;
    default: {
      const uint32_t most = most_threads, wanted = probe.threads > 1 ? probe.threads : 1;
      const int threads = static_cast<int>(wanted < most ? wanted : most);
      (probe.kind == FASTRNN_PROBE_CALL ? pool_calls : team_phases)(threads, probe.repeats);
      work = repeats;
    }
  }
  return FASTRNN_OK;
}

}  // namespace fastrnn
