#include "server/reply.h"

#include <fmt/format.h>

#include <random>

namespace toaster {

std::string ServerSentEvent(const OrderedJson& data, std::string_view name) {
  if (name.empty()) return fmt::format("data: {}\n\n", DumpJson(data));
  return fmt::format("event: {}\ndata: {}\n\n", name, DumpJson(data));
}

std::string_view OpenAiFinishReason(FinishReason reason) {
  switch (reason) {
    case FinishReason::kLength:
      return "length";
    case FinishReason::kToolCalls:
      return "tool_calls";
    case FinishReason::kStop:
      break;
  }
  return "stop";
}

OrderedJson OpenAiUsage(const Usage& usage) {
  return {{"prompt_tokens", usage.prompt_tokens},
          {"completion_tokens", usage.completion_tokens},
          {"total_tokens", usage.prompt_tokens + usage.completion_tokens},
          {"prompt_tokens_details", {{"cached_tokens", usage.cached_tokens}}},
          {"completion_tokens_details", {{"reasoning_tokens", usage.reasoning_tokens}}},
          {"prompt_cache_hit_tokens", usage.cached_tokens},
          {"prompt_cache_miss_tokens", usage.prompt_tokens - usage.cached_tokens}};
}

std::string RandomHex(size_t count) {
  std::random_device device;
  std::string digits;
  while (digits.size() < count) digits += fmt::format("{:08x}", device());
  digits.resize(count);
  return digits;
}

}  // namespace toaster
