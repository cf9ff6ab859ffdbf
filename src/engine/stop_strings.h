#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace toaster {

/// Watches text as it streams for the first of a set of stop strings, holding back what could be
/// the beginning of one.
class StopStrings {
 public:
  /// Empty strings are ignored.
  explicit StopStrings(std::vector<std::string> stops);

  /// Adds `text`; returns what may be shown now. After a stop string was found, nothing more comes
  /// out.
  std::string Push(std::string_view text);
  /// What was held back, once no more text follows.
  std::string Finish();
  bool found() const { return found_; }
  /// The stop string that was found.
  const std::string& match() const { return match_; }

 private:
  std::vector<std::string> stops_;
  std::string held_;
  std::string match_;
  bool found_ = false;
};

}  // namespace toaster
