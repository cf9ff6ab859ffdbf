#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

struct XXH3_state_s;

namespace toaster {

/// A running XXH3-128 over everything added, printed as 32 hexadecimal digits.
/// Used to compare outputs and to address contents, not against an adversary.
class Digest {
 public:
  Digest();
  ~Digest();

  void Add(std::span<const std::byte> bytes);
  template <typename T>
  void AddValues(std::span<const T> values) {
    Add(std::as_bytes(values));
  }
  /// The digest of what was added so far; more may follow.
  std::string Hex() const;

 private:
  struct Free {
    void operator()(XXH3_state_s* state) const;
  };
  std::unique_ptr<XXH3_state_s, Free> state_;
};

}  // namespace toaster
