#include "server/prompt_tamer.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <regex>
#include <string_view>

namespace toaster {
namespace {

constexpr std::string_view kBilling = "x-anthropic-billing-header:";
constexpr std::array<std::string_view, 3> kRequestKeys = {
    "request id:", "request-id:", "x-request-id:"};
constexpr std::array<std::string_view, 7> kDateKeys = {
    "today's date", "todays date",  "today is",        "the current date",
    "current date", "current time", "current datetime"};
/// A line that is longer says more than the date.
constexpr size_t kLongestDateLine = 120;

/// What a line says, in lower case, without indentation and list marks.
std::string Said(std::string_view line) {
  const size_t begin = std::min(line.find_first_not_of(" \t-*#"), line.size());
  std::string said(line.substr(begin));
  std::transform(said.begin(), said.end(), said.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  return said;
}

template <typename Keys>
bool BeginsWithAny(std::string_view text, const Keys& keys) {
  return std::any_of(keys.begin(), keys.end(),
                     [&](std::string_view key) { return text.rfind(key, 0) == 0; });
}

/// What follows the fields (name=value;) of a billing line: agents put text right behind them.
std::string AfterBilling(std::string_view line) {
  static const std::regex fields("^\\s*x-anthropic-billing-header:(\\s*[A-Za-z_]+=[^;]*;)*\\s*",
                                 std::regex::icase);
  return std::regex_replace(std::string(line), fields, "");
}

/// The line without its time of day.
std::string WithoutTime(std::string_view line, bool& had_time) {
  static const std::regex time(
      "(T|(,|\\s+at)?\\s*\\b)[0-2]?[0-9]:[0-5][0-9](:[0-6][0-9]([.,][0-9]+)?)?"
      "\\s*([AaPp]\\.?[Mm]\\.?)?\\s*(Z|[+-][0-9]{2}:?[0-9]{2}|\\(?[A-Z]{2,5}\\)?)?");
  const std::string text(line);
  std::string without = std::regex_replace(text, time, "");
  had_time = had_time || without != text;
  return without;
}

}  // namespace

std::vector<std::string> TamePrompt(Conversation& conversation) {
  std::vector<Message>& messages = conversation.messages;
  const auto user = std::find_if(messages.begin(), messages.end(), [](const Message& message) {
    return message.role == Role::kUser;
  });
  if (messages.empty() || messages[0].role != Role::kSystem || user == messages.end()) return {};

  std::string kept, dates;
  int64_t left_out = 0;
  bool had_time = false;
  std::string_view rest = messages[0].content;
  while (!rest.empty()) {
    const size_t end = std::min(rest.find('\n'), rest.size() - 1) + 1;
    std::string_view line = rest.substr(0, end);
    rest.remove_prefix(end);
    const std::string said = Said(line);
    if (said.rfind(kBilling, 0) == 0) {
      ++left_out;
      kept += AfterBilling(line);
    } else if (BeginsWithAny(said, kRequestKeys)) {
      ++left_out;
    } else if (line.size() <= kLongestDateLine && BeginsWithAny(said, kDateKeys)) {
      if (line.back() == '\n') line.remove_suffix(1);
      line.remove_prefix(std::min(line.find_first_not_of(" \t-*#"), line.size()));
      dates += (dates.empty() ? "" : "\n") + WithoutTime(line, had_time);
    } else {
      kept += line;
    }
  }
  std::vector<std::string> notes;
  if (left_out > 0) {
    notes.push_back(fmt::format(
        "lines of the system prompt that change with every request were left out: {}", left_out));
  }
  if (!dates.empty()) {
    notes.push_back(had_time ? "the date in the system prompt was moved behind it, without the time"
                             : "the date in the system prompt was moved behind it");
  }
  if (notes.empty()) return notes;
  messages[0].content = std::move(kept);
  if (!dates.empty()) {
    Message reminder;
    reminder.role = Role::kLatestReminder;
    reminder.content = std::move(dates);
    messages.insert(user, std::move(reminder));
  }
  return notes;
}

}  // namespace toaster
