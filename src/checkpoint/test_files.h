#pragma once

// Small files for tests of everything that reads checkpoints.

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <span>
#include <string>
#include <string_view>

#include "base/check.h"
#include "base/error.h"
#include "base/temporary_directory.h"

namespace toaster::test {

/// The checkpoint of a golden set.
inline std::filesystem::path GoldenCheckpoint(const std::string& set) {
  return std::filesystem::path(TOASTER_SOURCE_DIR) / "tests/golden" / set / "checkpoint";
}

inline std::string ReadFile(const std::filesystem::path& path) {
  std::ifstream stream(path, std::ios::binary);
  CHECK(stream.good(), "{}", path.string());
  return {std::istreambuf_iterator<char>(stream), {}};
}

inline void WriteFile(const std::filesystem::path& path, std::string_view text) {
  std::ofstream stream(path, std::ios::binary);
  stream.write(text.data(), static_cast<std::streamsize>(text.size()));
  CHECK(stream.good(), "{}", path.string());
}

inline std::span<const std::byte> AsBytes(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

/// A safetensors file with this header text and data.
inline std::string Safetensors(std::string_view header, std::string_view data) {
  const uint64_t length = header.size();
  std::string file(sizeof(length), '\0');
  std::memcpy(file.data(), &length, sizeof(length));
  file += header;
  file += data;
  return file;
}

/// What `action` throws, "" if it does not. Every message is one line.
template <typename Action>
std::string MessageOf(Action action) {
  try {
    action();
  } catch (const Error& error) {
    CHECK(std::string_view(error.what()).find('\n') == std::string_view::npos, "{}", error.what());
    return error.what();
  }
  return "";
}

}  // namespace toaster::test
