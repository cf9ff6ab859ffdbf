#include "server/http_client.h"

#include <fmt/format.h>
#include <httplib.h>

#include "base/error.h"

namespace toaster {

std::string HttpGet(const std::string& url, const std::string& key) {
  const size_t host = url.find("://");
  if (host == std::string::npos)
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("{}: begins with neither http:// nor https://", url));
  const size_t path = url.find('/', host + 3);
  httplib::Client client(url.substr(0, path));
  httplib::Headers headers;
  if (!key.empty()) headers.emplace("Authorization", "Bearer " + key);
  const httplib::Result result =
      client.Get(path == std::string::npos ? "/" : url.substr(path), headers);
  if (!result) {
    throw Error(ErrorCode::kIo,
                fmt::format("{}: nobody answers ({}); is toaster serve running there?", url,
                            httplib::to_string(result.error())));
  }
  if (result->status != 200) {
    throw Error(ErrorCode::kIo,
                fmt::format("{}: status {}: {}", url, result->status, result->body.substr(0, 300)));
  }
  return result->body;
}

}  // namespace toaster
