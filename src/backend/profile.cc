#include "backend/profile.h"

#include <algorithm>

namespace toaster {

namespace {

double Seconds(double amount, double rate) { return rate > 0 ? amount / rate : 0; }

}  // namespace

Work& Work::operator+=(const Work& other) {
  bytes += other.bytes;
  bf16_flops += other.bf16_flops;
  float_flops += other.float_flops;
  int8_ops += other.int8_ops;
  return *this;
}

double Work::MemorySeconds(const MachineLimits& limits) const {
  return Seconds(bytes, limits.read_bytes_per_s);
}

double Work::ComputeSeconds(const MachineLimits& limits) const {
  return Seconds(bf16_flops, limits.bf16_flops_per_s) +
         Seconds(float_flops, limits.float_flops_per_s) + Seconds(int8_ops, limits.int8_ops_per_s);
}

double Work::LeastSeconds(const MachineLimits& limits) const {
  return std::max(MemorySeconds(limits), ComputeSeconds(limits));
}

Profile::Operation& Profile::Find(const std::string& name) {
  const auto [place, added] = places_.try_emplace(name, operations_.size());
  if (added) operations_.push_back({name, 0, 0, {}});
  return operations_[place->second];
}

void Profile::Add(const std::string& name, double seconds, const Work& work) {
  Operation& operation = Find(name);
  ++operation.calls;
  operation.seconds += seconds;
  operation.work += work;
}

void Profile::Add(const Profile& other) {
  for (const Operation& more : other.operations_) {
    Operation& operation = Find(more.name);
    operation.calls += more.calls;
    operation.seconds += more.seconds;
    operation.work += more.work;
  }
}

void Profile::Clear() {
  operations_.clear();
  places_.clear();
}

Profile::Operation Profile::Total() const {
  Operation total{"all", 0, 0, {}};
  for (const Operation& operation : operations_) {
    total.calls += operation.calls;
    total.seconds += operation.seconds;
    total.work += operation.work;
  }
  return total;
}

}  // namespace toaster
