/* fastrnn: recurrent layers on a CPU. The C interface of the core, C99 and C++.
 *
 * One problem describes a stack of layers. The caller asks for sizes, owns all memory, packs weights once, then runs.
 * Nothing here prints, throws or aborts, and nothing is allocated but the thread pool, once, by the first call that uses more
 * than one thread. Every call may be made from several threads at once on distinct buffers.
 *
 * Letters: T steps, N batch, I input, H hidden, G gates (1 RNN, 4 LSTM i f g o, 3 GRU r z n), D directions, L layers.
 * Strides are in elements. Pointers are read or written during the call only; none is kept. Packed weights and steppers are only
 * read and may be shared by any number of calls; what a call writes belongs to it alone until it returns.
 *
 * ABI version 1. Names are added, never removed or changed. A struct begins with struct_size = sizeof, its other fields are
 * zero where nothing is wanted, and it grows at its end only. Fields behind a caller's struct_size, who has an older header,
 * count as zero; a caller with a newer one may pass a longer struct if what this library does not know is zero. Everything else is
 * FASTRNN_BAD_STRUCT_SIZE. A status other than FASTRNN_OK means that no output has been written. Refused are null pointers,
 * misaligned ones, and outputs that overlap each other or an input, but for hn = h0 and cn = c0; of an array whose rows lie
 * apart, the first row is looked at.
 */
#ifndef FASTRNN_H
#define FASTRNN_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif
#if defined(__GNUC__)
#pragma GCC visibility push(default) /* what is declared here is all that the library shows */
#endif

#define FASTRNN_ABI_VERSION 1

typedef enum fastrnn_status {
  FASTRNN_OK = 0,
  FASTRNN_NULL_POINTER,     /* a pointer that must be given is null */
  FASTRNN_BAD_STRUCT_SIZE,  /* struct_size fits no version, or an unknown field is not zero */
  FASTRNN_BAD_PROBLEM,      /* a field of the problem is out of its range */
  FASTRNN_TOO_LARGE,        /* a size of the problem's arrays would be above 2^56 bytes */
  FASTRNN_UNSUPPORTED,      /* no kernel for this combination */
  FASTRNN_UNKNOWN_ISA,      /* no instruction set of that name was built */
  FASTRNN_ISA_NOT_RUNNABLE, /* built, but this CPU or operating system cannot run it */
  FASTRNN_MISALIGNED,       /* packed, tape or workspace not on 64 bytes, others on an element */
  FASTRNN_BAD_LENGTHS,      /* a length is negative or above T */
  FASTRNN_BAD_PACKING, /* offsets, batch_sizes or places are not those of problem.rows packed rows */
  FASTRNN_BAD_STEPPER, /* not made by fastrnn_make_stepper of this library in this process */
  FASTRNN_OVERLAP      /* an output has bytes in common with another array */
} fastrnn_status;

typedef enum fastrnn_cell {
  FASTRNN_RNN = 0,
  FASTRNN_LSTM = 1,
  FASTRNN_GRU = 2,             /* reset gate after the recurrent product (PyTorch, cuDNN) */
  FASTRNN_GRU_RESET_BEFORE = 3 /* before it (the 2014 paper, ONNX's default) */
} fastrnn_cell;

typedef enum fastrnn_activation {
  FASTRNN_STANDARD = 0, /* sigmoid and tanh */
  FASTRNN_RELU = 1,     /* RNN only */
  FASTRNN_CLAMP = 2     /* tests: everything is a clamp to [-1, 1] */
} fastrnn_activation;

typedef enum fastrnn_dtype { FASTRNN_F32 = 0, FASTRNN_F64 = 1 } fastrnn_dtype;

/* How a call is shared among threads, besides one direction per thread. */
typedef enum fastrnn_split {
  FASTRNN_SPLIT_CHOSEN = 0,
  FASTRNN_SPLIT_NONE = 1,
  FASTRNN_SPLIT_BATCH = 2,  /* slices of the batch, no synchronisation */
  FASTRNN_SPLIT_HIDDEN = 3, /* hidden units, handed over at each step */
  FASTRNN_SPLIT_LAYERS = 4 /* forward: layers one behind the other; several layers, one direction */
} fastrnn_split;

/* What forward leaves on the tape for backward. */
typedef enum fastrnn_save {
  FASTRNN_SAVE_ALL = 0,
  FASTRNN_SAVE_RECOMPUTE = 1 /* no gates, c every few steps: backward computes them again */
} fastrnn_save;

/* What a call's regularisers need memory for, besides dropout between layers. */
typedef enum fastrnn_regulariser {
  FASTRNN_RECURRENT_DROPOUT = 1,
  FASTRNN_ZONEOUT = 2
} fastrnn_regulariser;

typedef struct fastrnn_problem {
  uint32_t struct_size;
  uint32_t cell;       /* fastrnn_cell */
  uint32_t activation; /* fastrnn_activation */
  uint32_t dtype;      /* fastrnn_dtype */
  int64_t T, N;        /* >= 0 */
  int64_t I, H, L;     /* >= 1 */
  int64_t rows;  /* 0: x and y are padded, [T,N,..]. Else they are packed, [rows,..], see below */
  uint32_t D;    /* 1 or 2 */
  uint32_t bias; /* 0 or 1 */
  int32_t
      isa; /* index as in fastrnn_isa_name, or -1 for the active one: then the same at every call, see below */
  uint32_t retain;  /* backward leaves the tape as it is (its workspace is then larger) */
  uint32_t threads; /* the plan may use up to this many, 0 as 1; the results do not depend on it */
  uint32_t split;   /* 0: the plan chooses; else a fastrnn_split, for tests and measurements */
  uint32_t save;    /* fastrnn_save, the same forward and backward */
  uint32_t segment; /* recompute: steps between two checkpoints; 0: the plan chooses */
  uint32_t regularisers; /* sum of fastrnn_regulariser: what the calls may be given */
  uint32_t
      unpacked; /* 1: forward may be given weights in place of packed ones, where the plan says so */
} fastrnn_problem;

typedef struct fastrnn_sizes {
  uint32_t struct_size;
  uint32_t threads; /* threads the plan uses at most */
  int64_t weights;  /* elements of the flat weights, PyTorch's state_dict order */
  int64_t packed;   /* bytes, and so on */
  int64_t packed_backward;
  int64_t tape;
  int64_t forward_workspace; /* for inference and for forward with tape */
  int64_t backward_workspace;
  double work; /* floating-point operations of one forward call */
  uint32_t
      unpacked_backward; /* 1: rows are so few that packing for backward would cost more than it saves */
  uint32_t
      unpacked_forward; /* 1: forward does without packed weights; problem.unpacked, and T is 1 */
} fastrnn_sizes;

/* Sizes for a problem. Packed weights and tapes belong to the instruction set they were made for, packed sizes do not depend
 * on T, N and rows. Tapes are for one T, N, rows, save and segment; workspaces for one problem: every field, threads, split,
 * retain and regularisers too, must be what it was here, but that with N = 1 and one thread fewer steps, at least one, need no
 * more. */
fastrnn_status fastrnn_plan(const fastrnn_problem* problem, fastrnn_sizes* sizes);

/* weights: flat [sizes.weights], per layer and direction weight_ih [G*H,I], weight_hh [G*H,H], bias_ih, bias_hh [G*H].
 * packed [sizes.packed] and packed_backward [sizes.packed_backward]: bytes, out, 64-byte aligned; either may be null. No two of
 * the three may overlap; weights are not needed after the call. */
fastrnn_status fastrnn_pack(const fastrnn_problem* problem, const void* weights, void* packed,
                            void* packed_backward);

/* Arrays have the problem's dtype and need element alignment only; their last axis is contiguous.
 *
 * Rows of different length, n having len[n] steps, lie in one of three ways, with nothing computed but for their steps:
 *
 *   padded     x[t,n], len = lengths, the rest of y and dx is zeroed
 *   by rows    x[offsets[n] + t], len[n] = offsets[n+1] - offsets[n]          a row after the other: Arrow's lists
 *   by steps   x[starts[t] + places[n]], starts[t] the sum of batch_sizes[0..t-1]: a step after the other, in each the
 *              longest row first: PyTorch's PackedSequence, whose unsorted_indices are places
 *
 * Packed, problem.rows is the sum of all len and not 0 (without any step, say T = 0), T at least the longest; wherever
 * [T,N] is written below, of x, y, dy, dx, reset, mask and dropout, read [rows] in the order of x; x_t is the stride from
 * row to row, and x_n is not looked at, and so on. States are [N] in the order of n. These index arrays are checked as
 * lengths are, before anything but the workspace is written, and may be used for nothing else while the call runs. */
typedef struct fastrnn_forward_args {
  uint32_t struct_size;
  uint32_t reserved;
  /* [sizes.packed] bytes, in, 64-byte aligned: fastrnn_pack's; or null, where sizes.unpacked_forward: weights are packed on the
   * way, with the same results. Quicker than fastrnn_pack for weights that forward meets once */
  const void* packed;
  const void* x;    /* [T,N,I] in */
  int64_t x_t, x_n; /* strides of T and N, of any sign */
  void* y;          /* [T,N,D*H] out; may not overlap an input */
  int64_t y_t, y_n;
  const void* h0;         /* [L*D,N,H] or null: zeros, which the first step need not multiply */
  const void* c0;         /* [L*D,N,H] or null: zeros; LSTM */
  void* hn;               /* [L*D,N,H] out; may be h0, unless backward is to read h0 later */
  void* cn;               /* [L*D,N,H] out; may be c0; LSTM, else null */
  const int64_t* lengths; /* [N] in 0..T, or null */
  const int64_t*
      offsets; /* [N+1] packed by rows, else null: from 0 to problem.rows, never falling */
  const int64_t*
      batch_sizes; /* [T] packed by steps, else null: from at most N, never rising, to at least 1 */
  const int64_t* places; /* [N] with batch_sizes, each of 0..N-1 once; or null: n */
  const uint8_t* reset;  /* [T,N] contiguous, or null */
  const uint8_t* mask;   /* [T,N] contiguous, or null */
  const void* dropout;   /* [L-1,T,N,D*H] contiguous, multiplies what enters layers 1.., or null */
  /* [L*D,N,H] contiguous, or null: multiplies h[t-1] where it enters the product with U, the same at every step. What of
   * h[t-1] goes past the product (GRU, zoneout) it leaves alone. */
  const void* recurrent_dropout;
  /* [L*D,T,N,H], packed or not, or null: the share z in 0..1 of the state before that stays, h[t] = z h[t-1] + (1-z) h~[t] with
   * h~ what the cell gives; for c likewise, h~ being made from c~ (LSTM only). Strides of the first three axes of both; 0
   * repeats. */
  const void* zoneout_h;
  const void* zoneout_c;
  int64_t zoneout_k, zoneout_t, zoneout_n;
  /* [sizes.tape] bytes, out, 64-byte aligned, or null: inference. Keep it, x and y until backward */
  void* tape;
  /* [sizes.forward_workspace] bytes, 64-byte aligned; holds nothing before or after */
  void* workspace;
  /* [sizes.weights] in, as fastrnn_pack's, where packed is null; else not looked at */
  const void* weights;
} fastrnn_forward_args;

fastrnn_status fastrnn_forward(const fastrnn_problem* problem, const fastrnn_forward_args* args);

/* One step of each row, for streams, policies and samples that come one by one: fastrnn_forward at T = 1 with the same bits and
 * without its preparations, which a stepper holds.
 *
 * A stepper is the caller's plain memory. It holds nothing of the caller's but a copy of the problem, and is only read by
 * fastrnn_step: one serves any number of threads, weights and states. It may be copied, but not kept in a file. */
typedef struct fastrnn_stepper {
  uint64_t opaque[96];
} fastrnn_stepper;

/* problem.T is 1. stepper: out, 8-byte aligned; packed weights of the same problem go with it. */
fastrnn_status fastrnn_make_stepper(const fastrnn_problem* problem, fastrnn_stepper* stepper);

typedef struct fastrnn_step_args {
  uint32_t struct_size;
  uint32_t reserved;
  const void* packed; /* [sizes.packed] bytes, in, 64-byte aligned: fastrnn_pack's */
  const void* x;      /* [N,I] in */
  int64_t x_n;        /* stride of N */
  void* y;            /* [N,D*H] out; may overlap nothing, h neither */
  int64_t y_n;
  void* h; /* [L*D,N,H] contiguous, inout; zeros at first, as a rule */
  void* c; /* [L*D,N,H] contiguous, inout; LSTM, else null */
  /* [sizes.forward_workspace] bytes of that problem, 64-byte aligned; holds nothing before or after */
  void* workspace;
} fastrnn_step_args;

fastrnn_status fastrnn_step(const fastrnn_stepper* stepper, const fastrnn_step_args* args);

/* x, y, h0, c0, lengths or what packs them, reset, mask, all that regularises and the problem are those of the forward call, with
 * the same values; their strides may be others. */
typedef struct fastrnn_backward_args {
  uint32_t struct_size;
  uint32_t accumulate; /* 1: add to dweights instead of writing it */
  /* [sizes.packed_backward] bytes, in, 64-byte aligned: fastrnn_pack's; or null: weights are read as they lie, with the same
   * results */
  const void* packed_backward;
  /* [sizes.packed] bytes, in, as forward's; may be null but for FASTRNN_SAVE_RECOMPUTE */
  const void* packed;
  const void* x; /* [T,N,I] in */
  int64_t x_t, x_n;
  const void* y; /* [T,N,D*H] in: what forward wrote */
  int64_t y_t, y_n;
  const void* h0; /* [L*D,N,H] in, or null: zeros */
  const void* c0; /* [L*D,N,H] in, or null: zeros; LSTM */
  const void* dy; /* [T,N,D*H] in, or null: zeros */
  int64_t dy_t, dy_n;
  const void* dhn; /* [L*D,N,H] in, or null: zeros */
  const void* dcn; /* [L*D,N,H] in, or null: zeros; LSTM */
  void* dx;        /* [T,N,I] out, or null: not wanted; and so on. Outputs overlap nothing */
  int64_t dx_t, dx_n;
  void* dh0;              /* [L*D,N,H] out */
  void* dc0;              /* [L*D,N,H] out; LSTM */
  void* dweights;         /* [sizes.weights] out, or inout if accumulate; in the order of weights */
  const int64_t* lengths; /* [N], and so on: as in fastrnn_forward_args */
  const int64_t* offsets;
  const int64_t* batch_sizes;
  const int64_t* places;
  const uint8_t* reset;
  const uint8_t* mask;
  const void* dropout;
  const void* recurrent_dropout;
  const void* zoneout_h;
  const void* zoneout_c;
  int64_t zoneout_k, zoneout_t, zoneout_n;
  /* [sizes.tape] bytes, inout: forward's; afterwards of no use, but as it was if problem.retain */
  void* tape;
  /* [sizes.backward_workspace] bytes, 64-byte aligned; holds nothing before or after */
  void* workspace;
  /* [sizes.weights] in, as fastrnn_pack's, where packed_backward is null; else not looked at */
  const void* weights;
  /* [L*D,T,N,H] out, packed rows too, 0 behind a row's end: the gradient of h[t] with all that comes of it, y[t] among it;
   * null: not wanted. And of c[t], by way of h[t] too, with zoneout that of what the cell made; only with dh_all. */
  void* dh_all;
  void* dc_all; /* LSTM */
} fastrnn_backward_args;

fastrnn_status fastrnn_backward(const fastrnn_problem* problem, const fastrnn_backward_args* args);

/* Instruction sets that were built, ascending; the active one is the last that can run, or FASTRNN_ISA, or what was set. */
int32_t fastrnn_isa_count(void);
const char* fastrnn_isa_name(int32_t index); /* null if there is none */
int32_t fastrnn_isa_runnable(int32_t index);
fastrnn_status fastrnn_isa_active(
    int32_t* index); /* an error if FASTRNN_ISA names none that can run */
fastrnn_status fastrnn_set_isa(const char* name); /* null: back to the automatic choice */

/* A number for callers to put into problem.threads; no other call reads it. At first FASTRNN_NUM_THREADS, or the CPUs this
 * process may use. */
int32_t fastrnn_get_num_threads(void);
void fastrnn_set_num_threads(int32_t threads); /* clamped to 1..256 */

/* Measuring aids for benchmarks: work of a known amount, which the caller times. No other call needs them. */
typedef enum fastrnn_probe_kind {
  FASTRNN_PROBE_FMA = 0,  /* multiply-adds in registers; work: floating-point operations */
  FASTRNN_PROBE_READ = 1, /* vector loads of a buffer from end to end; work: bytes */
  FASTRNN_PROBE_CALL = 2, /* of the thread pool, all threads taking part; work: calls */
  FASTRNN_PROBE_PHASE = 3 /* of a team, an item for each thread; work: phases */
} fastrnn_probe_kind;

typedef struct fastrnn_probe {
  uint32_t struct_size;
  uint32_t kind;    /* fastrnn_probe_kind */
  uint32_t dtype;   /* FMA: fastrnn_dtype */
  int32_t isa;      /* FMA, READ: as in a problem */
  uint32_t threads; /* CALL, PHASE: at most so many; the others run on the calling thread */
  uint32_t reserved;
  int64_t repeats;    /* >= 0 */
  const void* buffer; /* READ: [bytes] */
  int64_t bytes;      /* READ: >= 0; what is left over of whole blocks of 8 vectors is not read */
} fastrnn_probe;

/* work: one number, out. */
fastrnn_status fastrnn_run_probe(const fastrnn_probe* probe, double* work);

const char* fastrnn_status_text(fastrnn_status status);
const char* fastrnn_version(void);
const char* fastrnn_compiler(void);

#if defined(__GNUC__)
#pragma GCC visibility pop
#endif
#ifdef __cplusplus
}
#endif
#endif
