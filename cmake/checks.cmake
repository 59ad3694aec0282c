# Checks on what was compiled, run by CTest in the build tree.

foreach(isa IN LISTS FASTRNN_ISAS)
  add_test(NAME symbols_${isa}
           COMMAND "${CMAKE_COMMAND}" "-DNM=${CMAKE_NM}" "-DISA=${isa}"
                   "-DOBJECT=$<TARGET_OBJECTS:fastrnn_kernels_${isa}>" -P
                   "${PROJECT_SOURCE_DIR}/cmake/check_kernel_symbols.cmake")
endforeach()
if(TARGET _core AND NOT APPLE)
  add_test(NAME symbols_module
           COMMAND "${CMAKE_COMMAND}" "-DNM=${CMAKE_NM}" "-DMODULE=$<TARGET_FILE:_core>" -P
                   "${PROJECT_SOURCE_DIR}/cmake/check_module_symbols.cmake")
endif()
