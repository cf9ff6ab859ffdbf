#pragma once

#include <cstdint>
#include <filesystem>

namespace toaster {

/// Memory of this process that is resident, in bytes.
struct MemoryUse {
  int64_t file = 0;  ///< pages of mapped files: weights that were touched, and the program itself
  int64_t anonymous = 0;  ///< everything allocated: caches and workspace
  int64_t peak = 0;       ///< the most that both were together so far
};

/// Zeros where the system does not tell.
MemoryUse CurrentMemoryUse();

/// The least memory limit of the control groups of a process: `groups` is where they are mounted,
/// version 1 or 2, and `memberships` the process's list of them, as /proc/self/cgroup. The largest
/// number if there is no limit.
int64_t MemoryLimit(const std::filesystem::path& groups, const std::filesystem::path& memberships);

/// Bytes that this process can still allocate before the machine, or its cgroup, has to take memory
/// from something that runs; what only caches files counts as free. 0 where the system does not
/// tell.
int64_t AvailableMemory();

/// From now on memory that is freed in large pieces goes back to the system at once. The C library
/// would keep what once was large for later, per thread that frees some: a server that many ask at
/// once grows with every rush. For the start of a program.
void ReturnFreedMemory();

/// The opposite, for programs that do the same work over and over, like training, whose passes free
/// and allocate the same large buffers: what is freed is kept instead of given back and got again
/// page by page.
void KeepFreedMemory();

}  // namespace toaster
