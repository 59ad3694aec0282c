/* The C interface refuses what it cannot do with a status, before it touches memory. Run by CTest. */
#define _POSIX_C_SOURCE 200809L /* posix_memalign */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
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
  p.regularisers = 4;
  expect("an unknown regulariser", plan(p, &sizes), FASTRNN_BAD_PROBLEM);
  p = small_lstm();
  p.isa = 1000;
  expect("an instruction set that is not there", plan(p, &sizes), FASTRNN_UNKNOWN_ISA);
  expect("a name that is not there", fastrnn_set_isa("none"), FASTRNN_UNKNOWN_ISA);
}

/* One row and one thread: a workspace serves fewer steps. */
static void check_workspace_grows(void) {
  fastrnn_sizes sizes;
  for (uint32_t cell = 0; cell < 4; ++cell) {
    fastrnn_problem p = small_lstm();
    int64_t before = 0;
    p.cell = cell;
    p.N = 1;
    p.I = 64;
    for (p.T = 1; p.T < 600; ++p.T) {
      expect("a longer sequence", plan(p, &sizes), FASTRNN_OK);
      if (sizes.forward_workspace < before) {
        printf("cell %u: the workspace of %d steps is smaller than that of %d\n", cell, (int)p.T,
               (int)p.T - 1);
        ++failures;
      }
      before = sizes.forward_workspace;
    }
  }
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
}

/* Everything that a small call needs, apart from each other; tests then bend one thing at a time. */
typedef struct world {
  fastrnn_problem p;
  fastrnn_sizes sizes;
  float *weights, *x, *y, *h, *c, *hn, *cn, *dx;
  char *packed, *packed_backward, *tape, *workspace, *back_workspace;
} world;

static char* block(
    int64_t bytes) { /* on a 64-byte boundary, of exactly that size for the sanitizer */
  void* p = NULL;
  if (posix_memalign(&p, 64, (size_t)bytes) != 0) exit(2);
  memset(p, 0, (size_t)bytes);
  return p;
}

static world make_world(int64_t T, int64_t N, int64_t H, uint32_t cell, int64_t L) {
  world w;
  memset(&w, 0, sizeof w);
  w.p = small_lstm();
  w.p.T = T;
  w.p.N = N;
  w.p.H = H;
  w.p.L = L;
  w.p.cell = cell;
  expect("a small world", plan(w.p, &w.sizes), FASTRNN_OK);
  const int64_t I = w.p.I;
  w.weights = (float*)block(4 * w.sizes.weights);
  for (int64_t i = 0; i < w.sizes.weights; ++i) w.weights[i] = (float)(i % 23) / 40 - 0.25f;
  w.x = (float*)block(4 * T * N * I);
  for (int64_t i = 0; i < T * N * I; ++i) w.x[i] = (float)(i % 7) - 3;
  w.y = (float*)block(4 * T * N * H);
  w.dx = (float*)block(4 * T * N * I);
  w.h = (float*)block(4 * L * N * H);
  w.c = (float*)block(4 * L * N * H);
  w.hn = (float*)block(4 * L * N * H);
  w.cn = (float*)block(4 * L * N * H);
  w.packed = block(w.sizes.packed);
  w.packed_backward = block(w.sizes.packed_backward);
  w.tape = block(w.sizes.tape);
  w.workspace = block(w.sizes.forward_workspace);
  w.back_workspace = block(w.sizes.backward_workspace);
  expect("pack", fastrnn_pack(&w.p, w.weights, w.packed, w.packed_backward), FASTRNN_OK);
  return w;
}

static void free_world(world* w) {
  void* all[] = {w->weights,
                 w->x,
                 w->y,
                 w->h,
                 w->c,
                 w->hn,
                 w->cn,
                 w->dx,
                 w->packed,
                 w->packed_backward,
                 w->tape,
                 w->workspace,
                 w->back_workspace};
  for (size_t i = 0; i < sizeof all / sizeof all[0]; ++i) free(all[i]);
}

static fastrnn_forward_args forward_of(const world* w) {
  fastrnn_forward_args f;
  memset(&f, 0, sizeof f);
  f.struct_size = sizeof f;
  f.packed = w->packed;
  f.x = w->x;
  f.x_t = w->p.N * w->p.I;
  f.x_n = w->p.I;
  f.y = w->y;
  f.y_t = w->p.N * w->p.H;
  f.y_n = w->p.H;
  f.h0 = w->h;
  f.c0 = w->c;
  f.hn = w->hn;
  f.cn = w->cn;
  f.tape = w->tape;
  f.workspace = w->workspace;
  return f;
}

static fastrnn_backward_args backward_of(const world* w) {
  fastrnn_backward_args b;
  memset(&b, 0, sizeof b);
  b.struct_size = sizeof b;
  b.packed_backward = w->packed_backward;
  b.x = w->x;
  b.x_t = w->p.N * w->p.I;
  b.x_n = w->p.I;
  b.y = b.dy = w->y;
  b.y_t = b.dy_t = w->p.N * w->p.H;
  b.y_n = b.dy_n = w->p.H;
  b.h0 = w->h;
  b.c0 = w->c;
  b.dx = w->dx;
  b.dx_t = w->p.N * w->p.I;
  b.dx_n = w->p.I;
  b.tape = w->tape;
  b.workspace = w->back_workspace;
  return b;
}

/* CALL with one thing changed gives STATUS, and y is as it was. */
#define REFUSED(WHAT, ARGS, CHANGE, CALL, STATUS)             \
  do {                                                        \
    ARGS = fresh;                                             \
    CHANGE;                                                   \
    memset(w.y, 0x5a, sizeof *w.y * (size_t)(w.p.N * w.p.H)); \
    expect(WHAT, CALL, STATUS);                               \
    if (*(unsigned char*)w.y != 0x5a) {                       \
      printf("%s: something was written\n", WHAT);            \
      ++failures;                                             \
    }                                                         \
  } while (0)

static void check_forward(void) {
  world w = make_world(3, 2, 5, FASTRNN_LSTM, 2);
  const fastrnn_forward_args fresh = forward_of(&w);
  fastrnn_forward_args f;
  const int64_t lengths[3] = {1, 4, 0};
#define FORWARD fastrnn_forward(&w.p, &f)
  REFUSED("a length above T", f, f.lengths = lengths, FORWARD, FASTRNN_BAD_LENGTHS);
  REFUSED("lengths on an odd address", f,
          f.lengths = (const int64_t*)(const void*)((const char*)lengths + 4), FORWARD,
          FASTRNN_MISALIGNED);
  REFUSED("no packed weights", f, f.packed = NULL, FORWARD, FASTRNN_NULL_POINTER);
  REFUSED("no workspace", f, f.workspace = NULL, FORWARD, FASTRNN_NULL_POINTER);
  REFUSED("no x", f, f.x = NULL, FORWARD, FASTRNN_NULL_POINTER);
  REFUSED("no y", f, f.y = NULL, FORWARD, FASTRNN_NULL_POINTER);
  REFUSED("x on an odd address", f, f.x = (const char*)f.x + 1, FORWARD, FASTRNN_MISALIGNED);
  REFUSED("h0 on an odd address", f, f.h0 = (const char*)f.h0 + 2, FORWARD, FASTRNN_MISALIGNED);
  REFUSED("workspace off its line", f, f.workspace = w.workspace + 32, FORWARD, FASTRNN_MISALIGNED);
  REFUSED("tape off its line", f, f.tape = w.tape + 4, FORWARD, FASTRNN_MISALIGNED);
  REFUSED("y is x", f, f.y = w.x, FORWARD, FASTRNN_OVERLAP);
  REFUSED("y is h0", f, f.y = w.h, FORWARD, FASTRNN_OVERLAP);
  REFUSED("hn is cn", f, f.hn = w.cn, FORWARD, FASTRNN_OVERLAP);
  REFUSED("hn is a part of h0", f, f.hn = w.h + 1, FORWARD, FASTRNN_OVERLAP);
  REFUSED("the tape in the workspace", f, f.tape = w.workspace, FORWARD, FASTRNN_OVERLAP);
  REFUSED("the workspace in the weights", f, f.workspace = w.packed, FORWARD, FASTRNN_OVERLAP);
  REFUSED("y at the end of the tape", f, f.y = w.tape + w.sizes.tape - 4, FORWARD, FASTRNN_OVERLAP);
  REFUSED("rows of y on each other", f, f.y_n = w.p.H - 1, FORWARD, FASTRNN_OVERLAP);
  REFUSED("steps of y on each other", f, f.y_t = 0, FORWARD, FASTRNN_OVERLAP);
  REFUSED("a stride that overflows", f, f.x_t = INT64_MAX, FORWARD, FASTRNN_TOO_LARGE);
  REFUSED("another that does", f, f.y_t = INT64_MIN, FORWARD, FASTRNN_TOO_LARGE);
  REFUSED("a struct shorter than any", f,
          f.struct_size = (uint32_t)offsetof(fastrnn_forward_args, workspace), FORWARD,
          FASTRNN_BAD_STRUCT_SIZE);
  REFUSED("unpacked weights of several steps", f, (f.packed = NULL, f.weights = w.weights), FORWARD,
          FASTRNN_NULL_POINTER);
  REFUSED("a struct without end", f, f.struct_size = UINT32_MAX, FORWARD, FASTRNN_BAD_STRUCT_SIZE);
  REFUSED("no problem", f, (void)0, fastrnn_forward(NULL, &f), FASTRNN_NULL_POINTER);
  expect("no arguments", fastrnn_forward(&w.p, NULL), FASTRNN_NULL_POINTER);
  expect("arguments on an odd address",
         fastrnn_forward(&w.p, (const fastrnn_forward_args*)(const void*)((const char*)&f + 1)),
         FASTRNN_MISALIGNED);
  REFUSED("a mask that was not planned", f, f.recurrent_dropout = w.c, FORWARD,
          FASTRNN_BAD_PROBLEM);
  REFUSED("shares that were not planned", f, f.zoneout_c = w.c, FORWARD, FASTRNN_BAD_PROBLEM);
  f = fresh;
  f.hn = w.h;
  f.cn = w.c;
  f.x_t = 0; /* an input may be read again and again */
  expect("states in their place", FORWARD, FASTRNN_OK);
#undef FORWARD
  free_world(&w);
}

/* A struct of a later version: longer. What it says there must be nothing. */
static void check_longer_structs(void) {
  world w = make_world(3, 2, 5, FASTRNN_GRU, 1);
  struct {
    fastrnn_forward_args args;
    int64_t later;
  } f;
  memset(&f, 0, sizeof f);
  f.args = forward_of(&w);
  f.args.tape = NULL;
  f.args.struct_size = sizeof f;
  expect("a longer struct", fastrnn_forward(&w.p, &f.args), FASTRNN_OK);
  f.later = 1;
  expect("a longer struct that says more", fastrnn_forward(&w.p, &f.args), FASTRNN_BAD_STRUCT_SIZE);
  free_world(&w);
}

/* One step on weights as they lie: they are packed on the way, in the workspace. */
static void check_unpacked_forward(void) {
  world w = make_world(1, 2, 37, FASTRNN_LSTM, 2);
  fastrnn_forward_args fresh = forward_of(&w), f = fresh;
  const size_t bytes = 4 * (size_t)(w.p.N * w.p.H);
  float* want = (float*)block((int64_t)bytes);
  expect("packed", fastrnn_forward(&w.p, &f), FASTRNN_OK);
  memcpy(want, w.y, bytes);
  fresh.packed = NULL;
  fresh.weights = w.weights;
  f = fresh;
  expect("a problem without unpacked", fastrnn_forward(&w.p, &f), FASTRNN_NULL_POINTER);
  const int64_t tape = w.sizes.tape;
  w.p.unpacked = 1;
  expect("its plan", plan(w.p, &w.sizes), FASTRNN_OK);
  if (w.sizes.tape != tape) {
    printf("unpacked: another tape\n");
    ++failures;
  }
  free(w.workspace);
  fresh.workspace = w.workspace = block(w.sizes.forward_workspace);
  f = fresh;
  memset(w.y, 0, bytes);
  expect("unpacked", fastrnn_forward(&w.p, &f), FASTRNN_OK);
  if (w.sizes.unpacked_forward != 1 || memcmp(want, w.y, bytes) != 0) {
    printf("unpacked: other results, or not offered\n");
    ++failures;
  }
#define UNPACKED fastrnn_forward(&w.p, &f)
  REFUSED("no weights at all", f, f.weights = NULL, UNPACKED, FASTRNN_NULL_POINTER);
  REFUSED("weights on an odd address", f, f.weights = (char*)w.weights + 1, UNPACKED,
          FASTRNN_MISALIGNED);
  REFUSED("y in the weights", f, f.y = w.weights + 8, UNPACKED, FASTRNN_OVERLAP);
  free(want);
  free_world(&w);
}

static void check_backward(void) {
  world w = make_world(3, 2, 5, FASTRNN_LSTM, 2);
  const fastrnn_backward_args fresh = backward_of(&w);
  fastrnn_backward_args b;
#define BACKWARD fastrnn_backward(&w.p, &b)
  REFUSED("no backward weights", b, b.packed_backward = NULL, BACKWARD, FASTRNN_NULL_POINTER);
  REFUSED("no tape", b, b.tape = NULL, BACKWARD, FASTRNN_NULL_POINTER);
  REFUSED("dx is x", b, b.dx = w.x, BACKWARD, FASTRNN_OVERLAP);
  REFUSED("dh_all is x", b, b.dh_all = w.x, BACKWARD, FASTRNN_OVERLAP);
  REFUSED("dc_all without dh_all", b, b.dc_all = w.y, BACKWARD, FASTRNN_NULL_POINTER);
  REFUSED("dweights in the tape", b, b.dweights = w.tape, BACKWARD, FASTRNN_OVERLAP);
  REFUSED("dh0 is h0", b, b.dh0 = w.h, BACKWARD, FASTRNN_OVERLAP);
  REFUSED("dx on an odd address", b, b.dx = (char*)w.dx + 1, BACKWARD, FASTRNN_MISALIGNED);
  REFUSED("a struct shorter than any", b, b.struct_size = 16, BACKWARD, FASTRNN_BAD_STRUCT_SIZE);
#undef BACKWARD
  fastrnn_forward_args f = forward_of(&w);
  expect("forward", fastrnn_forward(&w.p, &f), FASTRNN_OK);
  b = fresh;
  expect("backward", fastrnn_backward(&w.p, &b), FASTRNN_OK);
  free_world(&w);
}

/* Steps have the bits of forward, in place, whatever H is beside the vector's length, and refuse what it refuses. */
/* Each array of a step laid over the beginning and over the end of each other: refused, unless both are only read. */
static void check_step_pairs(world w, const fastrnn_stepper* stepper, fastrnn_step_args fresh) {
  enum { packed, x, y, h, c, workspace, arrays };
  const int64_t row = 4 * w.p.N, states = w.p.L * row * w.p.H;
  const int64_t bytes[arrays] = {w.sizes.packed, row * w.p.I, row * w.p.H,
                                 states,         states,      w.sizes.forward_workspace};
  for (int i = 0; i < arrays; ++i) {
    for (int j = 0; j < arrays; ++j) {
      if (i == j || (i <= x && j <= x) || (fresh.c == NULL && (i == c || j == c))) continue;
      const char* other[arrays] = {w.packed,   (char*)w.x, (char*)w.y,
                                   (char*)w.h, (char*)w.c, w.workspace};
      const int64_t unit = i == packed || i == workspace ? 64 : 4;
      const int64_t at[] = {0, (bytes[j] - 1) / unit * unit};
      for (int end = 0; end < 2; ++end) {
        fastrnn_step_args s;
        char* moved = (char*)other[j] + at[end];
        REFUSED(
            "step: a pair of arrays", s,
            {
              if (i == packed) s.packed = moved;
              if (i == x) s.x = moved;
              if (i == y) s.y = moved;
              if (i == h) s.h = moved;
              if (i == c) s.c = moved;
              if (i == workspace) s.workspace = moved;
            },
            fastrnn_step(stepper, &s), FASTRNN_OVERLAP);
      }
    }
  }
}

static void check_steps(uint32_t cell, int64_t N, int64_t H, int64_t L, uint32_t split) {
  enum { T = 3 };
  world whole = make_world(T, N, H, cell, L), w = make_world(1, N, H, cell, L);
  whole.p.split = w.p.split = split;
  fastrnn_forward_args f = forward_of(&whole);
  f.tape = NULL;
  fastrnn_stepper stepper;
  expect("a stepper", fastrnn_make_stepper(&w.p, &stepper), FASTRNN_OK);
  expect("forward", fastrnn_forward(&whole.p, &f), FASTRNN_OK);
  fastrnn_step_args fresh, s;
  memset(&fresh, 0, sizeof fresh);
  fresh.struct_size = sizeof fresh;
  fresh.packed = w.packed;
  fresh.x = w.x;
  fresh.x_n = w.p.I;
  fresh.y = w.y;
  fresh.y_n = H;
  fresh.h = w.h;
  fresh.c = cell == FASTRNN_LSTM ? w.c : NULL;
  fresh.workspace = w.workspace;
#define STEP fastrnn_step(&stepper, &s)
  REFUSED("step: no h", s, s.h = NULL, STEP, FASTRNN_NULL_POINTER);
  REFUSED("step: no x", s, s.x = NULL, STEP, FASTRNN_NULL_POINTER);
  REFUSED("step: y is h", s, s.y = w.h, STEP, FASTRNN_OVERLAP);
  if (N > 1) REFUSED("step: rows of y on each other", s, s.y_n = 0, STEP, FASTRNN_OVERLAP);
  REFUSED("step: y on an odd address", s, s.y = (char*)w.y + 1, STEP, FASTRNN_MISALIGNED);
  REFUSED("step: a short struct", s, s.struct_size = 8, STEP, FASTRNN_BAD_STRUCT_SIZE);
  fastrnn_stepper none;
  memset(&none, 0, sizeof none);
  REFUSED("step: no stepper's memory", s, (void)0, fastrnn_step(&none, &s), FASTRNN_BAD_STEPPER);
  REFUSED("step: no stepper", s, (void)0, fastrnn_step(NULL, &s), FASTRNN_NULL_POINTER);
  if (cell == FASTRNN_LSTM) REFUSED("step: no c", s, s.c = NULL, STEP, FASTRNN_NULL_POINTER);
  for (int array = 0; array < 4; ++array) { /* up to the end of all addresses */
    void* top = (void*)(UINTPTR_MAX - 63);
    void** pointer[] = {(void**)&s.packed, (void**)&s.x, &s.h, &s.workspace};
    if (array == 1 && N * w.p.I <= 16) continue; /* fits below it */
    if (array == 2 && L * N * H <= 16) continue;
    REFUSED("step: over the top", s, *pointer[array] = top, STEP, FASTRNN_TOO_LARGE);
  }
  check_step_pairs(w, &stepper, fresh);
  s = fresh;
  for (int64_t t = 0; t < T; ++t) {
    s.x = whole.x + t * N * w.p.I;
    expect("step", STEP, FASTRNN_OK);
    if (memcmp(w.y, whole.y + t * N * H, (size_t)(4 * N * H)) != 0) {
      printf("cell %u, N %d, H %d, L %d, split %u, step %d: not forward's bits\n", cell, (int)N,
             (int)H, (int)L, split, (int)t);
      ++failures;
    }
  }
#undef STEP
  const size_t states = (size_t)(4 * L * N * H);
  if (memcmp(w.h, whole.hn, states) != 0 || (s.c != NULL && memcmp(w.c, whole.cn, states) != 0)) {
    printf("cell %u, H %d, L %d: other states than forward's\n", cell, (int)H, (int)L);
    ++failures;
  }
  w.p.T = 2;
  expect("a stepper of two steps", fastrnn_make_stepper(&w.p, &stepper), FASTRNN_BAD_PROBLEM);
  free_world(&whole);
  free_world(&w);
}

/* Packed rows: T=3, N=2, lengths 1 and 3. */
static fastrnn_status packed_rows(world* w, const int64_t* offsets, const int64_t* sizes,
                                  const int64_t* places, int64_t rows) {
  fastrnn_problem p = w->p;
  fastrnn_forward_args f;
  memset(&f, 0, sizeof f);
  p.rows = rows;
  f.struct_size = sizeof f;
  f.packed = w->packed;
  f.x = w->x;
  f.x_t = rows != 0 ? p.I : p.N * p.I;
  f.x_n = p.I;
  f.y = w->y;
  f.y_t = rows != 0 ? p.H : p.N * p.H;
  f.y_n = p.H;
  f.offsets = offsets;
  f.batch_sizes = sizes;
  f.places = places;
  fastrnn_sizes needed;
  char* workspace = block(plan(p, &needed) == FASTRNN_OK ? needed.forward_workspace : 64);
  f.workspace = workspace;
  const fastrnn_status status = fastrnn_forward(&p, &f);
  free(workspace);
  return status;
}

static void check_packing(void) {
  world w = make_world(3, 2, 8, FASTRNN_LSTM, 1);
  const int64_t good[] = {0, 1, 4}, sizes[] = {2, 1, 1}, places[] = {1, 0};
  const int64_t bad_offsets[][3] = {{1, 2, 4},  {0, 1, 3}, {0, 5, 4},
                                    {0, -1, 4}, {0, 4, 4}, {0, 0, 4}};
  const int64_t bad_sizes[][3] = {{1, 2, 1}, {2, 1, 0}, {3, 1, 0}, {2, 2, 1}, {2, INT64_MAX, 1}};
  const int64_t bad_places[][2] = {{0, 0}, {1, 1}, {0, 2}, {-1, 0}, {INT64_MAX, 0}};
  for (int i = 0; i < 6; ++i)
    expect("bad offsets", packed_rows(&w, bad_offsets[i], NULL, NULL, 4), FASTRNN_BAD_PACKING);
  for (int i = 0; i < 5; ++i)
    expect("bad batch_sizes", packed_rows(&w, NULL, bad_sizes[i], places, 4), FASTRNN_BAD_PACKING);
  for (int i = 0; i < 5; ++i)
    expect("bad places", packed_rows(&w, NULL, sizes, bad_places[i], 4), FASTRNN_BAD_PACKING);
  expect("neither", packed_rows(&w, NULL, NULL, NULL, 4), FASTRNN_BAD_PACKING);
  expect("both", packed_rows(&w, good, sizes, NULL, 4), FASTRNN_BAD_PACKING);
  expect("places of offsets", packed_rows(&w, good, NULL, places, 4), FASTRNN_BAD_PACKING);
  expect("offsets of padded rows", packed_rows(&w, good, NULL, NULL, 0), FASTRNN_BAD_PACKING);
  expect("negative rows", packed_rows(&w, good, NULL, NULL, -1), FASTRNN_BAD_PROBLEM);
  expect("more rows than T * N", packed_rows(&w, good, NULL, NULL, 7), FASTRNN_BAD_PROBLEM);
  expect("good offsets", packed_rows(&w, good, NULL, NULL, 4), FASTRNN_OK);
  expect("good batch_sizes", packed_rows(&w, NULL, sizes, places, 4), FASTRNN_OK);
  free_world(&w);
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
  check_workspace_grows();
  check_recompute();
  check_large_sizes();
  check_runs();
  check_forward();
  check_unpacked_forward();
  check_longer_structs();
  check_backward();
  check_packing();
  for (uint32_t i = 0; i < 8; ++i) {
    const uint32_t cell = i / 2, N = 1 + i % 2; /* one row goes a way of its own */
    for (int64_t H = 1; H < 70; H += 1 + H / 2) {
      check_steps(cell, N, H, 1, FASTRNN_SPLIT_CHOSEN);
      check_steps(cell, N, H, 3, FASTRNN_SPLIT_CHOSEN);
    }
    for (int64_t H = 16; H <= 64; H *= 2) { /* c in its place */
      check_steps(cell, N, H, 1, FASTRNN_SPLIT_CHOSEN);
      check_steps(cell, N, H, 2, FASTRNN_SPLIT_CHOSEN);
    }
    check_steps(cell, N, 16, 2, FASTRNN_SPLIT_NONE); /* an option besides: the general way */
  }
  check_probe();
  if (failures == 0) puts("ok");
  return failures != 0;
}
