#pragma once

#include <string>
#include <vector>

#include "base/error.h"

namespace toaster {

/// What is wrong with a checkpoint, a line each.
using DefectList = std::vector<std::string>;

/// Throws Error(code, message); with `defects`, adds the message there instead and returns, and the
/// caller goes on without what is broken. Loading throws at the first defect, verifying collects.
inline void ReportDefect(DefectList* defects, ErrorCode code, const std::string& message) {
  if (defects == nullptr) throw Error(code, message);
  defects->push_back(message);
}

}  // namespace toaster
