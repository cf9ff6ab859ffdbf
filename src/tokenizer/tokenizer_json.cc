#include "tokenizer/tokenizer_json.h"

#include <fmt/format.h>

#include "base/error.h"
#include "tokenizer/byte_pairs.h"

namespace toaster {
namespace {

using nlohmann::json;

/// Values outside the two tables; DeepSeek V4's file has some 11,000.
constexpr size_t kMaxOtherValues = 1'000'000;
constexpr size_t kMaxDepth = 32;

/// Receives the events of nlohmann's parser. Always in one of three places: the vocabulary, the
/// merges, or the rest.
class Handler : public nlohmann::json_sax<json> {
 public:
  Handler(TokenizerJson& result, const std::string& origin) : result_(result), origin_(origin) {}

  bool null() override { return Value(nullptr); }
  bool boolean(bool value) override { return Value(value); }
  bool number_integer(number_integer_t value) override { return Number(value); }
  bool number_unsigned(number_unsigned_t value) override {
    return value <= INT64_MAX ? Number(static_cast<int64_t>(value)) : Value(value);
  }
  bool number_float(number_float_t value, const string_t&) override { return Value(value); }
  bool string(string_t& value) override {
    if (place_ != Place::kMerges) return Value(std::move(value));
    if (in_pair_) {
      pair_.push_back(std::move(value));
      if (pair_.size() > 2) Fail("model.merges: an entry with more than two parts");
      return true;
    }
    CheckMerges();
    const size_t blank = value.find(' ');
    if (blank == 0 || blank >= value.size() - 1 || value.find(' ', blank + 1) != value.npos)
      Fail(fmt::format("model.merges: entry {} is not two tokens", result_.merges.size()));
    result_.merges.emplace_back(value.substr(0, blank), value.substr(blank + 1));
    return true;
  }
  bool binary(binary_t&) override { return false; }

  bool start_object(size_t) override {
    if (place_ == Place::kRest && InModel() && key_ == "vocab") {
      if (std::exchange(result_.has_vocab, true)) Fail("model.vocab appears twice");
      place_ = Place::kVocab;
      return true;
    }
    return Open(json::object());
  }
  bool start_array(size_t) override {
    if (place_ == Place::kRest && InModel() && key_ == "merges") {
      if (std::exchange(result_.has_merges, true)) Fail("model.merges appears twice");
      place_ = Place::kMerges;
      return true;
    }
    if (place_ == Place::kMerges && !in_pair_) {
      CheckMerges();
      in_pair_ = true;
      return true;
    }
    return Open(json::array());
  }
  bool key(string_t& name) override {
    key_ = std::move(name);
    if (place_ == Place::kRest && open_.back()->contains(key_))
      Fail(fmt::format("\"{}\" appears twice in one object", key_.substr(0, 64)));
    return true;
  }
  bool end_object() override {
    if (place_ == Place::kVocab) {
      place_ = Place::kRest;
    } else {
      open_.pop_back();
    }
    return true;
  }
  bool end_array() override {
    if (in_pair_) {
      if (pair_.size() != 2)
        Fail(fmt::format("model.merges: entry {} is not two tokens", result_.merges.size()));
      result_.merges.emplace_back(std::move(pair_[0]), std::move(pair_[1]));
      pair_.clear();
      in_pair_ = false;
    } else if (place_ == Place::kMerges) {
      place_ = Place::kRest;
    } else {
      open_.pop_back();
    }
    return true;
  }
  bool parse_error(size_t position, const std::string&, const json::exception&) override {
    NotJson(position);
  }
  [[noreturn]] void NotJson(size_t position) const {
    Fail(fmt::format("not valid JSON at byte {}", position));
  }

 private:
  enum class Place { kRest, kVocab, kMerges };

  [[noreturn]] void Fail(const std::string& what) const {
    throw Error(ErrorCode::kCorruptFile, fmt::format("{}: {}; get the file again", origin_, what));
  }
  void CheckMerges() const {
    if (result_.merges.size() >= kMaxTokenIds - 1) Fail("model.merges: too many entries");
  }
  bool InModel() const { return open_.size() == 2 && in_model_; }

  bool Number(int64_t value) {
    if (place_ != Place::kVocab) return Value(value);
    if (result_.vocab.size() >= kMaxTokenIds) Fail("model.vocab: too many entries");
    result_.vocab.emplace_back(std::move(key_), value);
    return true;
  }
  bool Value(json value) {
    Add(std::move(value));
    return true;
  }
  bool Open(json value) {
    json* added = Add(std::move(value));
    if (open_.size() == 1) in_model_ = key_ == "model";
    if (open_.size() >= kMaxDepth) Fail("values nested too deeply");
    open_.push_back(added);
    return true;
  }
  json* Add(json value) {
    if (place_ == Place::kVocab) Fail("model.vocab: an id that is no integer");
    if (place_ == Place::kMerges) Fail("model.merges: an entry that is no pair of tokens");
    if (++other_values_ > kMaxOtherValues) Fail("too many values to be a tokenizer");
    if (open_.empty()) return &(result_.rest = std::move(value));
    json& parent = *open_.back();
    if (parent.is_object()) return &(parent[key_] = std::move(value));
    parent.push_back(std::move(value));
    return &parent.back();
  }

  TokenizerJson& result_;
  const std::string& origin_;
  Place place_ = Place::kRest;
  std::vector<json*> open_;  ///< the objects and arrays being filled, outermost first
  std::string key_;
  bool in_model_ = false;  ///< the second of open_ is the value of "model"
  bool in_pair_ = false;
  std::vector<std::string> pair_;
  size_t other_values_ = 0;
};

}  // namespace

TokenizerJson ReadTokenizerJson(std::string_view text, const std::string& origin) {
  TokenizerJson result;
  Handler handler(result, origin);
  // The library takes a zero byte for the end of the text.
  if (const size_t zero = text.find('\0'); zero != text.npos) handler.NotJson(zero + 1);
  json::sax_parse(text.begin(), text.end(), &handler);
  if (!result.rest.is_object()) {
    throw Error(ErrorCode::kCorruptFile, fmt::format("{}: not a JSON object", origin));
  }
  return result;
}

}  // namespace toaster
