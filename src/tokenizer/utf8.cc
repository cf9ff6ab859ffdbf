#include "tokenizer/utf8.h"

#include <algorithm>

namespace toaster {
namespace {

/// What a lead byte demands of the bytes that follow it (Unicode standard, table 3-7).
struct Sequence {
  size_t length = 0;  ///< 0: no character begins with this byte
  uint8_t second_low = 0x80;
  uint8_t second_high = 0xBF;
};

Sequence SequenceOf(uint8_t lead) {
  if (lead < 0x80) return {1};
  if (lead < 0xC2) return {};
  if (lead < 0xE0) return {2};
  if (lead == 0xE0) return {3, 0xA0, 0xBF};
  if (lead == 0xED) return {3, 0x80, 0x9F};
  if (lead < 0xF0) return {3};
  if (lead == 0xF0) return {4, 0x90, 0xBF};
  if (lead < 0xF4) return {4};
  if (lead == 0xF4) return {4, 0x80, 0x8F};
  return {};
}

/// How many bytes at the front of `text` are the beginning of one well-formed character (all of it
/// if the result is its length).
size_t MatchedBytes(std::string_view text, const Sequence& sequence) {
  size_t matched = 1;
  while (matched < std::min(sequence.length, text.size())) {
    const auto byte = static_cast<uint8_t>(text[matched]);
    const bool allowed = matched == 1 ? byte >= sequence.second_low && byte <= sequence.second_high
                                      : byte >= 0x80 && byte <= 0xBF;
    if (!allowed) break;
    ++matched;
  }
  return matched;
}

}  // namespace

Utf8Character FirstCharacter(std::string_view text) {
  if (text.empty()) return {};
  const Sequence sequence = SequenceOf(static_cast<uint8_t>(text[0]));
  if (sequence.length == 0 || MatchedBytes(text, sequence) < sequence.length) return {};
  return CharacterAt(text.data());
}

size_t WellFormedPrefix(std::string_view text) {
  size_t position = 0;
  while (position < text.size()) {
    if (static_cast<uint8_t>(text[position]) < 0x80) {
      ++position;
      continue;
    }
    const uint32_t length = FirstCharacter(text.substr(position)).length;
    if (length == 0) break;
    position += length;
  }
  return position;
}

size_t UnfinishedSuffix(std::string_view text) {
  for (size_t length = 1; length <= std::min<size_t>(3, text.size()); ++length) {
    const std::string_view tail = text.substr(text.size() - length);
    const auto lead = static_cast<uint8_t>(tail[0]);
    if (lead >= 0x80 && lead < 0xC0) continue;
    const Sequence sequence = SequenceOf(lead);
    return sequence.length > length && MatchedBytes(tail, sequence) == length ? length : 0;
  }
  return 0;
}

std::string ReplaceIllFormed(std::string_view text) {
  std::string result;
  result.reserve(text.size());
  while (!text.empty()) {
    const size_t good = WellFormedPrefix(text);
    result.append(text.substr(0, good));
    text.remove_prefix(good);
    if (text.empty()) break;
    const Sequence sequence = SequenceOf(static_cast<uint8_t>(text[0]));
    text.remove_prefix(sequence.length == 0 ? 1 : MatchedBytes(text, sequence));
    AppendUtf8(0xFFFD, result);
  }
  return result;
}

std::string Utf8Buffer::Push(std::string_view bytes) {
  held_ += bytes;
  const size_t complete = held_.size() - UnfinishedSuffix(held_);
  std::string text = ReplaceIllFormed(std::string_view(held_).substr(0, complete));
  held_.erase(0, complete);
  return text;
}

std::string Utf8Buffer::Finish() {
  std::string text = ReplaceIllFormed(held_);
  held_.clear();
  return text;
}

void AppendUtf8(uint32_t code_point, std::string& text) {
  const auto continuation = [&](int shift) {
    text.push_back(static_cast<char>(0x80 | ((code_point >> shift) & 0x3F)));
  };
  if (code_point < 0x80) {
    text.push_back(static_cast<char>(code_point));
  } else if (code_point < 0x800) {
    text.push_back(static_cast<char>(0xC0 | code_point >> 6));
    continuation(0);
  } else if (code_point < 0x10000) {
    text.push_back(static_cast<char>(0xE0 | code_point >> 12));
    continuation(6);
    continuation(0);
  } else {
    text.push_back(static_cast<char>(0xF0 | code_point >> 18));
    continuation(12);
    continuation(6);
    continuation(0);
  }
}

}  // namespace toaster
