// Plain data shared by the core and the kernels. No functions here: a kernel unit is compiled with instruction sets that the
// running CPU may lack, and an inline function emitted there could be the copy the linker keeps for everybody.
//
// Letters: T steps, N batch, I input, H hidden, D directions, L layers, R processed (t, n) pairs ("rows").
#pragma once

#include <cstddef>
#include <cstdint>

namespace fastrnn {

enum class Cell : uint32_t { rnn, lstm, gru, gru_reset_before };
enum class Activation : uint32_t { standard, relu, clamp };
enum class DType : uint32_t { f32, f64 };
constexpr int cell_count = 4, activation_count = 3, dtype_count = 2;

constexpr int64_t l2_bytes = int64_t{1} << 20;  // of a core, about: what lies beyond comes slower

// An array (T, N, width) whose last axis is contiguous; base null: absent. Packed: (rows, width),
// step and row both the bytes of one.
struct Operand {
  char* base;
  int64_t step, row;  // bytes between t and t+1, between n and n+1
};

// Which (t, n) a direction processes, in which order, and where they lie in arrays:
//
//   at step_of(t) * Operand::step + row_of(n) * Operand::row, where step_of(t) is t and row_of(n) is n, unless packed
//
// Inside, rows are told apart by their places in `order`, the longest first: a step's rows are the first ones then, none that
// has ended is looked at again, and threads take neighbouring places of equal work.
struct Sequence {
  int64_t T, N;
  bool reverse;            // t runs from T-1 down
  const int64_t* lengths;  // [N] or null: row n has lengths[n] steps
  const int64_t* order;    // [N] n at each place; null without lengths: all n as they are
  const int64_t* step_of;  // [T] or null
  const int64_t* row_of;   // [N] or null
  int64_t flag_step;       // of the next two, which are bytes: N; packed: 1
  const uint8_t* reset;    // [T,N] or null: the state is zeroed at the boundary between t-1 and t
  const uint8_t* mask;     // [T,N] or null: where 0 the state is kept and y repeats it
};

// Sizes that follow from (cell, dtype, vector length, I, H); filled by plan.cpp, read by kernels.
struct Layout {
  int64_t I, H;
  int64_t lanes;          // elements of a vector
  int64_t unit_panel;     // hidden units of a panel: lanes (gates interleaved), 4*lanes for the RNN
  int64_t panels;         // ceil(H / unit_panel)
  int64_t hidden_padded;  // H rounded up to lanes
  int64_t input_padded;   // I rounded up to lanes
  int64_t panel_size;     // elements of one full packed panel: biases, W, U
  int64_t rows;           // R at most: rows of the tape
};

// Where the rows of some consecutive processing steps lie. Tables of pointers, one entry a row, steps one after the other:
// ragged order, resets (a zero row), masks, batch_first and reverse time then need no copies.
struct RowTables {
  const void** x;  // [rows] -> [I]
  const void** h;  // [rows] -> [H]     h before the step
  const void**
      u;  // [rows] -> [H]     what U multiplies: the table h itself, or h times recurrent dropout's mask
  void** y;              // [rows] -> [H]     h after it
  const void** c_in;     // [rows] -> [Hp]    LSTM only
  void** c_out;          // [rows] -> [Hp]
  void** c_to;           // [rows] -> [Hp]    forward, zoneout of c: where c goes from c_out
  const void** dy;       // [rows] -> [H]     backward only, from here
  void** dx;             // [rows] -> [I]
  int64_t* n;            // [rows]            place in the order, ascending in a step
  uint8_t* cut;          // [rows]            1: h and c before the step were zeroed by a reset
  int64_t* first;        // [steps+1]         first row of each step in these tables
  int64_t* tape_row;     // [steps]           its index among all rows of all slices
  const void** held_h;   // [held] -> [H]    masked (t, n): what y repeats
  void** held_y;         // [held] -> [H]
  const void** held_dy;  // [held] -> [H]
  int64_t* held_n;       // [held]
  uint8_t* held_cut;     // [held]
  int64_t* held_first;   // [steps+1]
};

// Recurrent dropout and zoneout of one direction (kernels/regular_forward.hpp); what is not on is null.
struct Regular {
  const char* mask;  // [N,H]
  int64_t mask_row;  // bytes of one of its rows
  Operand zone_h;    // [T,N,H]
  Operand zone_c;    // LSTM
  char*
      masked;  // mask * h: a row for each n of the slice, as the steps go by; backward: for each processed row
  bool masked_by_row;  // the latter
  char* c_new;         // forward, zoneout of c: what the cell gives, a row for each n of the slice
  int64_t row;         // bytes of a row of masked, c_new
  void* du;            // backward, with a mask: [N][Hp] gradient of mask * h
};

// From which the tables are built, and what moves along while they are.
struct RowSource {
  Sequence seq;
  int64_t n_begin, n_end;  // the batch slice: places; others are counted for tape_row, not listed
  Operand x, y, dy, dx;
  const void** h_of;  // [N] where the state h of each place lies now; begins at h0 or at zero
  const void** c_of;  // [N] likewise c
  const void* zero;   // a row of zeros, as long as any
  char* c;            // rows of c, null if the cell has none
  int64_t c_row;      // bytes of one of them
  bool
      c_by_row;  // true: one for each processed row (tape); false: one for each n, updated in place
  int64_t c_steps;    // the latter: in new rows after every c_steps steps; the old ones stay
  char* spare;        // rows, one for each n, to write h into instead of y, which has it; or null
  int64_t spare_row;  // bytes of one of them
  int64_t tape_rows;  // rows counted so far
  const Regular* regular;  // null: neither recurrent dropout nor zoneout
};

// One of the threads that share a call's hidden units, phase by phase (team.hpp); size 1: alone, phases is not looked at.
struct Team {
  int member, size;
  void* phases;
  uint32_t phase;  // the one this member is in
  int64_t taken;   // items of it that this member has claimed
};

struct PackArgs;

struct ForwardArgs {
  Layout layout;
  Activation activation;
  RowSource* rows;
  int64_t begin, end;  // processing steps
  RowTables tables;    // room for chunk steps
  int64_t chunk;       // steps whose rows are tabled (and projected) together
  const void* packed;  // [panels][panel_size]
  const PackArgs*
      unpacked;  // or null. One step: packed is room for a panel, layout.panel_size 0, and each is packed before its use
  bool zero_state;   // h before step 0 is no row's: the product with U may be left out there
  int64_t depth;     // of that product, for the step under way: H or 0
  bool far;          // x enters the step's own product, from beyond L2
  int64_t ahead;     // then bytes from a row of x to the one that is fetched meanwhile, or 0
  void* projection;  // [panels][chunk*N][X*lanes], or null: x enters the step's own product
  void* gates;       // tape: [panels][R][4*lanes]; RNN: none. Null: not kept
  void* scratch;     // GRU with reset before: z, n and r*h, 3 x [slice][Hp]
  Team team;         // whose members share the panels
};

struct BackwardArgs {
  Layout layout;
  Activation activation;
  const RowSource* rows;
  int64_t begin, steps;  // processing steps [begin, begin+steps)
  RowTables tables;      // those steps
  const void* packed;    // backward panels of U, or null
  const void* weights;   // then U as it lies, [G*H,H]
  const void* gates;     // tape, as in ForwardArgs
  void*
      dgates;  // [panels][R][4*lanes]; may be the tape's gates themselves. RNN: [panels][R][<= 4*lanes]
  void* dh;        // [N][Hp] by place, inout: gradient of the state h between steps
  void* dc;        // [N][Hp] inout: likewise c (LSTM)
  void* rh;        // GRU with reset before: [R][Hp], r*h for dU
  void* drh;       // likewise: [N][Hp]
  Operand dh_all;  // [T,N,H] out: gradient of h after every step, dy included; absent: not wanted
  Operand dc_all;  // likewise c (LSTM), what comes by way of h included
  bool last_product;       // false: dh before the first step is not wanted
  bool far;                // what the cell reads comes from beyond L2
  int64_t n_begin, n_end;  // the batch slice; the tables hold all rows
  Team team;               // whose members share the hidden units, in blocks of 4*lanes
};

struct InputGradArgs {
  Layout layout;
  const void* packed;   // backward panels of W, or null
  const void* weights;  // then W as it lies, [G*H,I]
  const void* dgates;
  void* const* dx;  // [R] -> [I]
  bool accumulate;  // add to dx (second direction)
};

// Rows of x or h wider than outer_whole_bytes enter the gradients of weights in parts, copied a block at a time: see
// outer_product in kernels/gradients.hpp.
constexpr int64_t outer_whole_bytes = 1536, outer_part_bytes = 384, outer_part_rows = 512;

// Rows up to which dW is written in place (kernels/unpacked.hpp) rather than summed up by panels and transposed. A forward and
// backward with 24 to 48 rows took 0.76 to 0.95 of the time at I=H=256, 512, 1.0 at 64; with 100 rows 0.94 at I=H=1024, 0.96 at
// 512, 0.98 at 256, 1.0 at 128; with 200 to 400 rows 0.99 to 1.06 (LSTM, GRU and RNN, one thread, Zen 4).
constexpr int64_t unpacked_gradient_rows = 128;

struct WeightGradArgs {
  Layout layout;
  const void* dgates;
  const void* const* x;  // [R] -> [I]
  const void* const* h;  // [R] -> [H] what U multiplied
  const void* rh;        // GRU with reset before: [R][Hp]
  void* panels;          // sums: (X*I + U*H + 4) * Hp elements
  bool first, last;      // call of a row of calls: sums begin at zero; sums are written out
  void* copies;          // scratch: [outer_part_rows][outer_part_bytes], where I or H is that wide
  void* dw_ih;           // [G*H,I]
  void* dw_hh;           // [G*H,H]
  void* db_ih;           // [G*H] or null
  void* db_hh;           // [G*H] or null
  bool accumulate;
};

struct PackArgs {
  Layout layout;
  const void* w_ih;   // [G*H,I]
  const void* w_hh;   // [G*H,H]
  const void* b_ih;   // [G*H] or null
  const void* b_hh;   // [G*H] or null
  void* forward;      // [panels][panel_size], or null
  void* backward_hh;  // [Hp/(4*lanes)][U*H][4*lanes], or null
  void* backward_ih;  // [Ip/(4*lanes)][X*H][4*lanes], or null
};

// What one call of the forward kernel needs; lives while its tasks run.
struct ForwardCall {
  RowSource source;
  ForwardArgs args;
  Regular regular;
  PackArgs pack;
};

}  // namespace fastrnn
