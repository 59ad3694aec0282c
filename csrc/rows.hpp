// Which rows a step works on, and where they lie. Knows lengths, resets, masks and direction; no dtype, no instruction set.
#pragma once

#include "types.hpp"

namespace fastrnn {

// Fills the tables for processing steps [begin, end) and moves source.h_of, c_of and tape_rows along.
// Entries whose operand is absent are null.
void build_rows(RowSource& source, int64_t begin, int64_t end, RowTables& tables) noexcept;

// Bytes from a row of x at a processing step to where it lies at a later one; 0 if that is not before `end`.
int64_t bytes_ahead(const RowSource& source, int64_t step, int64_t later, int64_t end) noexcept;

// Bytes of tables for that many rows and steps, and the tables laid out in memory [bytes], 8-byte aligned.
int64_t row_tables_bytes(int64_t rows, int64_t steps, bool held, bool regular) noexcept;
RowTables row_tables_in(void* memory, int64_t rows, int64_t steps, bool held,
                        bool regular) noexcept;

}  // namespace fastrnn
