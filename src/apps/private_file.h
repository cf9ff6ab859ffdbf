#pragma once

#include <filesystem>
#include <string_view>

namespace toaster {

/// Writes a file that only its owner may read: all of it or, if anything fails, nothing (a file
/// that was there stays as it was). Throws Error(kIo) naming the file.
void WritePrivateFile(const std::filesystem::path& path, std::string_view text);

/// Appends to such a file, making it and its folders (0700) if need be. Throws Error(kIo).
void AppendPrivateFile(const std::filesystem::path& path, std::string_view text);

}  // namespace toaster
