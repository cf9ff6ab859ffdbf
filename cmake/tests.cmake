# One test program per source folder (tests stand beside the code) and one for tests/.
find_package(GTest REQUIRED)
include(GoogleTest)

function(toaster_test_program name)
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${ARGN})
  list(FILTER sources EXCLUDE REGEX "/tests/clients/")
  if(sources)
    add_executable(${name} ${sources})
    target_link_libraries(${name} PRIVATE toaster_core GTest::gmock GTest::gtest_main)
    target_compile_options(${name} PRIVATE $<$<CONFIG:Release>:-O1>)
    target_compile_definitions(${name} PRIVATE
      TOASTER_SOURCE_DIR="${CMAKE_SOURCE_DIR}" TOASTER_BINARY_DIR="${CMAKE_BINARY_DIR}"
      TOASTER_PROGRAM="$<TARGET_FILE:toaster>")
    add_dependencies(${name} toaster)
    # A suite named ...LongTest is a long check: it runs under the label "long" only. What programs
    # keep for their user goes into the build.
    set(environment "XDG_CACHE_HOME=${CMAKE_BINARY_DIR}/cache")
    gtest_discover_tests(${name} DISCOVERY_MODE PRE_TEST
      TEST_FILTER "-*LongTest.*" PROPERTIES LABELS quick TIMEOUT 900 ENVIRONMENT "${environment}")
    gtest_discover_tests(${name} DISCOVERY_MODE PRE_TEST TEST_SUFFIX ".long"
      TEST_FILTER "*LongTest.*" PROPERTIES LABELS long TIMEOUT 3600 ENVIRONMENT "${environment}")
  endif()
endfunction()

file(GLOB folders RELATIVE ${CMAKE_SOURCE_DIR}/src CONFIGURE_DEPENDS src/*)
foreach(folder ${folders})
  toaster_test_program(${folder}_test src/${folder}/*_test.cc)
endforeach()
toaster_test_program(program_test tests/*.cc)

# What the official clients of tests/clients talk to.
add_executable(replay_server tests/clients/replay_server.cc)
target_link_libraries(replay_server PRIVATE toaster_core)
if(TOASTER_SANITIZE)  # sanitizers add symbols of their own to every object
  set_source_files_properties(tests/kernel_symbols_test.cc PROPERTIES HEADER_FILE_ONLY ON)
endif()

# What bench/kernel_instructions.py runs under callgrind.
add_executable(kernel_instructions bench/kernel_instructions.cc)
target_link_libraries(kernel_instructions PRIVATE toaster_core)

# Rules for which experts stay in memory, on what a model's router chose.
add_executable(expert_policies bench/expert_policies.cc)
target_link_libraries(expert_policies PRIVATE toaster_core)

find_package(benchmark QUIET)
if(benchmark_FOUND)
  file(GLOB_RECURSE bench_sources CONFIGURE_DEPENDS src/*_bench.cc)
  if(bench_sources)
    add_executable(toaster_bench ${bench_sources})
    target_link_libraries(toaster_bench PRIVATE toaster_core benchmark::benchmark_main)
  endif()
endif()
