/* What a real-time thread asks of a step: no allocation, and no system call to wait in.
 *
 * Allocations are counted by standing in for the C library's functions; operator new ends in malloc. System calls are ruled out
 * by the kernel: a child takes its steps in strict seccomp mode, where any but read, write and exit kills it. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fastrnn/fastrnn.h"

enum { SKIPPED = 77 };

#if !defined(__linux__) || !defined(__GLIBC__)

int main(void) {
  puts("allocations are counted on Linux with glibc only");
  return SKIPPED;
}

#else

#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

extern void* __libc_malloc(size_t bytes);
extern void* __libc_calloc(size_t count, size_t bytes);
extern void* __libc_realloc(void* old, size_t bytes);
extern void* __libc_memalign(size_t alignment, size_t bytes);
extern void __libc_free(void* memory);

static volatile long calls; /* of all threads of a pool: a race could only hide some of many */

void* malloc(size_t bytes) { return ++calls, __libc_malloc(bytes); }
void* calloc(size_t count, size_t bytes) { return ++calls, __libc_calloc(count, bytes); }
void* realloc(void* old, size_t bytes) { return ++calls, __libc_realloc(old, bytes); }
void* memalign(size_t alignment, size_t bytes) {
  return ++calls, __libc_memalign(alignment, bytes);
}
void* aligned_alloc(size_t alignment, size_t bytes) { return memalign(alignment, bytes); }
int posix_memalign(void** out, size_t alignment, size_t bytes) {
  *out = memalign(alignment, bytes);
  return *out == NULL ? ENOMEM : 0;
}
void free(void* memory) {
  if (memory != NULL) ++calls;
  __libc_free(memory);
}

static int failures = 0;

static void expect(const char* what, long got, long want) {
  if (got == want) return;
  printf("%s: got %ld, expected %ld\n", what, got, want);
  ++failures;
}

/* One stack with everything it needs, for T of 1. */
typedef struct Stack {
  fastrnn_problem problem;
  fastrnn_sizes sizes;
  fastrnn_forward_args forward;
  fastrnn_backward_args backward;
} Stack;

static void* memory_of(int64_t bytes) {
  const size_t whole = ((size_t)bytes + 63) / 64 * 64 + 64;
  void* memory = aligned_alloc(64, whole);
  if (memory == NULL) abort();
  memset(memory, 0, whole);
  return memory;
}

static Stack make(uint32_t cell, uint32_t dtype, int64_t N, int64_t H, int64_t L, uint32_t D,
                  int32_t isa, uint32_t threads, uint32_t split) {
  Stack s;
  memset(&s, 0, sizeof s);
  fastrnn_problem* p = &s.problem;
  p->struct_size = sizeof *p;
  p->cell = cell;
  p->dtype = dtype;
  p->T = 1;
  p->N = N;
  p->I = 3;
  p->H = H;
  p->L = L;
  p->D = D;
  p->bias = 1;
  p->isa = isa;
  p->threads = threads;
  p->split = split;
  s.sizes.struct_size = sizeof s.sizes;
  if (fastrnn_plan(p, &s.sizes) != FASTRNN_OK) abort();
  const int64_t item = dtype == FASTRNN_F32 ? 4 : 8, states = L * D * N * H * item;
  void* weights = memory_of(s.sizes.weights * item);
  void* packed = memory_of(s.sizes.packed);
  void* back = memory_of(s.sizes.packed_backward);
  if (fastrnn_pack(p, weights, packed, back) != FASTRNN_OK) abort();
  free(weights);
  fastrnn_forward_args* f = &s.forward;
  f->struct_size = sizeof *f;
  f->packed = packed;
  f->x = memory_of(N * p->I * item);
  f->x_t = N * p->I;
  f->x_n = p->I;
  f->y = memory_of(N * D * H * item);
  f->y_t = N * D * H;
  f->y_n = D * H;
  f->h0 = f->hn = memory_of(states);
  if (cell == FASTRNN_LSTM) f->c0 = f->cn = memory_of(states);
  f->workspace = memory_of(s.sizes.forward_workspace);
  fastrnn_backward_args* b = &s.backward;
  b->struct_size = sizeof *b;
  b->packed_backward = back;
  b->packed = packed;
  b->x = f->x;
  b->x_t = f->x_t;
  b->x_n = f->x_n;
  b->y = f->y;
  b->y_t = f->y_t;
  b->y_n = f->y_n;
  b->dweights = memory_of(s.sizes.weights * item);
  b->tape = memory_of(s.sizes.tape);
  b->workspace = memory_of(s.sizes.backward_workspace);
  return s;
}

static void drop(Stack* s) {
  const void* parts[] = {s->forward.packed,
                         s->forward.x,
                         s->forward.y,
                         s->forward.hn,
                         s->forward.cn,
                         s->forward.workspace,
                         s->backward.packed_backward,
                         s->backward.dweights,
                         s->backward.tape,
                         s->backward.workspace};
  for (size_t i = 0; i < sizeof parts / sizeof *parts; ++i) free((void*)parts[i]);
}

static void steps_allocate_nothing(Stack* s, const char* what) {
  if (fastrnn_forward(&s->problem, &s->forward) != FASTRNN_OK)
    abort(); /* warm: the pool, if any, is there */
  const long before = calls;
  long bad = 0;
  for (int i = 0; i < 20; ++i) bad += fastrnn_forward(&s->problem, &s->forward) != FASTRNN_OK;
  expect(what, calls - before, 0);
  expect("status of a step", bad, 0);
}

static void training_allocates_nothing(Stack* s, const char* what) {
  fastrnn_forward_args f = s->forward;
  f.tape = s->backward.tape;
  const long before = calls;
  long bad = fastrnn_forward(&s->problem, &f) != FASTRNN_OK;
  bad += fastrnn_backward(&s->problem, &s->backward) != FASTRNN_OK;
  expect(what, calls - before, 0);
  expect("status of forward and backward", bad, 0);
}

/* 1: steps in strict mode came through; 0: the kernel killed them; -1: there is no such mode here. */
static int steps_call_nobody(const Stack* s) {
  fflush(stdout);
  const pid_t child = fork();
  if (child < 0) return -1;
  if (child == 0) {
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT) != 0) _exit(SKIPPED);
    long bad = 0;
    for (int i = 0; i < 20; ++i) bad += fastrnn_forward(&s->problem, &s->forward) != FASTRNN_OK;
    syscall(SYS_exit, bad != 0); /* exit_group, which _exit is, would be killed */
  }
  int status = 0;
  if (waitpid(child, &status, 0) != child) return -1;
  if (WIFEXITED(status) && WEXITSTATUS(status) == SKIPPED) return -1;
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

int main(void) {
  static const uint32_t cells[] = {FASTRNN_RNN, FASTRNN_LSTM, FASTRNN_GRU,
                                   FASTRNN_GRU_RESET_BEFORE};
  int strict = 1;
  long counted = calls;
  free(malloc(1));
  expect("a malloc and a free that are seen", calls - counted, 2);
  for (int32_t isa = 0; isa < fastrnn_isa_count(); ++isa) {
    if (!fastrnn_isa_runnable(isa)) continue;
    for (uint32_t kind = 0; kind < 16; ++kind) {
      const uint32_t cell = cells[kind % 4], dtype = kind / 4 % 2 ? FASTRNN_F64 : FASTRNN_F32;
      const int64_t N = kind / 8 ? 5 : 1, H = kind / 8 ? 33 : 16;
      Stack one = make(cell, dtype, N, H, 2, 1, isa, 1, 0);
      steps_allocate_nothing(&one, "allocations of steps on one thread");
      training_allocates_nothing(&one, "allocations of a training step on one thread");
      if (strict == 1) strict = steps_call_nobody(&one);
      if (strict == 0) {
        printf("%s, cell %u, dtype %u, N %ld: ", fastrnn_isa_name(isa), cell, dtype, (long)N);
        expect("steps without system calls", 0, 1);
        strict = 1;
      }
      drop(&one);
    }
  }
  Stack two = make(FASTRNN_LSTM, FASTRNN_F32, 64, 64, 1, 2, -1, 2, FASTRNN_SPLIT_BATCH);
  steps_allocate_nothing(&two, "allocations of steps on two threads");
  training_allocates_nothing(&two, "allocations of a training step on two threads");
  drop(&two);
  if (strict < 0) puts("system calls not checked: no strict seccomp mode here");
  if (failures == 0) puts("ok");
  return failures != 0;
}

#endif
