#include "chat/python_json.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/error.h"

namespace toaster {
namespace {

using nlohmann::json;

/// Builds the tree from the events of nlohmann's parser.
class Builder : public nlohmann::json_sax<json> {
 public:
  bool null() override { return Add(Of(JsonValue::Kind::kNull)); }
  bool boolean(bool value) override {
    return Add(Of(value ? JsonValue::Kind::kTrue : JsonValue::Kind::kFalse));
  }
  bool number_integer(number_integer_t value) override { return Number(std::to_string(value)); }
  bool number_unsigned(number_unsigned_t value) override { return Number(std::to_string(value)); }
  bool number_float(number_float_t value, const string_t& digits) override {
    // An integer too long for 64 bits comes as a float, too.
    const bool integer = digits.find_first_of(".eE") == digits.npos;
    return Number(integer ? digits : PythonFloat(value));
  }
  bool string(string_t& value) override { return Add(JsonValue::String(std::move(value))); }
  bool binary(binary_t&) override { return false; }
  bool key(string_t& name) override {
    key_ = std::move(name);
    return true;
  }
  bool start_object(size_t) override { return Open(JsonValue::Kind::kObject); }
  bool start_array(size_t) override { return Open(JsonValue::Kind::kArray); }
  bool end_object() override { return Close(); }
  bool end_array() override { return Close(); }
  bool parse_error(size_t position, const std::string&, const json::exception&) override {
    error_position = position;
    return false;
  }

  JsonValue result;
  size_t error_position = 0;
  bool too_deep = false, too_many = false;

 private:
  static JsonValue Of(JsonValue::Kind kind) {
    JsonValue value;
    value.kind = kind;
    return value;
  }
  bool Number(std::string digits) {
    JsonValue value = Of(JsonValue::Kind::kNumber);
    value.text = std::move(digits);
    return Add(std::move(value));
  }
  bool Open(JsonValue::Kind kind) {
    too_deep = open_.size() >= kMaxJsonDepth;
    if (too_deep) return false;
    open_.push_back({std::move(key_), Of(kind), {}});
    return true;
  }
  bool Close() {
    Container done = std::move(open_.back());
    open_.pop_back();
    key_ = std::move(done.key);
    return Add(std::move(done.value));
  }
  bool Add(JsonValue value) {
    too_many = ++values_ > kMaxJsonValues;
    if (too_many) return false;
    if (open_.empty()) {
      result = std::move(value);
      return true;
    }
    Container& parent = open_.back();
    if (parent.value.is_array()) {
      parent.value.items.push_back(std::move(value));
      return true;
    }
    const auto [place, added] = parent.places.emplace(key_, parent.value.items.size());
    if (added) {
      parent.value.keys.push_back(std::move(key_));
      parent.value.items.push_back(std::move(value));
    } else {
      parent.value.items[place->second] = std::move(value);
    }
    return true;
  }

  struct Container {
    std::string key;  ///< under which the parent keeps it
    JsonValue value;
    std::map<std::string, size_t> places;  ///< of the keys, for objects
  };
  std::vector<Container> open_;
  std::string key_;
  int64_t values_ = 0;
};

bool Parse(std::string_view text, Builder& builder) {
  // The library takes a zero byte for the end of the text; it has no place in JSON.
  if (const size_t zero = text.find('\0'); zero != text.npos) {
    builder.error_position = zero + 1;
    return false;
  }
  return json::sax_parse(text.begin(), text.end(), &builder);
}

void Dump(const JsonValue& value, std::string& text) {
  switch (value.kind) {
    case JsonValue::Kind::kNull:
      text += "null";
      return;
    case JsonValue::Kind::kFalse:
      text += "false";
      return;
    case JsonValue::Kind::kTrue:
      text += "true";
      return;
    case JsonValue::Kind::kNumber:
      text += value.text;
      return;
    case JsonValue::Kind::kString:
      text += DumpPythonString(value.text);
      return;
    case JsonValue::Kind::kArray:
    case JsonValue::Kind::kObject:
      break;
  }
  text += value.is_array() ? '[' : '{';
  for (size_t i = 0; i < value.items.size(); ++i) {
    if (i > 0) text += ", ";
    if (value.is_object()) text += DumpPythonString(value.keys[i]) + ": ";
    Dump(value.items[i], text);
  }
  text += value.is_array() ? ']' : '}';
}

}  // namespace

const JsonValue* JsonValue::Find(std::string_view key) const {
  const auto found = std::find(keys.begin(), keys.end(), key);
  return found == keys.end() ? nullptr : &items[static_cast<size_t>(found - keys.begin())];
}

bool JsonValue::Truthy() const {
  switch (kind) {
    case Kind::kNull:
    case Kind::kFalse:
      return false;
    case Kind::kTrue:
      return true;
    case Kind::kNumber:
      return text != "0" && text != "0.0" && text != "-0.0";
    case Kind::kString:
      return !text.empty();
    case Kind::kArray:
    case Kind::kObject:
      break;
  }
  return !items.empty();
}

JsonValue JsonValue::String(std::string text) {
  JsonValue value;
  value.kind = Kind::kString;
  value.text = std::move(text);
  return value;
}

JsonValue JsonValue::Object() {
  JsonValue value;
  value.kind = Kind::kObject;
  return value;
}

void JsonValue::Set(std::string key, JsonValue value) {
  const auto found = std::find(keys.begin(), keys.end(), key);
  if (found != keys.end()) {
    items[static_cast<size_t>(found - keys.begin())] = std::move(value);
    return;
  }
  keys.push_back(std::move(key));
  items.push_back(std::move(value));
}

std::optional<JsonValue> TryParsePythonJson(std::string_view text) {
  Builder builder;
  if (!Parse(text, builder)) return std::nullopt;
  return std::move(builder.result);
}

JsonValue ParsePythonJson(std::string_view text, const std::string& origin) {
  Builder builder;
  if (Parse(text, builder)) return std::move(builder.result);
  throw Error(ErrorCode::kInvalidArgument,
              builder.too_deep
                  ? fmt::format("{}: JSON nested deeper than {}", origin, kMaxJsonDepth)
              : builder.too_many
                  ? fmt::format("{}: JSON of more than {} values", origin, kMaxJsonValues)
                  : fmt::format("{}: not valid JSON at byte {}", origin, builder.error_position));
}

std::string DumpPythonJson(const JsonValue& value) {
  std::string text;
  Dump(value, text);
  return text;
}

std::string DumpPythonString(std::string_view text) { return '"' + EscapePythonString(text) + '"'; }

std::string EscapePythonString(std::string_view text) {
  std::string escaped;
  escaped.reserve(text.size());
  for (const char c : text) {
    switch (c) {
      case '"':
        escaped += "\\\"";
        break;
      case '\\':
        escaped += "\\\\";
        break;
      case '\n':
        escaped += "\\n";
        break;
      case '\r':
        escaped += "\\r";
        break;
      case '\t':
        escaped += "\\t";
        break;
      case '\f':
        escaped += "\\f";
        break;
      case '\b':
        escaped += "\\b";
        break;
      default:
        if (static_cast<uint8_t>(c) < 0x20) {
          escaped += fmt::format("\\u{:04x}", static_cast<uint8_t>(c));
        } else {
          escaped += c;
        }
    }
  }
  return escaped;
}

std::string PythonFloat(double value) {
  char buffer[32];
  const auto [end, error] =
      std::to_chars(buffer, buffer + sizeof buffer, value, std::chars_format::scientific);
  const std::string scientific(buffer, end);  // [-]d[.ddd]e±dd
  const size_t e = scientific.find('e');
  const int exponent = std::stoi(scientific.substr(e + 1));
  const bool negative = scientific[0] == '-';
  std::string digits;
  for (const char c : scientific.substr(0, e)) {
    if (c >= '0' && c <= '9') digits += c;
  }
  const std::string sign = negative ? "-" : "";
  const auto count = static_cast<int>(digits.size());
  if (exponent < -4 || exponent >= 16) {
    const std::string fraction = count > 1 ? digits.substr(1).insert(0, 1, '.') : "";
    return fmt::format("{}{}{}e{}{:02}", sign, digits[0], fraction, exponent < 0 ? '-' : '+',
                       std::abs(exponent));
  }
  if (exponent < 0)
    return fmt::format("{}0.{}{}", sign, std::string(static_cast<size_t>(-exponent - 1), '0'),
                       digits);
  if (count <= exponent + 1)
    return fmt::format("{}{}{}.0", sign, digits,
                       std::string(static_cast<size_t>(exponent + 1 - count), '0'));
  const size_t whole = static_cast<size_t>(exponent) + 1;
  return fmt::format("{}{}.{}", sign, digits.substr(0, whole), digits.substr(whole));
}

}  // namespace toaster
