# Called as: cmake -DNM=... -DLIBRARY=libfastrnn.so -DHEADER=fastrnn.h -P check_library_symbols.cmake
#
# The shared library shows the functions that the header declares, all of them and nothing else.

execute_process(COMMAND "${NM}" --dynamic --defined-only --format=posix "${LIBRARY}" OUTPUT_VARIABLE output
                COMMAND_ERROR_IS_FATAL ANY)
string(REGEX MATCHALL "[^\n]+" lines "${output}")
set(shown "")
foreach(line IN LISTS lines)
  string(REGEX REPLACE " .*$" "" name "${line}")
  list(APPEND shown "${name}")
endforeach()

file(READ "${HEADER}" text)
string(REGEX MATCHALL "\n[a-z][a-z0-9_ *]*[ *]fastrnn_[a-z_]+\\(" declarations "${text}")
set(declared "")
foreach(declaration IN LISTS declarations)
  string(REGEX MATCH "fastrnn_[a-z_]+\\($" name "${declaration}")
  string(REPLACE "(" "" name "${name}")
  list(APPEND declared "${name}")
endforeach()
list(SORT shown)
list(SORT declared)
if(declared STREQUAL "" OR NOT shown STREQUAL declared)
  message(FATAL_ERROR "${LIBRARY} shows\n  ${shown}\nbut ${HEADER} declares\n  ${declared}")
endif()
