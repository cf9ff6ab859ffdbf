#include "checkpoint/safetensors_header.h"

#include <fmt/format.h>

#include <bit>
#include <cstring>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/printable.h"

namespace toaster {
namespace {

constexpr uint64_t kLongestHeader = 100'000'000;
constexpr size_t kMostExtents = 8;

// Receives the header event by event, so that no tree of it is ever built: one header may describe
// a hundred thousand tensors.
class HeaderHandler {
 public:
  HeaderHandler(const std::string& origin, std::vector<HeaderEntry>& entries)
      : origin_(origin), entries_(entries) {}

  bool start_object(size_t) {
    if (depth_ == 0) {
      depth_ = 1;
    } else if (depth_ == 1) {
      depth_ = 2;
      if (!in_metadata_) entries_.emplace_back().name = name_;
      seen_ = 0;
    } else {
      Refuse("an object");
    }
    return true;
  }

  bool key(std::string& text) {
    if (depth_ == 1) {
      name_ = text;
      in_metadata_ = text == "__metadata__";
    } else if (!in_metadata_) {
      field_ = text == "dtype"          ? Field::kDtype
               : text == "shape"        ? Field::kShape
               : text == "data_offsets" ? Field::kOffsets
                                        : Field::kNone;
      if (field_ == Field::kNone) Refuse(fmt::format("the key '{}'", Printable(text)));
      const unsigned bit = 1u << static_cast<unsigned>(field_);
      if ((seen_ & bit) != 0) Refuse(fmt::format("two keys '{}'", text));
      seen_ |= bit;
    }
    return true;
  }

  bool string(std::string& text) {
    if (depth_ != 2) Refuse("a string");
    if (in_metadata_) return true;
    if (field_ != Field::kDtype) Refuse("a string");
    entries_.back().dtype = text;
    field_ = Field::kNone;
    return true;
  }

  bool start_array(size_t) {
    if (depth_ != 2 || in_metadata_ || (field_ != Field::kShape && field_ != Field::kOffsets)) {
      Refuse("a list");
    }
    depth_ = 3;
    offsets_ = 0;
    return true;
  }

  bool number_unsigned(uint64_t value) {
    if (depth_ != 3) Refuse(fmt::format("the number {}", value));
    if (value > static_cast<uint64_t>(INT64_MAX)) Refuse(fmt::format("the number {}", value));
    const auto number = static_cast<int64_t>(value);
    HeaderEntry& entry = entries_.back();
    if (field_ == Field::kShape) {
      if (entry.shape.size() == kMostExtents) Refuse("more than eight dimensions");
      entry.shape.push_back(number);
    } else {
      if (offsets_ == 2) Refuse("more than two data_offsets");
      (offsets_++ == 0 ? entry.begin : entry.end) = number;
    }
    return true;
  }

  bool end_array() {
    if (field_ == Field::kOffsets && offsets_ != 2) Refuse("fewer than two data_offsets");
    depth_ = 2;
    field_ = Field::kNone;
    return true;
  }

  bool end_object() {
    if (depth_ == 2 && !in_metadata_ && seen_ != kAllFields)
      Refuse("not all of dtype, shape and data_offsets");
    --depth_;
    in_metadata_ = false;
    return true;
  }

  bool number_integer(int64_t value) { return Refuse(fmt::format("the number {}", value)); }
  bool number_float(double, const std::string& text) {
    return Refuse(fmt::format("the number {}", Printable(text)));
  }
  bool boolean(bool value) { return Refuse(value ? "true" : "false"); }
  bool null() { return Refuse("null"); }
  bool binary(nlohmann::json::binary_t&) { return Refuse("binary data"); }

  bool parse_error(size_t position, const std::string&, const nlohmann::json::exception&) {
    throw Error(ErrorCode::kCorruptFile,
                fmt::format("{}: the header is not valid JSON at byte {} of the file; download the "
                            "file again",
                            origin_, 8 + position));
  }

 private:
  enum class Field { kDtype, kShape, kOffsets, kNone };
  static constexpr unsigned kAllFields = 7;

  [[noreturn]] bool Refuse(const std::string& what) const {
    const std::string where =
        depth_ == 0 ? "the header" : fmt::format("the header's entry '{}'", Printable(name_));
    throw Error(ErrorCode::kCorruptFile,
                fmt::format("{}: {} has {}, which the format does not allow; download the file "
                            "again",
                            origin_, where, what));
  }

  const std::string& origin_;
  std::vector<HeaderEntry>& entries_;
  int depth_ = 0;  // 1: in the header, 2: in an entry, 3: in a list of an entry
  std::string name_;
  bool in_metadata_ = false;
  Field field_ = Field::kNone;
  unsigned seen_ = 0;  // bits of the entry's keys met so far
  int offsets_ = 0;
};

}  // namespace

std::string_view HeaderText(std::span<const std::byte> file, const std::string& origin) {
  uint64_t length = 0;
  if (file.size() < sizeof(length)) {
    throw Error(ErrorCode::kCorruptFile,
                fmt::format("{}: {} bytes, too short for a safetensors file; download it again",
                            origin, file.size()));
  }
  static_assert(std::endian::native == std::endian::little);
  std::memcpy(&length, file.data(), sizeof(length));
  if (length > file.size() - sizeof(length)) {
    throw Error(ErrorCode::kCorruptFile,
                fmt::format("{}: the header claims {} bytes, but the file has {}; it is cut short "
                            "or no safetensors file, download it again",
                            origin, length, file.size()));
  }
  if (length > kLongestHeader) {
    throw Error(ErrorCode::kCorruptFile,
                fmt::format("{}: the header claims {} bytes, more than the {} that the format "
                            "allows; download the file again",
                            origin, length, kLongestHeader));
  }
  return {reinterpret_cast<const char*>(file.data()) + sizeof(length), static_cast<size_t>(length)};
}

std::vector<HeaderEntry> ParseHeader(std::string_view text, const std::string& origin) {
  std::vector<HeaderEntry> entries;
  HeaderHandler handler(origin, entries);
  nlohmann::json::sax_parse(text.begin(), text.end(), &handler);
  return entries;
}

}  // namespace toaster
