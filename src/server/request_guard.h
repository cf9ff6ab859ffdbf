#pragma once

#include <optional>
#include <string>
#include <vector>

#include "server/api_error.h"
#include "server/api_keys.h"
#include "server/http_server.h"

namespace toaster {

/// Whose requests are taken: checks the Host header (so that no name of an attacker's can be made
/// to point here), the Origin header (so that no page of another site can ask), and the API key.
class RequestGuard {
 public:
  /// `hosts`: names beyond localhost and IP addresses under which this server is reached.
  /// `origins`: sites whose pages may ask, as https://name; "*" means any.
  RequestGuard(ApiKeys keys, std::vector<std::string> hosts, std::vector<std::string> origins)
      : keys_(std::move(keys)), hosts_(std::move(hosts)), origins_(std::move(origins)) {}

  /// Throws ApiError of status 401 or 403. `open`: the path needs no key.
  void Check(const HttpRequest& request, bool open) const;
  /// The key that the request carries; nullptr if none is needed or it is none of ours.
  const ApiKeys::Key* KeyOf(const HttpRequest& request) const;
  /// The value of Access-Control-Allow-Origin, if the request's origin may see the answer.
  std::optional<std::string> AllowedOrigin(const HttpRequest& request) const;

 private:
  bool KnownHost(std::string_view host) const;

  ApiKeys keys_;
  std::vector<std::string> hosts_, origins_;
};

}  // namespace toaster
