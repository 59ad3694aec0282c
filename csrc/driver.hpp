// Layers x directions x batch slices: calls the kernel table, knows no instruction set and no cell.
#pragma once

#include "fastrnn/fastrnn.h"
#include "memory.hpp"

namespace fastrnn {

void run_pack(const Plan& plan, const void* weights, void* packed, void* packed_backward) noexcept;
fastrnn_status run_forward(const Plan& plan, const fastrnn_forward_args& args,
                           const ForwardMemory& memory) noexcept;
fastrnn_status run_backward(const Plan& plan, const fastrnn_backward_args& args,
                            const BackwardMemory& memory) noexcept;

}  // namespace fastrnn
