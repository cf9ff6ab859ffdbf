# One kernel table per instruction set; choose.cc picks one at run time. GCC 12 takes the undefined
# vectors inside its own intrinsics for mistakes.
set(AVX512_TABLES src/backend/cpu/kernels/avx512_bf16.cc src/backend/cpu/kernels/avx512_fma.cc
  src/backend/cpu/kernels/avx512_amx.cc)
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  set_source_files_properties(src/backend/cpu/kernels/avx2.cc PROPERTIES
    COMPILE_OPTIONS "-mavx2;-mfma;-mf16c")
  set_source_files_properties(${AVX512_TABLES} PROPERTIES
    COMPILE_OPTIONS "-mavx512f;-mavx512bw;-mavx512vl;-mavx512dq;-mavx512vbmi;-mavx512bf16;-mavx512vnni;-mprefer-vector-width=512;$<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized>;$<$<CXX_COMPILER_ID:GNU>:-Wno-uninitialized>")
  set_property(SOURCE src/backend/cpu/kernels/avx512_amx.cc APPEND PROPERTY
    COMPILE_OPTIONS "-mamx-tile;-mamx-int8")
else()
  set_source_files_properties(src/backend/cpu/kernels/avx2.cc ${AVX512_TABLES}
    PROPERTIES HEADER_FILE_ONLY ON)
endif()
