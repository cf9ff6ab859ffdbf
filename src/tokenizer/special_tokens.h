#pragma once

#include <string_view>

namespace toaster {

// The control tokens of DeepSeek V4 that this program writes or looks for, by their text
//. Their ids come from the tokenizer at hand.
constexpr std::string_view kBosToken = "<｜begin▁of▁sentence｜>";
constexpr std::string_view kEosToken = "<｜end▁of▁sentence｜>";
constexpr std::string_view kPadToken = "<｜▁pad▁｜>";
constexpr std::string_view kUserToken = "<｜User｜>";
constexpr std::string_view kAssistantToken = "<｜Assistant｜>";
constexpr std::string_view kThinkToken = "<think>";
constexpr std::string_view kEndThinkToken = "</think>";
constexpr std::string_view kDsmlToken = "｜DSML｜";
constexpr std::string_view kLatestReminderToken = "<｜latest_reminder｜>";
constexpr std::string_view kActionToken = "<｜action｜>";
constexpr std::string_view kQueryToken = "<｜query｜>";
constexpr std::string_view kAuthorityToken = "<｜authority｜>";
constexpr std::string_view kDomainToken = "<｜domain｜>";
constexpr std::string_view kReadUrlToken = "<｜read_url｜>";
constexpr std::string_view kTitleToken = "<｜title｜>";
constexpr std::string_view kFimBeginToken = "<｜fim▁begin｜>";
constexpr std::string_view kFimHoleToken = "<｜fim▁hole｜>";
constexpr std::string_view kFimEndToken = "<｜fim▁end｜>";

}  // namespace toaster
