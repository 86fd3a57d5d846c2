# Finds torch's headers and CPU libraries: all that a build without CUDA kernels, and a program, need of torch.
#
# torch's own package asks for the CUDA toolkit wherever torch is a CUDA build, which is what pip installs on
# Linux. Its folder is looked for as find_package(Torch) would (Torch_DIR, CMAKE_PREFIX_PATH, HINTS in
# LibTorch_HINTS), but nothing of it is run.
#
# Defines the target LibTorch::LibTorch and LibTorch_FOUND, LibTorch_VERSION (no local label such as "+cpu"),
# LibTorch_INCLUDE_DIRS and LibTorch_LIBRARY_DIR.
include(FindPackageHandleStandardArgs)

# Nothing is cached: a build folder follows when it is configured with another torch.
find_file(LibTorch_CONFIG TorchConfig.cmake NO_CACHE
          HINTS ${Torch_DIR} ${Torch_ROOT} ENV Torch_DIR ENV Torch_ROOT
          PATHS ${CMAKE_PREFIX_PATH} ENV CMAKE_PREFIX_PATH ${LibTorch_HINTS}
          PATH_SUFFIXES Torch cmake/Torch share/cmake/Torch)
if(LibTorch_CONFIG)
  cmake_path(GET LibTorch_CONFIG PARENT_PATH LibTorch_folder)
  file(STRINGS "${LibTorch_folder}/TorchConfigVersion.cmake" LibTorch_VERSION REGEX "set\\(PACKAGE_VERSION ")
  string(REGEX REPLACE "^[^\"]*\"([0-9.]*).*" "\\1" LibTorch_VERSION "${LibTorch_VERSION}")
  # <root>/share/cmake/Torch/TorchConfig.cmake
  cmake_path(SET LibTorch_root NORMALIZE "${LibTorch_folder}/../../..")
  set(LibTorch_LIBRARY_DIR "${LibTorch_root}/lib")
  set(LibTorch_INCLUDE_DIRS "${LibTorch_root}/include" "${LibTorch_root}/include/torch/csrc/api/include")
  foreach(name IN ITEMS torch torch_cpu c10)
    find_library(LibTorch_${name} ${name} PATHS "${LibTorch_LIBRARY_DIR}" NO_DEFAULT_PATH NO_CACHE)
  endforeach()
endif()

find_package_handle_standard_args(
  LibTorch
  REQUIRED_VARS LibTorch_CONFIG LibTorch_torch LibTorch_torch_cpu LibTorch_c10
  VERSION_VAR LibTorch_VERSION
  REASON_FAILURE_MESSAGE
    "CMAKE_PREFIX_PATH has to name torch's folder: what Python's torch.utils.cmake_prefix_path says")

if(LibTorch_FOUND AND NOT TARGET LibTorch::LibTorch)
  add_library(LibTorch::LibTorch INTERFACE IMPORTED)
  set_target_properties(LibTorch::LibTorch PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${LibTorch_INCLUDE_DIRS}")
  target_compile_features(LibTorch::LibTorch INTERFACE cxx_std_20)
  foreach(name IN ITEMS torch_cpu c10)
    add_library(LibTorch::${name} SHARED IMPORTED)
    set_target_properties(LibTorch::${name} PROPERTIES IMPORTED_LOCATION "${LibTorch_${name}}")
    target_link_libraries(LibTorch::LibTorch INTERFACE LibTorch::${name})
  endforeach()
  # libtorch has no symbols: it loads libtorch_cpu and, in a CUDA build, what runs on a GPU.
  if(CMAKE_SYSTEM_NAME STREQUAL "Linux")
    target_link_libraries(LibTorch::LibTorch
                          INTERFACE "-Wl,--push-state,--no-as-needed,${LibTorch_torch},--pop-state")
  else()
    target_link_libraries(LibTorch::LibTorch INTERFACE "${LibTorch_torch}")
  endif()
endif()
