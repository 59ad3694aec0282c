/* The C interface refuses what it cannot do with a status, before it touches memory. Run by CTest. */
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "fastrnn/fastrnn.h"

static int failures = 0;

static void expect(const char* what, int got, int wanted) {
  if (got == wanted) return;
  printf("%s: got status %d (%s), expected %d\n", what, got,
         fastrnn_status_text((fastrnn_status)got), wanted);
  ++failures;
}

static fastrnn_problem small_lstm(void) {
  fastrnn_problem p;
  memset(&p, 0, sizeof p);
  p.struct_size = sizeof p;
  p.cell = FASTRNN_LSTM;
  p.T = 3;
  p.N = 2;
  p.I = 4;
  p.H = 5;
  p.L = 2;
  p.D = 1;
  p.bias = 1;
  p.isa = -1;
  return p;
}

static fastrnn_status plan(fastrnn_problem p, fastrnn_sizes* sizes) {
  memset(sizes, 0, sizeof *sizes);
  sizes->struct_size = sizeof *sizes;
  return fastrnn_plan(&p, sizes);
}

static void check_plan(void) {
  fastrnn_sizes sizes;
  fastrnn_problem p = small_lstm();
  expect("a sound problem", plan(p, &sizes), FASTRNN_OK);
  if (sizes.weights != 4 * 5 * (4 + 5 + 2) + 4 * 5 * (5 + 5 + 2)) {
    printf("weights: got %lld\n", (long long)sizes.weights);
    ++failures;
  }
  expect("no problem", fastrnn_plan(NULL, &sizes), FASTRNN_NULL_POINTER);
  p.struct_size = 1;
  expect("another version's struct", plan(p, &sizes), FASTRNN_BAD_STRUCT_SIZE);
  p = small_lstm();
  p.H = 0;
  expect("no hidden units", plan(p, &sizes), FASTRNN_BAD_PROBLEM);
  p = small_lstm();
  p.activation = FASTRNN_RELU;
  expect("an LSTM with relu", plan(p, &sizes), FASTRNN_UNSUPPORTED);
  p = small_lstm();
  p.save = FASTRNN_SAVE_RECOMPUTE + 1;
  expect("something else to save", plan(p, &sizes), FASTRNN_BAD_PROBLEM);
  p = small_lstm();
  p.isa = 1000;
  expect("an instruction set that is not there", plan(p, &sizes), FASTRNN_UNKNOWN_ISA);
  expect("a name that is not there", fastrnn_set_isa("none"), FASTRNN_UNKNOWN_ISA);
}

static void check_recompute(void) {
  fastrnn_sizes all, sizes;
  fastrnn_problem p = small_lstm();
  p.T = 1000;
  p.L = 1;
  expect("a tape of everything", plan(p, &all), FASTRNN_OK);
  p.save = FASTRNN_SAVE_RECOMPUTE;
  p.segment = 100;
  expect("a tape of checkpoints", plan(p, &sizes), FASTRNN_OK);
  if (sizes.tape * 100 != all.tape / 5) {
    printf("tapes: got %lld and %lld\n", (long long)sizes.tape, (long long)all.tape);
    ++failures;
  }
  p.segment = UINT32_MAX;
  expect("one segment", plan(p, &sizes), FASTRNN_OK);
  char memory[128];
  void* aligned = memory + (64 - (uintptr_t)memory % 64);
  fastrnn_backward_args b;
  memset(&b, 0, sizeof b);
  b.struct_size = sizeof b;
  b.packed_backward = b.workspace = b.tape = aligned;
  b.x = b.y = memory;
  expect("recompute without the weights", fastrnn_backward(&p, &b), FASTRNN_NULL_POINTER);
}

static void check_large_sizes(void) {
  fastrnn_sizes sizes;
  const int64_t large[] = {INT64_MAX, INT64_MAX / 2, (int64_t)1 << 56, (int64_t)1 << 48};
  for (int i = 0; i < 4; ++i) {
    fastrnn_problem p = small_lstm();
    p.T = large[i];
    p.N = large[i];
    expect("T and N too large", plan(p, &sizes), FASTRNN_TOO_LARGE);
    p = small_lstm();
    p.H = large[i];
    expect("H too large", plan(p, &sizes), FASTRNN_TOO_LARGE);
    p = small_lstm();
    p.I = large[i];
    p.L = large[i];
    expect("I and L too large", plan(p, &sizes), FASTRNN_TOO_LARGE);
  }
  fastrnn_problem p = small_lstm();
  p.L = (int64_t)1 << 31; /* sizes in closed form: this returns at once */
  p.I = p.H = 1;
  expect("very many layers", plan(p, &sizes), FASTRNN_OK);
  p = small_lstm();
  p.threads = UINT32_MAX;
  expect("very many threads", plan(p, &sizes), FASTRNN_OK);
  if (sizes.threads > 256) {
    printf("threads: got %u\n", sizes.threads);
    ++failures;
  }
}

static void check_runs(void) {
  fastrnn_problem p = small_lstm();
  fastrnn_forward_args f;
  fastrnn_backward_args b;
  char memory[128];
  memset(&f, 0, sizeof f);
  memset(&b, 0, sizeof b);
  expect("forward, no struct size", fastrnn_forward(&p, &f), FASTRNN_BAD_STRUCT_SIZE);
  f.struct_size = sizeof f;
  b.struct_size = sizeof b;
  expect("forward, no pointers", fastrnn_forward(&p, &f), FASTRNN_NULL_POINTER);
  expect("backward, no pointers", fastrnn_backward(&p, &b), FASTRNN_NULL_POINTER);
  char* odd = memory + (65 - (uintptr_t)memory % 64);
  expect("pack, misaligned", fastrnn_pack(&p, memory, odd, NULL), FASTRNN_MISALIGNED);
  f.packed = f.workspace = odd;
  f.x = f.y = memory;
  expect("forward, misaligned", fastrnn_forward(&p, &f), FASTRNN_MISALIGNED);
  const int64_t lengths[2] = {1, 4};
  f.packed = f.workspace = odd - 1;
  f.lengths = lengths;
  expect("forward, a length above T", fastrnn_forward(&p, &f), FASTRNN_BAD_LENGTHS);
}

static void check_probe(void) {
  fastrnn_probe probe;
  double work = -1;
  char memory[1024] = {0};
  memset(&probe, 0, sizeof probe);
  expect("probe, no struct size", fastrnn_run_probe(&probe, &work), FASTRNN_BAD_STRUCT_SIZE);
  expect("no probe", fastrnn_run_probe(NULL, &work), FASTRNN_NULL_POINTER);
  probe.struct_size = sizeof probe;
  probe.isa = -1;
  probe.kind = 1000;
  expect("a kind that is not there", fastrnn_run_probe(&probe, &work), FASTRNN_BAD_PROBLEM);
  probe.kind = FASTRNN_PROBE_READ;
  expect("a read of nothing", fastrnn_run_probe(&probe, &work), FASTRNN_NULL_POINTER);
  probe.buffer = memory;
  probe.bytes = sizeof memory;
  probe.repeats = 3;
  expect("a read", fastrnn_run_probe(&probe, &work), FASTRNN_OK);
  if (work != 3.0 * sizeof memory) {
    printf("bytes read: got %f\n", work);
    ++failures;
  }
  probe.kind = FASTRNN_PROBE_CALL;
  probe.threads = 2;
  expect("calls of the pool", fastrnn_run_probe(&probe, &work), FASTRNN_OK);
  probe.kind = FASTRNN_PROBE_PHASE;
  expect("phases of a team", fastrnn_run_probe(&probe, &work), FASTRNN_OK);
}

int main(void) {
  check_plan();
  check_recompute();
  check_large_sizes();
  check_runs();
  check_probe();
  if (failures == 0) puts("ok");
  return failures != 0;
}
