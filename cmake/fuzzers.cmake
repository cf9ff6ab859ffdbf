# One libFuzzer program per src/**/*_fuzz.cc, named after the file.
file(GLOB_RECURSE fuzz_sources CONFIGURE_DEPENDS src/*_fuzz.cc)
foreach(source ${fuzz_sources})
  get_filename_component(name ${source} NAME_WE)
  add_executable(${name} ${source})
  target_link_libraries(${name} PRIVATE toaster_core)
  target_link_options(${name} PRIVATE -fsanitize=fuzzer)
endforeach()
