#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <iterator>
#include <memory>
#include <nlohmann/json.hpp>
#include <vector>

#include "apps/commands.h"
#include "apps/engine_options.h"
#include "apps/text_input.h"
#include "base/error.h"
#include "tokenizer/tokenizer.h"
#include "tokenizer/utf8.h"

namespace toaster {
namespace {

struct Options {
  std::string model;
  std::string text;
  bool has_text = false;
  std::vector<std::string> ids;
  std::string file;
  bool special = false;
  bool json = false;
};

void Print(std::string_view text) { std::fwrite(text.data(), 1, text.size(), stdout); }

/// {"text": ...}, or {"text": ..., "bytes": hexadecimal} where the text is no well-formed UTF-8.
void AddText(std::string_view bytes, nlohmann::ordered_json& object) {
  object["text"] = ReplaceIllFormed(bytes);
  if (WellFormedPrefix(bytes) == bytes.size()) return;
  std::string hexadecimal;
  for (const char c : bytes)
    fmt::format_to(std::back_inserter(hexadecimal), "{:02x}", static_cast<uint8_t>(c));
  object["bytes"] = hexadecimal;
}

void Tokenize(const Options& options) {
  const Tokenizer tokenizer = TokenizerOf(options.model);
  const std::string text = options.has_text ? options.text : ReadInput(options.file);
  const std::vector<int32_t> tokens =
      tokenizer.Encode(text, options.special ? ControlTokens::kRecognised : ControlTokens::kAsText);
  std::string output;
  const auto append = std::back_inserter(output);
  if (options.json)
    fmt::format_to(append, "{{\"count\":{},\"bytes\":{},\"tokens\":[", tokens.size(), text.size());
  size_t begin = 0;
  for (size_t i = 0; i < tokens.size(); ++i) {
    const std::string_view piece = tokenizer.TokenBytes(tokens[i]);
    const size_t end = begin + piece.size();
    if (options.json) {
      nlohmann::ordered_json token = {{"id", tokens[i]}, {"begin", begin}, {"end", end}};
      AddText(piece, token);
      fmt::format_to(append, "{}{}", i == 0 ? "" : ",", token.dump());
    } else {
      fmt::format_to(append, "{:>8} {:>8}  {}\n", begin, tokens[i], PrintablePiece(piece));
    }
    begin = end;
    if (output.size() > 1 << 20) {
      Print(output);
      output.clear();
    }
  }
  if (options.json) output += "]}\n";
  Print(output);
}

void Detokenize(const Options& options) {
  const Tokenizer tokenizer = TokenizerOf(options.model);
  std::string input;
  for (const std::string& id : options.ids) input += id + " ";
  const std::vector<int32_t> tokens =
      ParseTokenIds(options.ids.empty() ? ReadInput(options.file) : input);
  for (const int32_t id : tokens) {
    if (id >= tokenizer.vocab_size()) {
      throw Error(ErrorCode::kInvalidArgument,
                  fmt::format("token id {} is not in the vocabulary of {} tokens", id,
                              tokenizer.vocab_size()));
    }
  }
  const std::string bytes = tokenizer.Decode(tokens);
  if (!options.json) {
    Print(bytes);
    return;
  }
  nlohmann::ordered_json object = {{"count", tokens.size()}};
  AddText(bytes, object);
  Print(object.dump() + "\n");
}

CLI::App* AddCommand(CLI::App& app, const char* name, const char* help, Options& options) {
  CLI::App* command = app.add_subcommand(name, help);
  command->add_option("model", options.model, "Model folder or tokenizer.json")
      ->required()
      ->envname("TOASTER_MODEL");
  command->add_option("-f,--file", options.file, "Read from this file (default: standard input)")
      ->envname("TOASTER_FILE");
  command->add_flag("--json", options.json, "Print JSON")->envname("TOASTER_JSON");
  return command;
}

}  // namespace

void AddTokenizeCommand(CLI::App& app, int& exit_code) {
  const auto options = std::make_shared<Options>();
  CLI::App* command =
      AddCommand(app, "tokenize", "Show the tokens of a text: offset, id, piece", *options);
  CLI::Option* text = command->add_option("text", options->text, "The text");
  command
      ->add_flag("--special", options->special,
                 "Recognise control tokens such as <think> in the text")
      ->envname("TOASTER_SPECIAL");
  command->callback([options, text, &exit_code] {
    options->has_text = text->count() > 0;
    Tokenize(*options);
    exit_code = 0;
  });
}

void AddDetokenizeCommand(CLI::App& app, int& exit_code) {
  const auto options = std::make_shared<Options>();
  CLI::App* command =
      AddCommand(app, "detokenize", "Turn token ids back into their bytes", *options);
  command->add_option("ids", options->ids, "Token ids");
  command->callback([options, &exit_code] {
    Detokenize(*options);
    exit_code = 0;
  });
}

}  // namespace toaster
