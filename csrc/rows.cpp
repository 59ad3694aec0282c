#include "rows.hpp"

#include <cstring>

#include "sequence.hpp"

namespace fastrnn {
namespace {

constexpr int64_t pointer_tables = 8, pointer_tables_held = 5,  // 8-byte entries a row / a held row
    pointer_tables_regular = 2;

// Indices of (t, n) in arrays.
struct Place {
  int64_t step, row;
};

char* at(const Operand& operand, Place p) {
  return operand.base == nullptr ? nullptr
                                 : operand.base + p.step * operand.step + p.row * operand.row;
}

// Does a reset separate row n's step t from the one processed before it? Reverse: the boundary between t and t+1.
bool is_cut(const Sequence& seq, int64_t t, int64_t n) {
  if (seq.reset == nullptr) return false;
  const int64_t boundary = seq.reverse ? t + 1 : t;
  const int64_t length = seq.lengths != nullptr ? seq.lengths[n] : seq.T;
  return boundary < length && seq.reset[flag_at(seq, boundary, n)] != 0;
}

// A member of a team that comes late looks at the steps of a chunk that may be over (first_row in seq_forward.hpp).
void note(int64_t& to, int64_t value) { __atomic_store_n(&to, value, __ATOMIC_RELEASE); }

struct Cursor {
  int64_t row, held;
  int64_t step;  // the step's first row
};

// checkpoint: the first row of c for states that are updated in place.
void add_row(RowSource& source, const RowTables& tables, Cursor& at_row, int64_t t, int64_t place,
             int64_t checkpoint) {
  const Sequence& seq = source.seq;
  const int64_t n = row_at(seq, place);
  const Place where{step_of(seq, t), row_of(seq, n)};
  const bool cut = is_cut(seq, t, n);
  const void* h = cut ? source.zero : source.h_of[place];
  char* y = at(source.y, where);
  char* to = source.spare == nullptr ? y : source.spare + place * source.spare_row;
  if (!is_processed(seq, t, n)) {
    const int64_t i = at_row.held++;
    tables.held_h[i] = h;
    tables.held_y[i] = to;
    tables.held_dy[i] = at(source.dy, where);
    tables.held_n[i] = place;
    tables.held_cut[i] = cut;
    source.h_of[place] = h;
    if (cut && source.c != nullptr) source.c_of[place] = source.zero;
    return;
  }
  const int64_t i = at_row.row++;
  tables.x[i] = at(source.x, where);
  tables.h[i] = h;
  tables.y[i] = to;
  source.h_of[place] = y;
  if (source.c != nullptr) {
    tables.c_in[i] = cut ? source.zero : source.c_of[place];
    const int64_t row = source.c_by_row ? source.tape_rows + i - at_row.step : checkpoint + place;
    void* c = source.c + row * source.c_row;
    tables.c_out[i] = c;
    source.c_of[place] = c;
  }
  tables.dy[i] = at(source.dy, where);
  tables.dx[i] = at(source.dx, where);
  tables.n[i] = place;
  tables.cut[i] = cut;
}

// What differs where recurrent dropout or zoneout is on. A state that is zero needs no product with the mask.
void add_regular(const RowSource& source, int64_t rows, const RowTables& tables) {
  const Regular& regular = *source.regular;
  for (int64_t i = 0; i < rows; ++i) {
    const int64_t n = tables.n[i] - source.n_begin;
    tables.u[i] = tables.h[i];
    if (regular.mask != nullptr && tables.h[i] != source.zero)
      tables.u[i] = regular.masked + (regular.masked_by_row ? i : n) * regular.row;
    if (regular.c_new == nullptr) continue;
    tables.c_to[i] = tables.c_out[i];
    tables.c_out[i] = regular.c_new + n * regular.row;
  }
}

// A place at a time: rows may end, be cut, held or packed.
void build_each(RowSource& moved, int64_t begin, int64_t end, const RowTables& filled) {
  // Copies: every store to a table could change what lies behind a reference, and a small layer's step is 250 cycles long.
  RowSource source = moved;
  const RowTables tables = filled;
  const Sequence& seq = source.seq;
  Cursor cursor{0, 0, 0};
  for (int64_t s = begin; s < end; ++s) {
    const int64_t checkpoint = source.c_by_row ? 0 : s / source.c_steps * seq.N;
    const int64_t t = seq.reverse ? seq.T - 1 - s : s;
    const int64_t alive = alive_at(seq, t);
    const int64_t first = source.n_begin < alive ? source.n_begin : alive,
                  last = source.n_end < alive ? source.n_end : alive;
    note(tables.first[s - begin], cursor.row);
    if (tables.held_first != nullptr) tables.held_first[s - begin] = cursor.held;
    source.tape_rows += count_processed(seq, t, 0, first);
    tables.tape_row[s - begin] = source.tape_rows;
    cursor.step = cursor.row;
    for (int64_t place = first; place < last; ++place)
      add_row(source, tables, cursor, t, place, checkpoint);
    source.tape_rows += cursor.row - cursor.step + count_processed(seq, t, last, alive);
  }
  note(tables.first[end - begin], cursor.row);
  if (tables.held_first != nullptr) tables.held_first[end - begin] = cursor.held;
  moved.tape_rows = source.tape_rows;
}

// Every place of the slice has every step, so that each table is a grid of addresses, filled in a loop of its own: 2 instead of
// 13 ns a row, of the 60 that a step of LSTM 1->16 computes (Zen 4).
struct Grid {
  int64_t steps, rows;
};

// to [steps][rows] = base + s*step + n*row.
template <class Pointer>
void fill(Pointer* to, char* base, int64_t step, int64_t row, Grid grid) {
  if (grid.rows == 1) {  // one loop, not one of one turn in each step
    grid = {1, grid.steps};
    row = step;
  }
  for (int64_t s = 0; s < grid.steps; ++s, to += grid.rows, base += step) {
    char* at = base;
    for (int64_t n = 0; n < grid.rows; ++n, at += row) to[n] = at;
  }
}

// State before each step: that before the first, then what the steps wrote; and what the last wrote becomes `state` [rows].
void chain(const void** in, void* const* out, const void** state, Grid grid) {
  if (grid.steps == 0) return;
  const size_t row = static_cast<size_t>(grid.rows) * sizeof *in;
  const int64_t last = (grid.steps - 1) * grid.rows;
  std::memcpy(in, state, row);
  std::memcpy(in + grid.rows, out, row * static_cast<size_t>(grid.steps - 1));
  std::memcpy(state, out + last, row);
}

void fill_c(const RowSource& source, int64_t begin, int64_t end, const RowTables& tables,
            Grid grid) {
  const auto c_at = [&](int64_t row) { return source.c + (row + source.n_begin) * source.c_row; };
  if (source.c_by_row) {
    fill(tables.c_out, c_at(source.tape_rows), source.seq.N * source.c_row, source.c_row, grid);
  } else {
    for (int64_t s = begin, next = 0; s < end; s = next) {
      const int64_t checkpoint = s / source.c_steps, after = (checkpoint + 1) * source.c_steps;
      next = after < end ? after : end;
      fill(tables.c_out + (s - begin) * grid.rows, c_at(checkpoint * source.seq.N), 0, source.c_row,
           {next - s, grid.rows});
    }
  }
  chain(tables.c_in, tables.c_out, source.c_of + source.n_begin, grid);
}

void build_grid(RowSource& source, int64_t begin, int64_t end, const RowTables& tables) {
  const Sequence& seq = source.seq;
  const Grid grid{end - begin, source.n_end - source.n_begin};
  const int64_t t = seq.reverse ? seq.T - 1 - begin : begin;
  const auto fill_from = [&](auto* to, const Operand& a) {
    if (a.base == nullptr) return fill(to, nullptr, 0, 0, grid);
    fill(to, a.base + t * a.step + source.n_begin * a.row, seq.reverse ? -a.step : a.step, a.row,
         grid);
  };
  fill_from(tables.x, source.x);
  fill_from(tables.dy, source.dy);
  fill_from(tables.dx, source.dx);
  fill_from(tables.y, source.y);
  chain(tables.h, tables.y, source.h_of + source.n_begin, grid);
  if (source.spare != nullptr)
    fill(tables.y, source.spare + source.n_begin * source.spare_row, 0, source.spare_row, grid);
  if (source.c != nullptr) fill_c(source, begin, end, tables, grid);
  for (int64_t s = 0, i = 0; s < grid.steps; ++s) {
    note(tables.first[s], i);
    tables.tape_row[s] = source.tape_rows + source.n_begin;
    source.tape_rows += seq.N;
    for (int64_t n = source.n_begin; n < source.n_end; ++n) tables.n[i++] = n;
  }
  const int64_t rows = grid.steps * grid.rows;
  note(tables.first[grid.steps], rows);
  std::memset(tables.cut, 0, static_cast<size_t>(rows));
  if (tables.held_first != nullptr)
    std::memset(tables.held_first, 0,
                static_cast<size_t>(grid.steps + 1) * sizeof *tables.held_first);
}

}  // namespace

void build_rows(RowSource& source, int64_t begin, int64_t end, RowTables& tables) noexcept {
  const Sequence& seq = source.seq;
  const bool plain = seq.lengths == nullptr && seq.row_of == nullptr && seq.step_of == nullptr &&
                     seq.reset == nullptr && seq.mask == nullptr;
  (plain ? build_grid : build_each)(source, begin, end, tables);
  if (source.regular != nullptr) add_regular(source, tables.first[end - begin], tables);
}

int64_t bytes_ahead(const RowSource& source, int64_t step, int64_t later, int64_t end) noexcept {
  if (later >= end) return 0;
  const Sequence& seq = source.seq;
  const auto place = [&](int64_t i) { return step_of(seq, seq.reverse ? seq.T - 1 - i : i); };
  return (place(later) - place(step)) * source.x.step;
}

int64_t row_tables_bytes(int64_t rows, int64_t steps, bool held, bool regular) noexcept {
  const int64_t flags = (rows + 7) / 8;  // cut, in 8-byte units
  int64_t words = pointer_tables * rows + flags + (steps + 1) + steps;
  if (held) words += pointer_tables_held * rows + (steps + 1);
  if (regular) words += pointer_tables_regular * rows;
  return words * 8;
}

RowTables row_tables_in(void* memory, int64_t rows, int64_t steps, bool held,
                        bool regular) noexcept {
  static_assert(sizeof(void*) <= 8, "the tables are laid out in 8-byte units");
  char* next = static_cast<char*>(memory);
  const auto take = [&next](int64_t words) {
    char* p = next;
    next += words * 8;
    return static_cast<void*>(p);
  };
  RowTables t{};
  t.x = static_cast<const void**>(take(rows));
  t.h = static_cast<const void**>(take(rows));
  t.y = static_cast<void**>(take(rows));
  t.c_in = static_cast<const void**>(take(rows));
  t.c_out = static_cast<void**>(take(rows));
  t.dy = static_cast<const void**>(take(rows));
  t.dx = static_cast<void**>(take(rows));
  t.n = static_cast<int64_t*>(take(rows));
  t.cut = static_cast<uint8_t*>(take((rows + 7) / 8));
  t.first = static_cast<int64_t*>(take(steps + 1));
  t.tape_row = static_cast<int64_t*>(take(steps));
  t.u = regular ? static_cast<const void**>(take(rows)) : t.h;
  if (regular) t.c_to = static_cast<void**>(take(rows));
  if (held) {
    t.held_h = static_cast<const void**>(take(rows));
    t.held_y = static_cast<void**>(take(rows));
    t.held_dy = static_cast<const void**>(take(rows));
    t.held_n = static_cast<int64_t*>(take(rows));
    t.held_cut = static_cast<uint8_t*>(take(rows));
    t.held_first = static_cast<int64_t*>(take(steps + 1));
  }
  return t;
}

}  // namespace fastrnn
