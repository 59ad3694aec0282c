# find_package(fastrnn) where the Python package is installed: fastrnn.cmake_dir() is this folder.
#
#   fastrnn::headers   fastrnn/fastrnn.h and fastrnn/capsule.h. There is no library to link: an extension module takes the
#                      functions from the capsule, fastrnn_import() in capsule.h.

foreach(folder IN ITEMS "../include" "../../csrc/include") # installed, or in the source tree
  get_filename_component(fastrnn_INCLUDE_DIR "${CMAKE_CURRENT_LIST_DIR}/${folder}" ABSOLUTE)
  if(EXISTS "${fastrnn_INCLUDE_DIR}/fastrnn/fastrnn.h")
    break()
  endif()
endforeach()

set(fastrnn_headers_FOUND TRUE)
foreach(component IN LISTS fastrnn_FIND_COMPONENTS)
  if(fastrnn_FIND_REQUIRED_${component} AND NOT component STREQUAL "headers")
    set(fastrnn_FOUND FALSE)
    set(fastrnn_NOT_FOUND_MESSAGE "The Python package has no library '${component}', only fastrnn::headers. "
                                  "Build the library from source with -DFASTRNN_BUILD_PYTHON=OFF.")
  endif()
endforeach()

if(NOT TARGET fastrnn::headers)
  add_library(fastrnn::headers INTERFACE IMPORTED)
  set_target_properties(fastrnn::headers PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${fastrnn_INCLUDE_DIR}")
endif()
