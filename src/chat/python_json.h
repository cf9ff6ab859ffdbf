#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace toaster {

/// A JSON value as Python's json module sees it: objects keep the order of their keys, integers of
/// any length keep their digits. What prompts are made of (chat-format.md 1); for files of our own
/// use nlohmann::json.
struct JsonValue {
  enum class Kind { kNull, kFalse, kTrue, kNumber, kString, kArray, kObject };

  Kind kind = Kind::kNull;
  std::string text;               ///< of a string its characters; of a number what Python prints
  std::vector<std::string> keys;  ///< of an object, beside `items`
  std::vector<JsonValue> items;   ///< of an array or object

  bool is_null() const { return kind == Kind::kNull; }
  bool is_boolean() const { return kind == Kind::kFalse || kind == Kind::kTrue; }
  bool is_string() const { return kind == Kind::kString; }
  bool is_array() const { return kind == Kind::kArray; }
  bool is_object() const { return kind == Kind::kObject; }

  /// The member of an object; nullptr if there is none.
  const JsonValue* Find(std::string_view key) const;
  /// Python's bool(): false for null, false, zero, and empty strings, arrays and objects.
  bool Truthy() const;

  static JsonValue String(std::string text);
  static JsonValue Object();
  /// Adds a member, or replaces the value of the one with this key where it stands.
  void Set(std::string key, JsonValue value);
};

/// Reads a JSON text as Python's json.loads does, except that NaN, the infinities, numbers beyond
/// double and lone surrogates are errors. A key given twice keeps its first place and its last
/// value. Nothing if `text` is no JSON, is nested deeper than kMaxJsonDepth, has more values than
/// kMaxJsonValues (each takes about a hundred bytes, however short its text), or is not UTF-8.
std::optional<JsonValue> TryParsePythonJson(std::string_view text);
constexpr int kMaxJsonDepth = 256;
constexpr int64_t kMaxJsonValues = 2 << 20;

/// The same. Throws Error(kInvalidArgument) naming `origin` and the place.
JsonValue ParsePythonJson(std::string_view text, const std::string& origin);

/// What json.dumps(value, ensure_ascii=False) returns.
std::string DumpPythonJson(const JsonValue& value);

/// The same for one string, with its quotes; and without them, for a string that comes in parts
/// (cut between characters).
std::string DumpPythonString(std::string_view text);
std::string EscapePythonString(std::string_view text);

/// What repr() prints for a finite float: the shortest digits that read back to it.
std::string PythonFloat(double value);

}  // namespace toaster
