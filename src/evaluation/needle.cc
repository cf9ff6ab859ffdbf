#include "evaluation/needle.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/random.h"

namespace toaster {
namespace {

const std::vector<std::string>& OwnFiller() {
  static const std::vector<std::string> filler = {
      "The bread is in the toaster.",        "The kettle hums on the stove.",
      "Rain runs down the kitchen window.",  "Nobody is in a hurry today.",
      "A spoon lies beside the blue bowl.",  "Outside, a tram goes by.",
      "The butter has been out since seven."};
  return filler;
}

std::string Assemble(const std::vector<std::string>& filler, size_t first, int64_t lines,
                     int64_t before, const std::string& sentence, const std::string& question) {
  std::string text;
  const auto add = [&](const std::string& line) {
    if (!text.empty()) text += ' ';
    text += line;
  };
  for (int64_t i = 0; i <= lines; ++i) {
    if (i == before) add(sentence);
    if (i < lines) add(filler[(first + static_cast<size_t>(i)) % filler.size()]);
  }
  return text + question;
}

}  // namespace

Needle MakeNeedle(const NeedleOptions& options, const std::string& question,
                  const PromptLength& prompt_length) {
  const std::vector<std::string>& filler = options.filler.empty() ? OwnFiller() : options.filler;
  const auto random = Philox(options.seed, options.number, 0);
  Needle needle;
  needle.key = fmt::format("{}", 10000 + random[0] % 90000);
  const std::string sentence =
      fmt::format("The pass key is {0}. Remember it: {0} is the pass key.", needle.key);
  const auto text_of = [&](int64_t lines) {
    const auto before = std::llround(options.depth * static_cast<double>(lines));
    return Assemble(filler, random[1] % filler.size(), lines, std::clamp<int64_t>(before, 0, lines),
                    sentence, question);
  };
  const auto fits = [&](int64_t lines) { return prompt_length(text_of(lines)) <= options.length; };
  if (!fits(0)) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("a pass key and its question do not fit into {} tokens; ask for longer "
                            "contexts",
                            options.length));
  }
  int64_t most = 0, step = 1;  // `most` lines fit
  for (; fits(most + step); step *= 2) most += step;
  for (; step > 0; step /= 2) {
    if (fits(most + step)) most += step;
  }
  needle.lines = most;
  needle.text = text_of(most);
  return needle;
}

}  // namespace toaster
