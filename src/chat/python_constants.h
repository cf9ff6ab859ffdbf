#pragma once

#include <map>
#include <string>
#include <string_view>

namespace toaster {

/// String constants of a Python module.
struct PythonConstants {
  std::map<std::string, std::string> strings;
  std::map<std::string, std::map<std::string, std::string>> tables;  ///< dicts of strings
};

/// Finds the assignments at the outermost level of a Python source whose whole value is one string
/// literal or several side by side (also in parentheses), or a dict of such strings: NAME = "...",
/// NAME: str = ("..." "..."), NAME = {"a": "..."}. Everything else in the file is skipped; nothing
/// is run. An assignment that repeats a name replaces it.
///
/// Throws Error(kCorruptFile) naming `origin` and the line for a string that never ends, brackets
/// that do not match, and escapes that name no character.
PythonConstants ReadPythonConstants(std::string_view source, const std::string& origin);

}  // namespace toaster
