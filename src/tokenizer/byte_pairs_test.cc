#include "tokenizer/byte_pairs.h"

#include <gtest/gtest.h>

#include <chrono>
#include <map>
#include <numeric>
#include <random>
#include <string>

namespace toaster {
namespace {

std::array<int32_t, 256> ByteTokens() {
  std::array<int32_t, 256> tokens;
  std::iota(tokens.begin(), tokens.end(), 0);
  return tokens;
}

/// Random rules over a small alphabet, built like a trained vocabulary's: from tokens that exist.
std::vector<Merge> RandomMerges(std::mt19937& random, int count) {
  std::vector<int32_t> tokens = {'a', 'b', 'c'};
  std::map<std::pair<int32_t, int32_t>, int32_t> seen;
  std::vector<Merge> merges;
  while (static_cast<int>(merges.size()) < count) {
    const int32_t left = tokens[random() % tokens.size()], right = tokens[random() % tokens.size()];
    const auto id = static_cast<int32_t>(256 + merges.size());
    if (!seen.emplace(std::pair(left, right), id).second) continue;
    merges.push_back({left, right, id});
    tokens.push_back(id);
  }
  return merges;
}

/// The definition: the earliest rule that fits anywhere, at its leftmost place, until none fits.
std::vector<int32_t> ByDefinition(const std::vector<Merge>& merges, const std::string& word) {
  std::vector<int32_t> tokens(word.begin(), word.end());
  for (bool merged = true; merged;) {
    merged = false;
    for (const Merge& merge : merges) {
      for (size_t i = 0; i + 1 < tokens.size() && !merged; ++i) {
        if (tokens[i] != merge.left || tokens[i + 1] != merge.right) continue;
        tokens[i] = merge.result;
        tokens.erase(tokens.begin() + static_cast<ptrdiff_t>(i) + 1);
        merged = true;
      }
      if (merged) break;
    }
  }
  return tokens;
}

TEST(BytePairsTest, FollowsTheDefinition) {
  std::mt19937 random(3);
  for (int round = 0; round < 400; ++round) {
    const std::vector<Merge> merges = RandomMerges(random, static_cast<int>(random() % 40));
    const BytePairs pairs(ByteTokens(), merges);
    // Both the direct search and the heap, and lengths around where one takes over.
    for (const size_t length : {0, 1, 2, 3, 9, 63, 64, 65, 66, 150}) {
      std::string word;
      for (size_t i = 0; i < length; ++i) word += static_cast<char>('a' + random() % 3);
      std::vector<int32_t> tokens = {-7};
      pairs.Encode(word, tokens);
      std::vector<int32_t> expected = ByDefinition(merges, word);
      expected.insert(expected.begin(), -7);  // Encode appends
      ASSERT_EQ(tokens, expected) << word;
    }
  }
}

TEST(BytePairsTest, AMegabyteInOneWordIsNotQuadratic) {
  const BytePairs pairs(ByteTokens(),
                        std::vector<Merge>{{'a', 'a', 256}, {256, 256, 257}, {257, 257, 258}});
  const auto start = std::chrono::steady_clock::now();
  std::vector<int32_t> tokens;
  pairs.Encode(std::string(1 << 20, 'a'), tokens);
  const auto end = std::chrono::steady_clock::now();
  EXPECT_EQ(tokens, std::vector<int32_t>(1 << 17, 258));
  // Quadratic work would take minutes; the heap needs a fraction of a second, also under
  // sanitizers.
  EXPECT_LT(std::chrono::duration<double>(end - start).count(), 20.0);
}

}  // namespace
}  // namespace toaster
