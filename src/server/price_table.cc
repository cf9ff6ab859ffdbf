#include "server/price_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/json.h"

namespace toaster {
namespace {

std::string Lower(std::string_view text) {
  std::string lower(text);
  std::transform(lower.begin(), lower.end(), lower.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  return lower;
}

}  // namespace

PriceTable::PriceTable() : entries_{{"pro", {0.003625, 0.435, 0.87}}, {"", {0.0028, 0.14, 0.28}}} {}

PriceTable PriceTable::FromJson(std::string_view text, const std::string& origin) {
  const auto refuse = [&](const std::string& what) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("{}: {}; write {{\"part of a model's name\": {{\"cache_hit\": 0.0028, "
                            "\"cache_miss\": 0.14, \"output\": 0.28}}}}",
                            origin, what));
  };
  PriceTable table;
  table.entries_.clear();
  ParseJson(text, origin);  // refuses what is no JSON; the order of keys counts, so read it again
  const nlohmann::ordered_json json = nlohmann::ordered_json::parse(text);
  if (!json.is_object()) refuse("has to be an object");
  for (const auto& [part, prices] : json.items()) {
    Entry entry = {Lower(part), {}};
    for (auto [key, value] : {std::pair{"cache_hit", &entry.prices.cache_hit},
                              std::pair{"cache_miss", &entry.prices.cache_miss},
                              std::pair{"output", &entry.prices.output}}) {
      const bool good = prices.is_object() && prices.contains(key) && prices[key].is_number() &&
                        prices[key].get<double>() >= 0;
      if (!good) refuse(fmt::format("\"{}\" has no price \"{}\"", part, key));
      *value = prices[key];
    }
    table.entries_.push_back(std::move(entry));
  }
  return table;
}

TokenPrices PriceTable::For(std::string_view model) const {
  const std::string name = Lower(model);
  for (const Entry& entry : entries_) {
    if (name.find(entry.part) != std::string::npos) return entry.prices;
  }
  return {};
}

double Cost(const TokenPrices& prices, double hit_tokens, double miss_tokens,
            double output_tokens) {
  return (hit_tokens * prices.cache_hit + miss_tokens * prices.cache_miss +
          output_tokens * prices.output) /
         1e6;
}

}  // namespace toaster
