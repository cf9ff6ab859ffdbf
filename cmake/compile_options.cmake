# Flags that every target shares. Floating-point contraction is off because the order of roundings
# is part of the engine's promise: a fused multiply-add happens where the source says std::fma.
add_library(toaster_options INTERFACE)
target_compile_options(toaster_options INTERFACE
  -Wall -Wextra -Wpedantic -Wshadow -Wno-unused-parameter
  -ffp-contract=off -fno-math-errno -fno-trapping-math)
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  target_compile_options(toaster_options INTERFACE -march=x86-64-v3)
endif()
if(TOASTER_SANITIZE)
  target_compile_options(toaster_options INTERFACE
    -fsanitize=${TOASTER_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all)
  target_link_options(toaster_options INTERFACE -fsanitize=${TOASTER_SANITIZE})
endif()
