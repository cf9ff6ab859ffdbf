#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace toaster {

/// Who may use the server. The file has a line per key: NAME, the SHA-256 of the key in hexadecimal
/// digits, and optionally the most requests and the most tokens per minute (0: no limit); lines
/// that begin with # are comments. The keys themselves stand nowhere. Immutable.
class ApiKeys {
 public:
  struct Key {
    std::string name;
    std::string digest;  ///< 32 bytes
    int64_t requests_per_minute = 0, tokens_per_minute = 0;
  };

  /// No keys: everybody may.
  ApiKeys() = default;
  /// Throws Error(kNotFound), Error(kInvalidArgument) naming file and line.
  static ApiKeys Load(const std::filesystem::path& file);

  bool empty() const { return keys_.empty(); }
  /// The key that `secret` is; nullptr if it is none. Takes the same time for all.
  const Key* Find(std::string_view secret) const;

  /// A new random key, and the line that lets a file know it.
  static std::pair<std::string, std::string> Make(const std::string& name,
                                                  int64_t requests_per_minute,
                                                  int64_t tokens_per_minute);

 private:
  std::vector<Key> keys_;
};

/// Counts what keys used in the last minute. Any thread.
class RateLimits {
 public:
  /// Counts a request. Returns the seconds to wait where the key has used up its minute, else 0.
  int Admit(const ApiKeys::Key& key);
  void AddTokens(const std::string& name, int64_t tokens);

 private:
  using SteadyClock = std::chrono::steady_clock;
  /// What is used drains evenly, a minute's allowance in a minute.
  struct Use {
    double requests = 0, tokens = 0;
    SteadyClock::time_point seen = SteadyClock::now();
  };
  std::mutex mutex_;
  std::map<std::string, Use> uses_;
};

}  // namespace toaster
