#pragma once

// Included by kernel files: everything here is local to them.

#include <cstdint>

namespace toaster::kernels {

namespace {

/// How `count` things are divided into groups of nearly equal size, none above a limit: a group
/// that is nearly empty would cost as much as a full one.
struct EvenGroups {
  int64_t total, groups;
  EvenGroups(int64_t count, int64_t limit) : total(count), groups((count + limit - 1) / limit) {}
  int64_t Size(int64_t group) const { return total / groups + (group < total % groups ? 1 : 0); }
};

}  // namespace

}  // namespace toaster::kernels
