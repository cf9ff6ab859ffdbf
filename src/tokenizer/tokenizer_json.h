#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace toaster {

/// A tokenizer.json with its two long tables read straight into arrays, because as a tree of JSON
/// values they take some twenty times the room.
struct TokenizerJson {  // NOLINT(bugprone-exception-escape): moving JSON throws nothing
  nlohmann::json rest;  ///< everything else, without model.vocab and model.merges
  std::vector<std::pair<std::string, int64_t>> vocab;       ///< in the order of the file
  std::vector<std::pair<std::string, std::string>> merges;  ///< left, right
  bool has_vocab = false, has_merges = false;
};

/// Throws Error(kCorruptFile) naming `origin` for text that is no JSON object, tables of another
/// shape, or more other values than any tokenizer has.
TokenizerJson ReadTokenizerJson(std::string_view text, const std::string& origin);

}  // namespace toaster
