#pragma once

// Where time goes: which operation of a backend took how long, and how long it would take at the
// limits of the machine.

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "backend/machine_limits.h"

namespace toaster {

/// What an operation cannot do without: bytes of weights and caches that it reads at least once,
/// and arithmetic on numbers that exist (no padding). Activations are not counted.
struct Work {
  double bytes = 0;
  double bf16_flops = 0;
  double float_flops = 0;
  double int8_ops = 0;

  Work& operator+=(const Work& other);
  double flops() const { return bf16_flops + float_flops; }
  double MemorySeconds(const MachineLimits& limits) const;
  double ComputeSeconds(const MachineLimits& limits) const;
  /// The time that the slower of memory and arithmetic needs; 0 if the limits are not known.
  double LeastSeconds(const MachineLimits& limits) const;
};

/// Time and work per operation, in the order in which operations first ran. One thread at a time.
class Profile {
 public:
  struct Operation {
    std::string name;
    int64_t calls = 0;
    double seconds = 0;
    Work work;
  };

  void Add(const std::string& name, double seconds, const Work& work);
  void Add(const Profile& other);
  void Clear();
  const std::vector<Operation>& operations() const { return operations_; }
  /// The sum over all operations, named "all".
  Operation Total() const;

 private:
  Operation& Find(const std::string& name);

  std::vector<Operation> operations_;
  std::map<std::string, size_t> places_;
};

}  // namespace toaster
