#include "server/request_fields.h"

#include <fmt/format.h>

#include <charconv>
#include <cmath>
#include <cstdlib>

#include "server/api_error.h"

namespace toaster {
namespace {

std::optional<double> AsNumber(const JsonValue& value) {
  if (value.kind != JsonValue::Kind::kNumber) return std::nullopt;
  // from_chars knows no locale; what it can't hold is infinite and out of every range.
  double number = 0;
  const char* end = value.text.data() + value.text.size();
  const auto [last, error] = std::from_chars(value.text.data(), end, number);
  if (error == std::errc::result_out_of_range) return HUGE_VAL;
  if (error != std::errc() || last != end) return std::nullopt;
  return number;
}

}  // namespace

std::optional<int64_t> AsInteger(const JsonValue& value) {
  if (value.kind != JsonValue::Kind::kNumber) return std::nullopt;
  int64_t integer = 0;
  const char* end = value.text.data() + value.text.size();
  const auto [last, error] = std::from_chars(value.text.data(), end, integer);
  if (error == std::errc() && last == end) return integer;
  const std::optional<double> number = AsNumber(value);
  constexpr double kExact = 9007199254740992.0;  // 2^53
  if (!number || std::abs(*number) > kExact || *number != std::floor(*number)) return std::nullopt;
  return static_cast<int64_t>(*number);
}

RequestFields::RequestFields(const JsonValue& object, std::string where)
    : object_(object), where_(std::move(where)) {
  if (object.is_object()) return;
  if (where_.empty()) throw ApiError(400, "", "the request body has to be a JSON object");
  RefuseField(where_, "has to be an object");
}

std::string RequestFields::Path(std::string_view key) const {
  return where_.empty() ? std::string(key) : fmt::format("{}.{}", where_, key);
}

void RequestFields::Fail(std::string_view key, std::string_view what) const {
  RefuseField(Path(key), what);
}

const JsonValue* RequestFields::Find(std::string_view key) const {
  const JsonValue* value = object_.Find(key);
  return value && !value->is_null() ? value : nullptr;
}

const JsonValue& RequestFields::Require(std::string_view key) const {
  const JsonValue* value = Find(key);
  if (!value) Fail(key, "is missing");
  return *value;
}

std::optional<std::string> RequestFields::String(std::string_view key) const {
  const JsonValue* value = Find(key);
  if (!value) return std::nullopt;
  if (!value->is_string()) Fail(key, "has to be a string");
  return value->text;
}

std::string RequestFields::RequireString(std::string_view key) const {
  Require(key);
  return *String(key);
}

std::optional<bool> RequestFields::Boolean(std::string_view key) const {
  const JsonValue* value = Find(key);
  if (!value) return std::nullopt;
  if (!value->is_boolean()) Fail(key, "has to be true or false");
  return value->kind == JsonValue::Kind::kTrue;
}

std::optional<int64_t> RequestFields::Integer(std::string_view key, int64_t least,
                                              int64_t most) const {
  const JsonValue* value = Find(key);
  if (!value) return std::nullopt;
  const std::optional<int64_t> integer = AsInteger(*value);
  if (!integer) Fail(key, "has to be a whole number");
  if (*integer < least || *integer > most)
    Fail(key, fmt::format("has to be between {} and {}", least, most));
  return integer;
}

std::optional<double> RequestFields::Number(std::string_view key, double least, double most) const {
  const JsonValue* value = Find(key);
  if (!value) return std::nullopt;
  const std::optional<double> number = AsNumber(*value);
  if (!number) Fail(key, "has to be a number");
  if (!(*number >= least && *number <= most))
    Fail(key, fmt::format("has to be between {} and {}", least, most));
  return number;
}

const std::vector<JsonValue>* RequestFields::List(std::string_view key) const {
  const JsonValue* value = Find(key);
  if (!value) return nullptr;
  if (!value->is_array()) Fail(key, "has to be a list");
  return &value->items;
}

std::vector<std::string> RequestFields::Strings(std::string_view key, size_t most) const {
  const JsonValue* value = Find(key);
  if (!value) return {};
  if (value->is_string()) return {value->text};
  if (!value->is_array()) Fail(key, "has to be a string or a list of strings");
  if (value->items.size() > most) Fail(key, fmt::format("has more than {} entries", most));
  std::vector<std::string> strings;
  for (const JsonValue& item : value->items) {
    if (!item.is_string()) Fail(fmt::format("{}[{}]", key, strings.size()), "has to be a string");
    strings.push_back(item.text);
  }
  return strings;
}

void RequestFields::Refuse(std::string_view key, std::string_view why,
                           std::string_view harmless) const {
  const JsonValue* value = Find(key);
  if (value && DumpPythonJson(*value) != harmless) Fail(key, why);
}

JsonValue ParseRequestBody(std::string_view body) {
  try {
    JsonValue value = ParsePythonJson(body, "the request body");
    const RequestFields checked{value};  // refuses what is not an object
    return value;
  } catch (const ApiError&) {
    throw;
  } catch (const Error& error) {
    throw ApiError(400, "", error.what());
  }
}

}  // namespace toaster
