#include "checkpoint/shard_index.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/printable.h"

namespace toaster {
namespace {

// A shard lies beside its index: anything that could lead elsewhere is refused.
bool IsPlainFileName(const std::string& name) {
  return !name.empty() && name.size() < 256 && name != "." && name != ".." &&
         name.find('/') == std::string::npos && name.find('\0') == std::string::npos;
}

// Receives the index event by event; only the weight map is kept.
class IndexHandler {
 public:
  IndexHandler(const std::string& origin, ShardIndex& index) : origin_(origin), index_(index) {}

  bool start_object(size_t) {
    if (in_map_) RefuseValue("an object");
    if (depth_ == 0) is_object_ = true;
    in_map_ = depth_ == 1 && is_object_ && key_ == "weight_map";
    if (in_map_ && found_) Refuse("has two keys 'weight_map'");
    found_ = found_ || in_map_;
    ++depth_;
    return true;
  }
  bool end_object() {
    --depth_;
    in_map_ = false;
    return true;
  }
  bool start_array(size_t) {
    if (in_map_) RefuseValue("a list");
    ++depth_;
    return true;
  }
  bool end_array() {
    --depth_;
    return true;
  }
  bool key(std::string& text) {
    if (in_map_ || depth_ == 1) key_ = text;
    return true;
  }

  bool string(std::string& text) {
    if (!in_map_) return true;
    if (!IsPlainFileName(text)) {
      Refuse(fmt::format("puts tensor '{}' into '{}', which is no file name in this directory",
                         Printable(key_), Printable(text)));
    }
    const auto [file, is_new] =
        numbers_.try_emplace(text, static_cast<uint32_t>(index_.files.size()));
    if (is_new) index_.files.push_back(text);
    if (!index_.weight_map.try_emplace(key_, file->second).second) {
      Refuse(fmt::format("names tensor '{}' twice", Printable(key_)));
    }
    return true;
  }

  bool number_unsigned(uint64_t) { return OtherValue("a number"); }
  bool number_integer(int64_t) { return OtherValue("a number"); }
  bool number_float(double, const std::string&) { return OtherValue("a number"); }
  bool boolean(bool) { return OtherValue("a truth value"); }
  bool null() { return OtherValue("null"); }
  bool binary(nlohmann::json::binary_t&) { return OtherValue("binary data"); }

  bool parse_error(size_t position, const std::string&, const nlohmann::json::exception&) {
    Refuse(fmt::format("is not valid JSON at byte {}", position));
  }

  void Finish() const {
    if (!found_) Refuse("has no object 'weight_map'");
    if (index_.weight_map.empty()) Refuse("has an empty 'weight_map'");
  }

 private:
  [[noreturn]] void Refuse(const std::string& what) const {
    throw Error(ErrorCode::kCorruptFile,
                fmt::format("{}: the index {}; download it again", origin_, what));
  }
  [[noreturn]] void RefuseValue(const std::string& kind) const {
    Refuse(fmt::format("gives {} instead of a file name for tensor '{}'", kind, Printable(key_)));
  }
  bool OtherValue(const char* kind) const {
    if (in_map_) RefuseValue(kind);
    return true;
  }

  const std::string& origin_;
  ShardIndex& index_;
  std::unordered_map<std::string, uint32_t> numbers_;
  int64_t depth_ = 0;
  bool is_object_ = false;
  bool in_map_ = false;
  bool found_ = false;
  std::string key_;
};

}  // namespace

ShardIndex ParseShardIndex(std::string_view text, const std::string& origin) {
  ShardIndex index;
  IndexHandler handler(origin, index);
  nlohmann::json::sax_parse(text.begin(), text.end(), &handler);
  handler.Finish();
  return index;
}

}  // namespace toaster
