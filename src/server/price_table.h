#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace toaster {

/// US dollars per million tokens.
struct TokenPrices {
  double cache_hit = 0, cache_miss = 0, output = 0;
};

/// What the same traffic would cost at a provider. Immutable.
class PriceTable {
 public:
  /// DeepSeek's list since 31 May 2026: V4 Flash, and V4 Pro for models with "pro" in their name.
  PriceTable();
  /// From JSON: {"pro": {"cache_hit": 0.003625, "cache_miss": 0.435, "output": 0.87}, "": {...}}.
  /// The first key that a model's name contains (in any case of letters) counts; "" is in every
  /// name. Throws Error(kInvalidArgument) naming `origin`.
  static PriceTable FromJson(std::string_view json, const std::string& origin);

  /// Zeros if no entry is for the model.
  TokenPrices For(std::string_view model) const;

 private:
  struct Entry {
    std::string part;
    TokenPrices prices;
  };
  std::vector<Entry> entries_;
};

/// In US dollars.
double Cost(const TokenPrices& prices, double hit_tokens, double miss_tokens, double output_tokens);

}  // namespace toaster
