// The one translation unit of the kernels, compiled once for each instruction set with its flags and FR_ISA = its name.
// It exports fastrnn::<isa>::table() and nothing else: a check in the build tree reads its symbols.
#include "../table.hpp"
#include "gradients.hpp"
#include "pack.hpp"
#include "probe.hpp"
#include "regular_backward.hpp"

#ifndef FR_ISA
#error "FR_ISA names the instruction set this unit is compiled for; cmake/isa.cmake sets it"
#endif

namespace fastrnn::FR_ISA {
namespace {

template <class C>
constexpr CellKernels kernels_of() {
  // An RNN's tape is its output, and a GRU asks each row whether it has a tape: both ways forward are one function.
  return {pack<C>,
          seq_forward<C, C::infer_keeps>,
          seq_forward<C, C::keeps_gates>,
          seq_backward<C>,
          input_grad<C>,
          weight_grad<C>,
          seq_step<C>,
          step_row<C>,
          group_panels<C>};
}

template <class T>
constexpr void fill(KernelTable& table, DType dtype) {
  const auto at = [&](Cell cell) -> CellKernels& {
    return table.cells[static_cast<int>(cell)][static_cast<int>(dtype)];
  };
  at(Cell::rnn) = kernels_of<Rnn<T>>();
  at(Cell::lstm) = kernels_of<Lstm<T>>();
  at(Cell::gru) = kernels_of<Gru<T>>();
  at(Cell::gru_reset_before) = kernels_of<GruResetBefore<T>>();
}

constexpr KernelTable make_table() {
  KernelTable table{};
  table.vector_bytes = vector_bytes;
  table.probe = {{probe_fma<float>, probe_fma<double>},
                 probe_read,
                 {2.0 * fma_chains * lanes<float>, 2.0 * fma_chains * lanes<double>},
                 read_chains * vector_bytes};
  fill<float>(table, DType::f32);
  fill<double>(table, DType::f64);
  return table;
}

constexpr KernelTable kernel_table = make_table();

}  // namespace

const KernelTable& table();
const KernelTable& table() { return kernel_table; }

}  // namespace fastrnn::FR_ISA
