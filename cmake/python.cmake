# The extension module fastrnn.backends._core: src/fastrnn/backends/_core.pyx over the objects of csrc/.

# A virtual environment that is active wins over any other Python on the machine.
set(Python_FIND_VIRTUALENV FIRST)
find_package(Python 3.10 REQUIRED COMPONENTS Interpreter Development.Module NumPy)

set(pyx "${PROJECT_SOURCE_DIR}/src/fastrnn/backends/_core.pyx")
set(generated "${CMAKE_CURRENT_BINARY_DIR}/_core.cpp")
add_custom_command(
  OUTPUT "${generated}"
  COMMAND "${Python_EXECUTABLE}" -m cython -3 --cplus --depfile --module-name fastrnn.backends._core
          "${pyx}" -o "${generated}"
  DEPENDS "${pyx}"
  DEPFILE "${generated}.dep"
  COMMENT "Cython: _core.pyx"
  VERBATIM)

python_add_library(_core MODULE WITH_SOABI "${generated}" ${FASTRNN_OBJECTS})
target_include_directories(_core PRIVATE csrc/include)
target_link_libraries(_core PRIVATE Python::NumPy Threads::Threads)
# Not CMake's -O3: one step of an LSTM of 8 or 64 units takes 0.88 to 1.01 of the time, and a wheel is 16 KB smaller. -Os: 0.97 to 1.04.
target_compile_options(_core PRIVATE $<$<NOT:$<CONFIG:Debug>>:-O2>)
# The C API of NumPy 1.24, the oldest we allow: the module loads on every later one.
target_compile_definitions(_core PRIVATE NPY_NO_DEPRECATED_API=NPY_1_7_API_VERSION
                                         NPY_TARGET_VERSION=NPY_1_23_API_VERSION)
set_target_properties(_core PROPERTIES CXX_VISIBILITY_PRESET hidden VISIBILITY_INLINES_HIDDEN ON)

# Only PyInit__core, and a byte that nobody reads but whose name tells this module from others called _core, are visible: a second copy of anything inside (libstdc++ templates included) stays private.
if(APPLE)
  target_link_options(_core PRIVATE -Wl,-exported_symbol,_PyInit__core -Wl,-exported_symbol,_fastrnn_python_core)
else()
  set(exports "${PROJECT_SOURCE_DIR}/cmake/exports.map")
  target_link_options(_core PRIVATE "-Wl,--version-script=${exports}" -Wl,--gc-sections)
  set_target_properties(_core PROPERTIES LINK_DEPENDS "${exports}")
endif()

if(FASTRNN_DEV_INPLACE)
  set_target_properties(_core PROPERTIES LIBRARY_OUTPUT_DIRECTORY "${PROJECT_SOURCE_DIR}/src/fastrnn/backends")
endif()

# Paths are relative to the root of the wheel.
install(TARGETS _core LIBRARY DESTINATION fastrnn/backends COMPONENT python)
install(DIRECTORY csrc/include/ DESTINATION fastrnn/include COMPONENT python)
include(CMakePackageConfigHelpers)
write_basic_package_version_file("${CMAKE_CURRENT_BINARY_DIR}/generated/wheel-version.cmake"
                                 VERSION "${PROJECT_VERSION}" COMPATIBILITY SameMinorVersion)
install(FILES cmake/wheel/fastrnn-config.cmake DESTINATION fastrnn/cmake COMPONENT python)
install(FILES "${CMAKE_CURRENT_BINARY_DIR}/generated/wheel-version.cmake" DESTINATION fastrnn/cmake
        RENAME fastrnn-config-version.cmake COMPONENT python)
