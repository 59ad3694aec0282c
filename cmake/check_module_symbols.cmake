# Called as: cmake -DNM=... -DMODULE=_core.so -P check_module_symbols.cmake
#
# The extension module shows the dynamic linker PyInit__core and nothing else.

execute_process(COMMAND "${NM}" --dynamic --defined-only --format=posix "${MODULE}" OUTPUT_VARIABLE output
                COMMAND_ERROR_IS_FATAL ANY)
string(REGEX MATCHALL "[^\n]+" lines "${output}")
set(names "")
foreach(line IN LISTS lines)
  string(REGEX REPLACE " .*$" "" name "${line}")
  list(APPEND names "${name}")
endforeach()
if(NOT names STREQUAL "PyInit__core")
  message(FATAL_ERROR "${MODULE} must export PyInit__core only, but exports: ${names}")
endif()
