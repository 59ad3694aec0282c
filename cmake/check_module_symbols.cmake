# Called as: cmake -DNM=... -DMODULE=_core.so -P check_module_symbols.cmake
#
# The extension module shows the dynamic linker PyInit__core, the mark that threadpoolctl knows it by, and nothing else.

execute_process(COMMAND "${NM}" --dynamic --defined-only --format=posix "${MODULE}" OUTPUT_VARIABLE output
                COMMAND_ERROR_IS_FATAL ANY)
string(REGEX MATCHALL "[^\n]+" lines "${output}")
set(names "")
foreach(line IN LISTS lines)
  string(REGEX REPLACE " .*$" "" name "${line}")
  list(APPEND names "${name}")
endforeach()
list(SORT names)
if(NOT names STREQUAL "PyInit__core;fastrnn_python_core")
  message(FATAL_ERROR "${MODULE} must export PyInit__core and fastrnn_python_core only, but exports: ${names}")
endif()
