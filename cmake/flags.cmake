# Flags of everything under csrc/ (never of the code that Cython generates).

add_library(fastrnn_flags INTERFACE)
target_compile_options(
  fastrnn_flags
  INTERFACE
    $<$<NOT:$<CONFIG:Debug>>:$<IF:$<BOOL:$<TARGET_PROPERTY:FASTRNN_SMALL>>,-Os,-O2>> # loops are unrolled where it pays; -O3: 0.99 to 1.01 of the time, a binary a third larger
    # No exception passes a kernel: what its unwind tables serve are profilers and debuggers, seldom where small code runs.
    "$<$<AND:$<NOT:$<CONFIG:Debug>>,$<BOOL:$<TARGET_PROPERTY:FASTRNN_SMALL>>>:-fno-asynchronous-unwind-tables;-fno-unwind-tables>"
    -ffp-contract=off # fused multiply-add only where vec.hpp writes one: the same bits on every compiler
    -fno-math-errno
    -fno-trapping-math # but never -ffast-math: NaN and infinity must come through
    -fno-exceptions
    -fno-rtti
    -fvisibility=hidden
    -fvisibility-inlines-hidden
    -Wall
    -Wextra
    -Wconversion
    -Wshadow
    -Wno-psabi # wide vectors are passed between inlined functions only, so their calling convention is moot
    $<$<BOOL:${FASTRNN_WERROR}>:-Werror>)
