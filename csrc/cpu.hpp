// Which instruction sets were built, which can run here, and which is active.
#pragma once

#include "fastrnn/fastrnn.h"
#include "table.hpp"

namespace fastrnn {

int isa_count() noexcept;
const char* isa_name(int index) noexcept;
bool isa_runnable(int index) noexcept;
fastrnn_status isa_active(int& index) noexcept;
fastrnn_status isa_set(const char* name) noexcept;
const KernelTable& isa_table(int index) noexcept;

}  // namespace fastrnn
