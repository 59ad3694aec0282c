# The core without Python: libfastrnn.so and libfastrnn.a, the header, a CMake package and a pkg-config file.
#
#   fastrnn::shared  fastrnn::static  fastrnn::headers    and fastrnn::fastrnn, which is one of the first two: see
#                                                         cmake/fastrnn-config.cmake.in

include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

# Names are only added to the interface: a program linked against this number runs with every later library that has it.
file(STRINGS csrc/include/fastrnn/fastrnn.h line REGEX "^#define FASTRNN_ABI_VERSION [0-9]+$")
string(REGEX MATCH "[0-9]+$" FASTRNN_ABI "${line}")

add_library(fastrnn_shared SHARED ${FASTRNN_OBJECTS})
add_library(fastrnn_static STATIC ${FASTRNN_OBJECTS})
add_library(fastrnn_headers INTERFACE)
set(includes "$<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/csrc/include>" "$<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>")
set_target_properties(fastrnn_shared fastrnn_static PROPERTIES OUTPUT_NAME fastrnn LINKER_LANGUAGE CXX)
foreach(kind IN ITEMS shared static headers)
  set_target_properties(fastrnn_${kind} PROPERTIES EXPORT_NAME ${kind})
  target_include_directories(fastrnn_${kind} INTERFACE ${includes})
  add_library(fastrnn::${kind} ALIAS fastrnn_${kind})
endforeach()
# In a tree that takes this one in with add_subdirectory; the installed package decides likewise.
if(DEFINED BUILD_SHARED_LIBS AND NOT BUILD_SHARED_LIBS)
  add_library(fastrnn::fastrnn ALIAS fastrnn_static)
else()
  add_library(fastrnn::fastrnn ALIAS fastrnn_shared)
endif()

set_target_properties(fastrnn_shared PROPERTIES VERSION "${FASTRNN_ABI}.${PROJECT_VERSION}" SOVERSION "${FASTRNN_ABI}")
target_link_libraries(fastrnn_shared PRIVATE Threads::Threads)
target_link_libraries(fastrnn_static PUBLIC Threads::Threads)
# A program in C links the static library with a C compiler, which knows nothing of the C++ library.
if(APPLE OR CMAKE_CXX_COMPILE_OPTIONS_STDLIB MATCHES "libc")
  set(FASTRNN_CXX_LIBRARY c++)
else()
  set(FASTRNN_CXX_LIBRARY stdc++)
endif()
target_link_libraries(fastrnn_static INTERFACE $<$<LINK_LANGUAGE:C>:${FASTRNN_CXX_LIBRARY}>)

if(NOT APPLE)
  set(exports "${PROJECT_SOURCE_DIR}/cmake/library.map")
  target_link_options(fastrnn_shared PRIVATE "-Wl,--version-script=${exports}" -Wl,--gc-sections)
  set_target_properties(fastrnn_shared PROPERTIES LINK_DEPENDS "${exports}")
endif()

install(TARGETS fastrnn_shared fastrnn_static fastrnn_headers EXPORT fastrnn-targets COMPONENT library)
install(FILES csrc/include/fastrnn/fastrnn.h DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}/fastrnn" COMPONENT library)

set(package "${CMAKE_INSTALL_LIBDIR}/cmake/fastrnn")
install(EXPORT fastrnn-targets NAMESPACE fastrnn:: DESTINATION "${package}" COMPONENT library)
configure_package_config_file(cmake/fastrnn-config.cmake.in "${CMAKE_CURRENT_BINARY_DIR}/generated/fastrnn-config.cmake"
                              INSTALL_DESTINATION "${package}")
write_basic_package_version_file("${CMAKE_CURRENT_BINARY_DIR}/generated/fastrnn-config-version.cmake"
                                 COMPATIBILITY SameMinorVersion)
# From the folder of the pkg-config file to the prefix, so that an installed tree may be moved.
file(RELATIVE_PATH FASTRNN_PC_PREFIX "/${CMAKE_INSTALL_LIBDIR}/pkgconfig" "/")
configure_file(cmake/fastrnn.pc.in "${CMAKE_CURRENT_BINARY_DIR}/generated/fastrnn.pc" @ONLY)
install(FILES "${CMAKE_CURRENT_BINARY_DIR}/generated/fastrnn-config.cmake"
              "${CMAKE_CURRENT_BINARY_DIR}/generated/fastrnn-config-version.cmake"
        DESTINATION "${package}" COMPONENT library)
install(FILES "${CMAKE_CURRENT_BINARY_DIR}/generated/fastrnn.pc" DESTINATION "${CMAKE_INSTALL_LIBDIR}/pkgconfig"
        COMPONENT library)
