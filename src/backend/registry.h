#pragma once

#include <memory>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "backend/backward.h"
#include "backend/profile.h"

namespace toaster {

/// What to compute with.
struct BackendOptions {
  std::string backend = "cpu";  ///< a name of BackendNames()
  std::string kernels;          ///< cpu: "portable", "avx2", "avx512", "avx512_bf16", "avx512_fma",
                                ///< "avx512_amx"; empty: the fastest here
  int threads = 0;              ///< cpu: 0 takes every processor this process may use
  Numerics numerics = Numerics::kOfficial;
  Profile* profile = nullptr;  ///< if given, is told about every operation; borrowed
};

std::vector<std::string> BackendNames();
/// The kernel tables of the cpu backend that this processor can run.
std::vector<std::string> RunnableKernels();

/// Throws Error(kInvalidArgument) for an unknown backend or kernel table, and Error(kUnsupported)
/// for a table that this processor cannot run.
std::unique_ptr<Backend> CreateBackend(const BackendOptions& options);
/// The backward pass that belongs to CreateBackend's backend; throws as that does.
std::unique_ptr<BackwardBackend> CreateBackward(const BackendOptions& options);

}  // namespace toaster
