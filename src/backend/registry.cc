#include "backend/registry.h"

#include <fmt/format.h>

#include "backend/reference/reference_backend.h"
#include "base/error.h"

namespace toaster {

std::vector<std::string> BackendNames() { return {"reference"}; }

std::unique_ptr<Backend> CreateBackend(const BackendOptions& options) {
  if (options.backend == "reference") return std::make_unique<ReferenceBackend>(options.numerics);
  throw Error(ErrorCode::kInvalidArgument,
              fmt::format("backend \"{}\" is unknown; choose reference or cpu", options.backend));
}

}  // namespace toaster
