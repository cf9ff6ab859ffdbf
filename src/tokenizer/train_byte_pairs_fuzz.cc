// Training on any text gives a file that is read back, under whose tokenizer the text takes as many
// tokens as training said and comes back.

#include <cstdlib>
#include <string>

#include "tokenizer/tokenizer.h"
#include "tokenizer/train_byte_pairs.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace toaster;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  WordCounts words;
  words.Add(text);
  BytePairTraining settings;
  settings.vocab_size = MinTrainedVocabulary() + (size > 0 ? data[0] : 0);
  settings.min_count = 1 + static_cast<int64_t>(size % 3);
  settings.single_digits = size % 2 == 1;
  const TrainedBytePairs trained = TrainBytePairs(words, settings);
  const Tokenizer tokenizer = Tokenizer::FromJson(TokenizerFileText(trained.file), "fuzz");
  const std::vector<int32_t> tokens = tokenizer.Encode(text);
  if (tokenizer.Decode(tokens) != text) std::abort();
  if (size <= 1024 && static_cast<int64_t>(tokens.size()) != trained.tokens) std::abort();
  // Cut where it may be cut, the words are the same.
  const size_t cut = WordCounts::WholeLines(text);
  WordCounts parts;
  parts.Add(text.substr(0, cut));
  parts.Add(text.substr(cut));
  if (parts.counts() != words.counts()) std::abort();
  return 0;
}
