#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "apps/commands.h"
#include "apps/interrupt.h"
#include "apps/status_line.h"
#include "apps/text_input.h"
#include "base/error.h"
#include "base/mapped_file.h"
#include "base/new_file.h"
#include "base/thread_pool.h"
#include "base/units.h"
#include "chat/conversation.h"
#include "chat/json_lines.h"
#include "chat/prompt_texts.h"
#include "chat/render_prompt.h"
#include "tokenizer/special_tokens.h"
#include "tokenizer/tokenizer.h"
#include "tokenizer/train_byte_pairs.h"

namespace toaster {
namespace {

namespace fs = std::filesystem;

constexpr int kInterruptedExitCode = 130;

struct Options {
  std::vector<std::string> data;
  std::string out;
  BytePairTraining training;
  std::string prompt_texts;
  int64_t context = 65536;
  int threads = 0;
  bool force = false;
};

/// A training file: text, or one JSON object per line.
struct Source {
  std::string name;
  bool json_lines = false;
  MappedFile file;

  std::string_view text() const {
    return {reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()};
  }
};

/// A part of a file that is counted at once.
struct Piece {
  const Source* source = nullptr;
  size_t begin = 0, end = 0;
};

bool IsTextFile(const fs::path& path) {
  const std::string extension = path.extension().string();
  return extension == ".txt" || extension == ".md" || extension == ".jsonl";
}

/// The text files below `directory`, by name.
std::vector<fs::path> FilesBelow(const fs::path& directory) {
  std::vector<fs::path> paths;
  try {
    for (const fs::directory_entry& entry : fs::recursive_directory_iterator(directory)) {
      if (entry.is_regular_file() && IsTextFile(entry.path())) paths.push_back(entry.path());
    }
  } catch (const fs::filesystem_error& error) {
    throw Error(ErrorCode::kIo,
                fmt::format("{}: cannot read: {}", error.path1().string(), error.code().message()));
  }
  if (paths.empty()) {
    throw Error(ErrorCode::kNotFound, fmt::format("{}: no .txt, .md or .jsonl files in this "
                                                  "directory; name the files",
                                                  directory.string()));
  }
  std::sort(paths.begin(), paths.end());
  return paths;
}

std::vector<Source> OpenSources(const std::vector<std::string>& data) {
  std::vector<Source> sources;
  for (const fs::path path : data) {
    std::error_code ignored;
    for (const fs::path& file :
         fs::is_directory(path, ignored) ? FilesBelow(path) : std::vector<fs::path>{path})
      sources.push_back({file.string(), file.extension() == ".jsonl", MappedFile(file)});
  }
  return sources;
}

/// Where a part that begins at `begin` can end: behind a line that no word crosses. A file without
/// such lines is cut where the tokenizer would cut it, too.
size_t PieceEnd(const Source& source, size_t begin) {
  constexpr size_t kPiece = size_t{1} << 20;
  const std::string_view text = source.text();
  for (size_t length = kPiece;; length *= 2) {
    if (begin + length >= text.size()) return text.size();
    const std::string_view part = text.substr(begin, length);
    const size_t lines =
        source.json_lines ? part.rfind('\n') + 1 : WordCounts::WholeLines(part);  // npos + 1 = 0
    if (lines > 0) return begin + lines;
    if (2 * length > Tokenizer::kMaxTextBytes) return begin + length;
  }
}

std::vector<Piece> CutIntoPieces(const std::vector<Source>& sources) {
  std::vector<Piece> pieces;
  for (const Source& source : sources) {
    for (size_t begin = 0; begin < source.text().size(); begin = pieces.back().end)
      pieces.push_back({&source, begin, PieceEnd(source, begin)});
  }
  return pieces;
}

/// Counts what one JSON line holds: {"text": ...}, or a conversation, of which the words are those
/// that its prompt has between the control tokens.
void CountJsonLine(const JsonValue& line, const PromptTexts& texts, WordCounts& words) {
  const JsonValue* text = line.Find("text");
  if (text && text->is_string()) {
    words.Add(text->text);
    return;
  }
  if (!line.Find("messages")) {
    throw Error(ErrorCode::kInvalidArgument,
                "neither \"text\" nor \"messages\"; give each line one of them");
  }
  const Prompt prompt = RenderPrompt(ParseConversation(line), texts);
  for (const PromptSegment& segment : prompt.segments()) {
    if (!segment.control) words.Add(segment.text);
  }
}

void CountPiece(const Piece& piece, const PromptTexts& texts, WordCounts& words) {
  const std::string_view before = piece.source->text().substr(0, piece.begin);
  const std::string_view text = piece.source->text().substr(piece.begin, piece.end - piece.begin);
  if (!piece.source->json_lines) {
    words.Add(text);
    return;
  }
  ForEachJsonLine(
      text, piece.source->name, [&](const JsonValue& line) { CountJsonLine(line, texts, words); },
      1 + static_cast<size_t>(std::count(before.begin(), before.end(), '\n')));
}

WordCounts CountWords(const std::vector<Source>& sources, const PromptTexts& texts,
                      const Options& options, StatusLine& status) {
  const std::vector<Piece> pieces = CutIntoPieces(sources);
  ThreadPool pool(options.threads > 0 ? options.threads : UsableProcessors());
  std::vector<WordCounts> counts(static_cast<size_t>(pool.threads()));
  pool.ParallelFor(
      static_cast<int64_t>(pieces.size()), 1, [&](int64_t begin, int64_t end, int thread) {
        for (int64_t i = begin; i < end; ++i) {
          if (InterruptScope::Raised())
            throw Error(ErrorCode::kCancelled, "stopped while reading the texts");
          CountPiece(pieces[static_cast<size_t>(i)], texts, counts[static_cast<size_t>(thread)]);
          if (thread == 0) status.Show(fmt::format("reading: part {} of {}", i + 1, pieces.size()));
        }
      });
  for (size_t i = 1; i < counts.size(); ++i) counts[0].Add(std::exchange(counts[i], {}));
  return std::move(counts[0]);
}

/// What else a model's folder has beside its tokenizer: for other programs its settings, for this
/// one the texts of the prompt format.
void WriteCompanions(const Options& options, const std::string& prompt_texts) {
  using nlohmann::ordered_json;
  const fs::path out = options.out;
  const ordered_json tokenizer_config = {
      {"add_bos_token", false}, {"add_eos_token", false},
      {"bos_token", kBosToken}, {"clean_up_tokenization_spaces", false},
      {"eos_token", kEosToken}, {"model_max_length", options.context},
      {"pad_token", kEosToken}, {"tokenizer_class", "PreTrainedTokenizerFast"},
      {"unk_token", nullptr}};
  const ordered_json generation_config = {{"bos_token_id", 0},
                                          {"do_sample", true},
                                          {"eos_token_id", 1},
                                          {"temperature", 1.0},
                                          {"top_p", 1.0}};
  WriteWholeFile(out / "tokenizer_config.json", tokenizer_config.dump(2) + "\n");
  WriteWholeFile(out / "generation_config.json", generation_config.dump(2) + "\n");
  WriteWholeFile(out / "encoding" / "prompt_texts.json", prompt_texts);
}

void MakeFolder(const Options& options) {
  const fs::path out = options.out;
  if (!options.force && fs::exists(out / "tokenizer.json")) {
    throw Error(
        ErrorCode::kInvalidArgument,
        fmt::format("{}: has a tokenizer.json; choose another place or add --force", options.out));
  }
  std::error_code failure;
  fs::create_directories(out / "encoding", failure);
  if (failure) {
    throw Error(ErrorCode::kIo, fmt::format("{}: cannot make the directory: {}",
                                            (out / "encoding").string(), failure.message()));
  }
}

void TrainTokenizer(const Options& options) {
  const std::string texts_json = options.prompt_texts.empty() ? std::string(DefaultPromptTexts())
                                                              : ReadInput(options.prompt_texts);
  const PromptTexts texts = PromptTexts::FromJson(
      texts_json, options.prompt_texts.empty() ? "the default texts" : options.prompt_texts);
  MakeFolder(options);
  const auto start = std::chrono::steady_clock::now();
  StatusLine status;
  const WordCounts words = CountWords(OpenSources(options.data), texts, options, status);
  const TrainedBytePairs trained =
      TrainBytePairs(words, options.training, [&](int64_t done, int64_t wanted) {
        if (status.Due()) status.Show(fmt::format("merging: {} of {}", done, wanted));
        return !InterruptScope::Raised();
      });
  WriteCompanions(options, texts_json);
  WriteWholeFile(fs::path(options.out) / "tokenizer.json", TokenizerFileText(trained.file));
  status.Clear();
  const auto tokens = static_cast<int64_t>(trained.file.tokens.size());
  if (tokens < options.training.vocab_size) {
    fmt::print(stderr,
               "note: the texts have pairs for {} tokens of the {} asked for; give more text or "
               "lower --min-count\n",
               tokens, options.training.vocab_size);
  }
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  fmt::print(
      "{}: {} tokens from {} of text in {} words, {} of them different; {:.3f} bytes per "
      "token; {:.1f} s\n",
      options.out, tokens, BytesText(static_cast<double>(words.bytes())),
      GroupedText(words.total()), GroupedText(static_cast<int64_t>(words.counts().size())),
      static_cast<double>(words.bytes()) /
          static_cast<double>(std::max<int64_t>(1, trained.tokens)),
      seconds.count());
}

}  // namespace

void AddTrainTokenizerCommand(CLI::App& app, int& exit_code) {
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand(
      "train-tokenizer",
      "Train a byte-level BPE tokenizer of DeepSeek's kind on texts; writes tokenizer.json and "
      "what else a model's folder has beside its weights. The same texts give the same file");
  command
      ->add_option("DATA", options->data,
                   "Text files, .jsonl files (a line is {\"text\": ...} or a conversation: "
                   "{\"messages\": [...]}), and directories of .txt, .md and .jsonl files")
      ->required()
      ->envname("TOASTER_DATA");
  command->add_option("-o,--out", options->out, "The directory to write to")
      ->required()
      ->envname("TOASTER_OUT");
  command
      ->add_option("--vocab-size", options->training.vocab_size,
                   "Tokens in all, the 256 bytes and the control tokens included")
      ->envname("TOASTER_VOCAB_SIZE")
      ->capture_default_str();
  command
      ->add_option("--min-count", options->training.min_count,
                   "A pair of tokens seen less often is not merged")
      ->envname("TOASTER_MIN_COUNT")
      ->capture_default_str();
  command
      ->add_flag("--single-digits", options->training.single_digits,
                 "Keep every digit a token of its own, which small models calculate better with")
      ->envname("TOASTER_SINGLE_DIGITS");
  command
      ->add_option("--prompt-texts", options->prompt_texts,
                   "A prompt_texts.json for the model, also used to render the conversations "
                   "(default: texts for tools, response formats and efforts)")
      ->envname("TOASTER_PROMPT_TEXTS");
  command
      ->add_option("--context", options->context,
                   "The longest sequence of the model, for tokenizer_config.json")
      ->envname("TOASTER_CONTEXT")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command->add_option("--threads", options->threads, "Threads (all processors)")
      ->envname("TOASTER_THREADS")
      ->check(CLI::Range(1, 1024));
  command->add_flag("--force", options->force, "Replace a tokenizer that is there")
      ->envname("TOASTER_FORCE");
  command->callback([options, &exit_code] {
    const InterruptScope interrupts(InterruptScope::Second::kKills);
    try {
      TrainTokenizer(*options);
      exit_code = 0;
    } catch (const Error& error) {
      if (error.code() != ErrorCode::kCancelled) throw;
      fmt::print(stderr, "{}; nothing is written\n", error.what());
      exit_code = kInterruptedExitCode;
    }
  });
}

}  // namespace toaster
