#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "apps/commands.h"
#include "apps/text_input.h"
#include "chat/conversation.h"
#include "chat/prompt.h"
#include "chat/prompt_texts.h"
#include "chat/render_prompt.h"

namespace toaster {
namespace {

struct Options {
  std::string model;
  std::string file;
  bool json = false;
};

std::string AsText(const Prompt& prompt, const PromptTokens& encoded, const Tokenizer& tokenizer) {
  std::string output;
  const std::vector<PromptSegment>& segments = prompt.segments();
  for (size_t i = 0; i <= segments.size(); ++i) {
    if (i == prompt.stable_segments())
      output += "\n--- the next turn keeps the prompt up to here ---\n";
    if (i < segments.size()) output += segments[i].text;
  }
  output += "\n\n";
  for (size_t i = 0; i < encoded.tokens.size(); ++i) {
    const int32_t id = encoded.tokens[i];
    output += fmt::format("{:>8} {:>8} {} {}\n", i, id, tokenizer.IsControlToken(id) ? '*' : ' ',
                          PrintablePiece(tokenizer.TokenBytes(id)));
    if (i + 1 == encoded.stable)
      output += fmt::format("--- {} stable tokens ---\n", encoded.stable);
  }
  return output;
}

std::string AsJson(const Prompt& prompt, const PromptTokens& encoded) {
  nlohmann::ordered_json segments = nlohmann::ordered_json::array();
  size_t stable_bytes = 0;
  for (const PromptSegment& segment : prompt.segments()) {
    if (segments.size() < prompt.stable_segments()) stable_bytes += segment.text.size();
    segments.push_back({{segment.control ? "control" : "text", segment.text}});
  }
  const nlohmann::ordered_json object = {{"prompt", prompt.Text()},
                                         {"stable_bytes", stable_bytes},
                                         {"segments", segments},
                                         {"count", encoded.tokens.size()},
                                         {"stable_tokens", encoded.stable},
                                         {"tokens", encoded.tokens}};
  return object.dump() + "\n";
}

void Render(const Options& options) {
  const std::string name = options.file.empty() ? "standard input" : options.file;
  const Conversation conversation =
      ParseConversation(ParsePythonJson(ReadInput(options.file), name));
  const PromptTexts texts = PromptTexts::Load(options.model);
  for (const std::string& warning : texts.warnings())
    std::fprintf(stderr, "toaster: %s\n", warning.c_str());
  const Tokenizer tokenizer = TokenizerOf(options.model);
  const Prompt prompt = RenderPrompt(conversation, texts);
  const PromptTokens encoded = EncodePrompt(prompt, tokenizer);
  const std::string output =
      options.json ? AsJson(prompt, encoded) : AsText(prompt, encoded, tokenizer);
  std::fwrite(output.data(), 1, output.size(), stdout);
}

}  // namespace

void AddRenderCommand(CLI::App& app, int& exit_code) {
  const auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand(
      "render",
      "Show the prompt of a conversation (a JSON chat request), as text and as tokens; control "
      "tokens are marked with *");
  command->add_option("model", options->model, "Model folder")
      ->required()
      ->envname("TOASTER_MODEL");
  command->add_option("-f,--file", options->file, "Read from this file (default: standard input)")
      ->envname("TOASTER_FILE");
  command->add_flag("--json", options->json, "Print JSON")->envname("TOASTER_JSON");
  command->callback([options, &exit_code] {
    Render(*options);
    exit_code = 0;
  });
}

}  // namespace toaster
