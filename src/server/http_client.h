#pragma once

#include <string>

namespace toaster {

/// The body of a GET, for a command that asks a running server. `url`: http:// or https://, host,
/// port and path; `key` goes along as an API key if not empty. Throws Error(kIo) if nobody answers
/// or the status is not 200, with what the server said.
std::string HttpGet(const std::string& url, const std::string& key);

}  // namespace toaster
