#pragma once

#include <string_view>
#include <vector>

#include "server/request_schemas.h"

namespace toaster {

/// One path of the server, as its description tells it.
struct RouteDescription {
  std::string_view method;   ///< GET, which answers HEAD too, or POST
  std::string_view path;     ///< a last part in braces is any rest of a path, and a parameter
  std::string_view name;     ///< unique
  std::string_view summary;  ///< one sentence
  RequestSchema (*request)() = nullptr;  ///< what a POST takes
  std::string_view answer = "application/json";
  bool streams = false;    ///< may also answer with events
  bool needs_key = false;  ///< where the server has keys
};

/// The OpenAPI 3.1 document of these paths.
OrderedJson OpenApiDocument(const std::vector<RouteDescription>& routes);

}  // namespace toaster
