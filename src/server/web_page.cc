#include "server/web_page.h"

#include <cstddef>
#include <span>

#include "base/digest.h"

extern "C" {
extern const char toaster_web_index[];
extern const char toaster_web_index_end[];
extern const char toaster_web_script[];
extern const char toaster_web_script_end[];
extern const char toaster_web_style[];
extern const char toaster_web_style_end[];
}

namespace toaster {
namespace {

WebFile Describe(std::string_view content_type, const char* begin, const char* end) {
  const std::string_view bytes(begin, static_cast<size_t>(end - begin));
  Digest digest;
  digest.AddValues(std::span<const char>(bytes));
  return {content_type, bytes, '"' + digest.Hex() + '"'};
}

}  // namespace

std::optional<WebFile> FindWebFile(std::string_view path) {
  if (path == "/" || path == "/index.html")
    return Describe("text/html; charset=utf-8", toaster_web_index, toaster_web_index_end);
  if (path == "/app.js")
    return Describe("text/javascript; charset=utf-8", toaster_web_script, toaster_web_script_end);
  if (path == "/app.css")
    return Describe("text/css; charset=utf-8", toaster_web_style, toaster_web_style_end);
  return std::nullopt;
}

}  // namespace toaster
