# The instruction sets, in ascending order: this list is the only one.
#
# A new level is one name in FASTRNN_ISAS, its flags below, and its CPUID test in csrc/cpu.cpp.
# `base` takes no flags: what every CPU of the architecture can run.

set(FASTRNN_ISAS base)
set(FASTRNN_ISA_FLAGS_base "")

include(CheckCXXSourceCompiles)
check_cxx_source_compiles(
  "#if !defined(__x86_64__)\n#error another architecture\n#endif\nint main() { return 0; }" FASTRNN_TARGET_IS_X86_64)

if(FASTRNN_TARGET_IS_X86_64)
  list(APPEND FASTRNN_ISAS avx2 avx512)
  set(FASTRNN_ISA_SMALL_base ON) # for CPUs of before 2013: optimised for size, a wheel 100 KB smaller
  set(FASTRNN_ISA_FLAGS_avx2 -mavx2 -mfma -mbmi -mbmi2 -mf16c)
  set(FASTRNN_ISA_FLAGS_avx512
      ${FASTRNN_ISA_FLAGS_avx2}
      -mavx512f
      -mavx512vl
      -mavx512bw
      -mavx512dq
      -mavx512cd
      -mprefer-vector-width=512)
endif()

# csrc/cpu.cpp includes the rows with its own FR_ISA_ROW.
set(rows "")
foreach(isa IN LISTS FASTRNN_ISAS)
  string(APPEND rows "FR_ISA_ROW(${isa})\n")
endforeach()
file(CONFIGURE OUTPUT "${CMAKE_CURRENT_BINARY_DIR}/generated/fastrnn_isas.inc" CONTENT "${rows}" @ONLY)
