# Checks on what was compiled, run by CTest in the build tree.

foreach(isa IN LISTS FASTRNN_ISAS)
  add_test(NAME symbols_${isa}
           COMMAND "${CMAKE_COMMAND}" "-DNM=${CMAKE_NM}" "-DISA=${isa}"
                   "-DOBJECT=$<TARGET_OBJECTS:fastrnn_kernels_${isa}>" -P
                   "${PROJECT_SOURCE_DIR}/cmake/check_kernel_symbols.cmake")
endforeach()

# The inner loops of the tiles, where the instruction set has a fused multiply-add and x86's mnemonics. `base` on x86 has
# 16 registers and needs one more for each product: what an accumulator on the stack costs there is not worth a smaller tile.
find_package(Python 3.10 REQUIRED COMPONENTS Interpreter)
add_test(NAME tiles_parser COMMAND "${Python_EXECUTABLE}" "${PROJECT_SOURCE_DIR}/cmake/check_tiles.py" --self-test)
foreach(isa IN LISTS FASTRNN_ISAS)
  if(NOT isa MATCHES "^avx" OR CMAKE_BUILD_TYPE STREQUAL "Debug" OR NOT CMAKE_OBJDUMP)
    message(STATUS "Tiles of ${isa}: not checked")
    continue()
  endif()
  add_test(NAME tiles_${isa}
           COMMAND "${Python_EXECUTABLE}" "${PROJECT_SOURCE_DIR}/cmake/check_tiles.py" --objdump "${CMAKE_OBJDUMP}"
                   --isa ${isa} --object "$<TARGET_OBJECTS:fastrnn_kernels_${isa}>")
endforeach()

if(TARGET _core AND NOT APPLE)
  add_test(NAME symbols_module
           COMMAND "${CMAKE_COMMAND}" "-DNM=${CMAKE_NM}" "-DMODULE=$<TARGET_FILE:_core>" -P
                   "${PROJECT_SOURCE_DIR}/cmake/check_module_symbols.cmake")
endif()

if(TARGET fastrnn_shared AND NOT APPLE)
  add_test(NAME symbols_library
           COMMAND "${CMAKE_COMMAND}" "-DNM=${CMAKE_NM}" "-DLIBRARY=$<TARGET_FILE:fastrnn_shared>"
                   "-DHEADER=${PROJECT_SOURCE_DIR}/csrc/include/fastrnn/fastrnn.h" -P
                   "${PROJECT_SOURCE_DIR}/cmake/check_library_symbols.cmake")
endif()

# The C interface, from C: the header is C99, and bad arguments get a status.
enable_language(C)
add_executable(test_api tests/core/test_api.c ${FASTRNN_OBJECTS})
set_target_properties(test_api PROPERTIES C_STANDARD 99 C_EXTENSIONS OFF LINKER_LANGUAGE CXX)
target_compile_options(test_api PRIVATE $<$<COMPILE_LANGUAGE:C>:-Wall -Wextra -pedantic -Werror>)
target_include_directories(test_api PRIVATE csrc/include)
target_link_libraries(test_api PRIVATE Threads::Threads)
add_test(NAME core_api COMMAND test_api)

# Random problems: the same bits for any number of threads, nothing written outside of the buffers.
add_executable(test_random tests/core/test_random.cpp ${FASTRNN_OBJECTS})
target_compile_options(test_random PRIVATE -Wall -Wextra -Wconversion -Wshadow -Werror)
target_include_directories(test_random PRIVATE csrc/include)
target_link_libraries(test_random PRIVATE Threads::Threads)
add_test(NAME core_random COMMAND test_random)

# The wavefront: its order, and what follows a call that was held up.
add_executable(test_wavefront tests/core/test_wavefront.cpp ${FASTRNN_OBJECTS})
target_compile_options(test_wavefront PRIVATE -Wall -Wextra -Wconversion -Wshadow -Werror)
target_include_directories(test_wavefront PRIVATE csrc csrc/include)
target_link_libraries(test_wavefront PRIVATE Threads::Threads)
target_compile_features(test_wavefront PRIVATE cxx_std_20)
add_test(NAME core_wavefront COMMAND test_wavefront)
set_tests_properties(core_wavefront PROPERTIES SKIP_RETURN_CODE 77)

# Steps that a real-time thread may take. A sanitizer has allocation functions, and system calls, of its own.
if(NOT FASTRNN_SANITIZE)
  add_executable(test_realtime tests/core/test_realtime.c ${FASTRNN_OBJECTS})
  set_target_properties(test_realtime PROPERTIES C_STANDARD 11 LINKER_LANGUAGE CXX)
  target_compile_options(test_realtime PRIVATE $<$<COMPILE_LANGUAGE:C>:-Wall -Wextra -Werror -fno-builtin>)
  target_include_directories(test_realtime PRIVATE csrc/include)
  target_link_libraries(test_realtime PRIVATE Threads::Threads)
  add_test(NAME core_realtime COMMAND test_realtime)
  set_tests_properties(core_realtime PROPERTIES SKIP_RETURN_CODE 77)
endif()
