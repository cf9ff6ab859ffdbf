#include "server/request_guard.h"

#include <arpa/inet.h>
#include <fmt/format.h>

#include <algorithm>

namespace toaster {
namespace {

/// The name or address of a Host header, without the port.
std::string WithoutPort(std::string_view host) {
  if (!host.empty() && host[0] == '[') return std::string(host.substr(0, host.find(']') + 1));
  return std::string(host.substr(0, host.find(':')));
}

bool IsAddress(const std::string& host) {
  unsigned char bytes[16];
  if (host.size() > 2 && host[0] == '[')
    return inet_pton(AF_INET6, host.substr(1, host.size() - 2).c_str(), bytes) == 1;
  return inet_pton(AF_INET, host.c_str(), bytes) == 1;
}

}  // namespace

bool RequestGuard::KnownHost(std::string_view header) const {
  const std::string host = WithoutPort(header);
  return host == "localhost" || IsAddress(host) ||
         std::find(hosts_.begin(), hosts_.end(), host) != hosts_.end();
}

std::optional<std::string> RequestGuard::AllowedOrigin(const HttpRequest& request) const {
  const std::string* origin = request.Header("Origin");
  if (!origin) return std::nullopt;
  for (const std::string& allowed : origins_) {
    if (allowed == "*" || allowed == *origin) return allowed;
  }
  return std::nullopt;
}

const ApiKeys::Key* RequestGuard::KeyOf(const HttpRequest& request) const {
  if (keys_.empty()) return nullptr;
  std::string_view secret;
  if (const std::string* header = request.Header("Authorization")) {
    const std::string_view text = *header;
    if (text.substr(0, 7) == "Bearer " || text.substr(0, 7) == "bearer ") secret = text.substr(7);
  }
  if (const std::string* header = request.Header("x-api-key"); header && secret.empty())
    secret = *header;
  return keys_.Find(secret);
}

void RequestGuard::Check(const HttpRequest& request, bool open) const {
  const std::string* host = request.Header("Host");
  if (!host || !KnownHost(*host)) {
    throw ApiError(403, "",
                   "this server is not reached under that name; use localhost or its address, or "
                   "start it with --allow-host");
  }
  const std::string* origin = request.Header("Origin");
  const bool own = origin && (*origin == "http://" + *host || *origin == "https://" + *host);
  if (origin && !own && !AllowedOrigin(request)) {
    throw ApiError(403, "",
                   "pages of other sites may not ask this server; start it with --allow-origin");
  }
  // A browser asks whether it may ask without the key.
  if (open || keys_.empty() || request.method == "OPTIONS") return;
  if (!KeyOf(request)) {
    ApiError error(401, "",
                   "the API key is missing or unknown; send it as Authorization: Bearer KEY or as "
                   "x-api-key");
    error.code = "invalid_api_key";
    throw error;
  }
}

}  // namespace toaster
