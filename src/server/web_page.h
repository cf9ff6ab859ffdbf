#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace toaster {

/// A file of the chat page, which lives inside the program (web/dist of the source tree).
/// Owns nothing but its ETag; knows no HTTP beyond the two headers that describe it.
struct WebFile {
  std::string_view content_type;
  /// The whole file; valid as long as the program runs.
  std::string_view bytes;
  /// A strong ETag with its quotation marks: a digest of the bytes.
  std::string etag;
};

/// The file at `path` of a URL ("/" is the page itself), or nothing. Any thread.
std::optional<WebFile> FindWebFile(std::string_view path);

}  // namespace toaster
