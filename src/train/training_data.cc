#include "train/training_data.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/check.h"
#include "base/digest.h"
#include "base/error.h"
#include "base/mapped_file.h"
#include "base/random.h"
#include "chat/conversation.h"
#include "chat/json_lines.h"
#include "chat/render_prompt.h"
#include "tokenizer/special_tokens.h"

namespace toaster {

namespace {

namespace fs = std::filesystem;

constexpr std::string_view kSeparator = "<|endoftext|>";

std::vector<fs::path> FilesOf(const std::vector<fs::path>& paths) {
  std::vector<fs::path> files;
  for (const fs::path& path : paths) {
    std::error_code error;
    if (!fs::is_directory(path, error)) {
      files.push_back(path);
      continue;
    }
    std::vector<fs::path> found;
    for (const auto& entry : fs::recursive_directory_iterator(path, error)) {
      if (entry.is_regular_file() && !entry.path().filename().string().starts_with('.'))
        found.push_back(entry.path());
    }
    if (error) {
      throw Error(ErrorCode::kIo, fmt::format("{}: {}", path.string(), error.message()));
    }
    std::sort(found.begin(), found.end());
    files.insert(files.end(), found.begin(), found.end());
  }
  return files;
}

// Appends the documents of one file.
class FileReader {
 public:
  FileReader(const Tokenizer& tokenizer, const PromptTexts& texts, int64_t sequence_tokens,
             TrainingData& data)
      : tokenizer_(tokenizer),
        texts_(texts),
        longest_(static_cast<size_t>(sequence_tokens)),
        data_(data),
        bos_(tokenizer.ControlToken(kBosToken)),
        eos_(tokenizer.ControlToken(kEosToken)) {}

  void AddText(std::string_view text) {
    if (text.empty()) return;
    tokens_.clear();
    if (bos_) tokens_.push_back(*bos_);
    tokenizer_.Encode(text, ControlTokens::kAsText, tokens_);
    if (eos_) tokens_.push_back(*eos_);
    wanted_.clear();
    Emit();
  }

  // One document for turns that see the same beginning; where a turn's prompt leaves out what an
  // earlier one had (dropped reasoning), another.
  void AddConversation(const Conversation& conversation) {
    tokens_.clear();
    wanted_.clear();
    Conversation part = conversation;
    part.messages.clear();
    bool any = false;
    for (const Message& message : conversation.messages) {
      if (message.role != Role::kAssistant) {
        part.messages.push_back(message);
        continue;
      }
      const std::vector<int32_t> prompt =
          EncodePrompt(RenderPrompt(part, texts_), tokenizer_).tokens;
      part.messages.push_back(message);
      const std::vector<int32_t> whole =
          EncodePrompt(RenderPrompt(part, texts_), tokenizer_).tokens;
      if (whole.size() <= prompt.size() ||
          !std::equal(prompt.begin(), prompt.end(), whole.begin())) {
        throw Error(ErrorCode::kInvalidArgument,
                    "an assistant message does not follow what the model would be asked to "
                    "continue; it has to come after a user or tool message");
      }
      if (tokens_.size() > prompt.size() ||
          !std::equal(tokens_.begin(), tokens_.end(), prompt.begin())) {
        Emit();
        tokens_.clear();
        wanted_.clear();
      }
      tokens_ = whole;
      wanted_.resize(prompt.size(), 0);
      wanted_.resize(whole.size(), 1);
      any = true;
    }
    if (!any) {
      throw Error(ErrorCode::kInvalidArgument,
                  "the conversation has no assistant message, so there is nothing to learn");
    }
    Emit();
  }

 private:
  void Emit() {
    for (size_t begin = 0; begin < tokens_.size(); begin += longest_) {
      const size_t size = std::min(longest_, tokens_.size() - begin);
      if (size < 2) break;  // predicts nothing
      const std::span<const uint8_t> wanted(wanted_);
      data_.Add(std::span(tokens_).subspan(begin, size),
                wanted.empty() ? wanted : wanted.subspan(begin, size));
    }
  }

  const Tokenizer& tokenizer_;
  const PromptTexts& texts_;
  const size_t longest_;
  TrainingData& data_;
  const std::optional<int32_t> bos_, eos_;
  std::vector<int32_t> tokens_;
  std::vector<uint8_t> wanted_;
};

void AddJsonLine(FileReader& reader, const JsonValue& json) {
  const JsonValue* text = json.Find("text");
  if (text == nullptr) return reader.AddConversation(ParseConversation(json));
  if (!text->is_string()) throw Error(ErrorCode::kInvalidArgument, "\"text\" has to be a string");
  reader.AddText(text->text);
}

// Text with lines that separate documents.
void AddTexts(FileReader& reader, std::string_view all) {
  size_t begin = 0;  // of the document at hand
  for (size_t at = 0; at < all.size();) {
    const size_t end = std::min(all.find('\n', at), all.size());
    if (all.substr(at, end - at) == kSeparator) {
      reader.AddText(all.substr(begin, at - begin));
      begin = std::min(end + 1, all.size());
    }
    at = end + 1;
  }
  reader.AddText(all.substr(begin));
}

}  // namespace

TrainingData TrainingData::Read(const std::vector<fs::path>& paths, const Tokenizer& tokenizer,
                                const PromptTexts& texts, int64_t sequence_tokens,
                                const ReadProgress& progress) {
  TrainingData data;
  std::vector<MappedFile> files;
  const std::vector<fs::path> names = FilesOf(paths);
  int64_t total = 0, done = 0;
  for (const fs::path& name : names) {
    files.emplace_back(name);
    total += static_cast<int64_t>(files.back().bytes().size());
  }
  FileReader reader(tokenizer, texts, sequence_tokens, data);
  const auto tell = [&] {
    if (progress && !progress(done, total))
      throw Error(ErrorCode::kCancelled, "stopped while the data were read");
  };
  for (size_t i = 0; i < names.size(); ++i) {
    const auto bytes = files[i].bytes();
    const std::string_view all(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    if (names[i].extension() == ".jsonl") {
      int64_t lines = 0;
      ForEachJsonLine(all, names[i].string(), [&](const JsonValue& json) {
        AddJsonLine(reader, json);
        if (++lines % 1024 == 0) tell();
      });
    } else {
      AddTexts(reader, all);
    }
    done += static_cast<int64_t>(all.size());
    tell();
  }
  return data;
}

void TrainingData::Add(std::span<const int32_t> tokens, std::span<const uint8_t> wanted) {
  CHECK(wanted.empty() || wanted.size() == tokens.size(), "{} and {}", wanted.size(),
        tokens.size());
  if (!wanted.empty()) wanted_.resize(tokens_.size(), 1);
  tokens_.insert(tokens_.end(), tokens.begin(), tokens.end());
  if (!wanted.empty()) {
    wanted_.insert(wanted_.end(), wanted.begin(), wanted.end());
  } else if (!wanted_.empty()) {
    wanted_.resize(tokens_.size(), 1);
  }
  ends_.push_back(static_cast<int64_t>(tokens_.size()));
  ordered_epoch_ = -1;
}

Document TrainingData::At(int64_t document) const {
  const auto i = static_cast<size_t>(document);
  const auto begin = static_cast<size_t>(i == 0 ? 0 : ends_[i - 1]);
  const size_t size = static_cast<size_t>(ends_[i]) - begin;
  Document found{std::span(tokens_).subspan(begin, size)};
  if (!wanted_.empty()) found.wanted = std::span(wanted_).subspan(begin, size);
  return found;
}

TrainingData TrainingData::SetAside(double share) {
  TrainingData kept, aside;
  for (int64_t i = 0; i < documents(); ++i) {
    const Document document = At(i);
    Digest digest;
    digest.AddValues(document.tokens);
    // 52 bits of the content's digest as a number in [0, 1).
    const double place =
        static_cast<double>(std::stoull(digest.Hex().substr(0, 13), nullptr, 16)) * 0x1p-52;
    (place < share ? aside : kept).Add(document.tokens, document.wanted);
  }
  *this = std::move(kept);
  return aside;
}

std::string TrainingData::DigestHex() const {
  Digest digest;
  digest.AddValues(std::span<const int64_t>(ends_));
  digest.AddValues(std::span<const int32_t>(tokens_));
  digest.AddValues(std::span<const uint8_t>(wanted_));
  return digest.Hex();
}

const std::vector<int32_t>& TrainingData::Order(int64_t epoch, uint64_t seed) {
  if (ordered_epoch_ == epoch && ordered_seed_ == seed) return order_;
  // Sorted by a random key each: the same whoever asks, and for any number of documents.
  std::vector<std::pair<uint64_t, int32_t>> keys;
  keys.reserve(ends_.size());
  for (int64_t i = 0; i < documents(); ++i) {
    const auto random = Philox(seed, static_cast<uint64_t>(i), static_cast<uint64_t>(epoch));
    keys.emplace_back(uint64_t{random[0]} << 32 | random[1], static_cast<int32_t>(i));
  }
  std::sort(keys.begin(), keys.end());
  order_.clear();
  for (const auto& [key, document] : keys) order_.push_back(document);
  ordered_epoch_ = epoch;
  ordered_seed_ = seed;
  return order_;
}

std::vector<Document> TrainingData::NextBatch(DataPosition& position, int64_t batch_tokens,
                                              uint64_t seed) {
  CHECK(documents() > 0);
  if (position.next >= documents()) {
    ++position.epoch;
    position.next = 0;
  }
  const std::vector<int32_t>& order = Order(position.epoch, seed);
  std::vector<Document> batch;
  int64_t sum = 0;
  while (position.next < documents()) {
    const Document document = At(order[static_cast<size_t>(position.next)]);
    const auto size = static_cast<int64_t>(document.tokens.size());
    if (!batch.empty() && sum + size > batch_tokens) break;
    batch.push_back(document);
    sum += size;
    ++position.next;
  }
  return batch;
}

}  // namespace toaster
