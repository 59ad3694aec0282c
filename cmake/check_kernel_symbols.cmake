# Called as: cmake -DNM=... -DISA=avx2 -DOBJECT=isa_main.cpp.o -P check_kernel_symbols.cmake
#
# The linker keeps one copy of a weak symbol (an inline function, a template instance) for the whole program, taken
# from any object that has it. If the copy compiled for AVX-512 wins, base code that calls it dies on an older CPU.
# So a kernel object may define one global, its table, and may use nothing but functions of the core (fastrnn::, which
# are compiled once, for any CPU) and the C library's memory functions.

foreach(argument NM ISA OBJECT)
  if(NOT ${argument})
    message(FATAL_ERROR "missing -D${argument}=...")
  endif()
endforeach()

execute_process(COMMAND "${NM}" --extern-only --demangle "${OBJECT}" OUTPUT_VARIABLE output COMMAND_ERROR_IS_FATAL ANY)
string(REPLACE "\n" ";" lines "${output}")

set(tables 0)
set(faults "")
foreach(line IN LISTS lines)
  if(line STREQUAL "")
    continue()
  elseif(line MATCHES "^ *U (.*)$")
    set(used "${CMAKE_MATCH_1}")
    if(NOT used MATCHES "^(_?mem(cpy|move|set|cmp)|__mem(cpy|move|set)_chk|_GLOBAL_OFFSET_TABLE_|fastrnn::build_rows\\(.*|_*stack_chk_fail)$"
       AND NOT used MATCHES "^fastrnn::[a-z_]+\\(")
      string(APPEND faults "  uses    ${used}\n")
    endif()
  elseif(line MATCHES "^[0-9a-f]+ T _?fastrnn::${ISA}::table\\(\\)$")
    math(EXPR tables "${tables} + 1")
  else()
    string(APPEND faults "  defines ${line}\n")
  endif()
endforeach()

if(NOT tables EQUAL 1)
  string(APPEND faults "  defines fastrnn::${ISA}::table() ${tables} times\n")
endif()
if(faults)
  message(FATAL_ERROR "${OBJECT} may define fastrnn::${ISA}::table() and no other global, weak or not, but it\n${faults}")
endif()
message(STATUS "${ISA}: one global, fastrnn::${ISA}::table()")
