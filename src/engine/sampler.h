#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <unordered_map>
#include <vector>

namespace toaster {

/// How the next token is drawn. The defaults draw from the model's own distribution, as the model
/// card advises.
struct SamplingOptions {
  float temperature = 1;       ///< 0: always the most likely token
  int64_t top_k = 0;           ///< keep so many tokens; 0: all
  float top_p = 1;             ///< keep the most likely tokens that reach this share together
  float min_p = 0;             ///< keep tokens at least this share as likely as the most likely one
  float presence_penalty = 0;  ///< taken from the logit of every token generated so far
  float frequency_penalty = 0;  ///< taken once per occurrence among the generated tokens
  float repetition_penalty =
      1;  ///< divides positive and multiplies negative logits of tokens of prompt and reply
  std::map<int32_t, float> logit_bias;
  uint64_t seed = 0;
};

/// Draws tokens for one reply. Order: logit bias, penalties, temperature, min-p, top-k, top-p. Ties
/// go to the lower id.
///
/// Randomness depends on the seed and the token's position in its sequence alone, so a reply is the
/// same whatever else runs.
class Sampler {
 public:
  /// Throws Error(kInvalidArgument) naming the option that is out of range.
  Sampler(const SamplingOptions& options, int64_t vocab_size);

  /// Tells which tokens stand in the prompt (for the repetition penalty).
  void AcceptPrompt(std::span<const int32_t> tokens);
  /// Tells that `token` was generated.
  void Accept(int32_t token);

  /// The token to stand at `position`, from logits [vocabulary]. Throws Error(kCorruptFile) if a
  /// logit is NaN or all are -infinity.
  int32_t Sample(std::span<const float> logits, int64_t position);

 private:
  struct Candidate {
    float logit;
    int32_t token;
  };
  void Adjust(std::span<const float> logits);
  /// Leaves the candidates that top-k, top-p and min-p keep, most likely first, with logits turned
  /// into weights; returns their sum.
  float Truncate();

  SamplingOptions options_;
  int64_t vocab_size_;
  std::unordered_map<int32_t, int64_t> generated_;  // token -> occurrences
  std::unordered_map<int32_t, bool> seen_;          // tokens of prompt and reply
  std::vector<Candidate> candidates_;
};

/// The largest logit's index, the lower one of equals.
int32_t ArgMax(std::span<const float> logits);

}  // namespace toaster
