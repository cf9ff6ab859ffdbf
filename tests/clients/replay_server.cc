// A server for the tests of official clients: everything but the model is the real one; replies are
// recorded texts, chosen by a word in the prompt. Prints its port and serves until its input ends.

#include <fmt/format.h>

#include <cstdio>

#include "base/memory_use.h"
#include "server/api_server.h"
#include "server/http_server.h"
#include "server/test_generator.h"

namespace {

using toaster::ScriptedGenerator;

constexpr const char* kCalls =
    "I need both.</think>Let me look.\n\n<｜DSML｜tool_calls>\n<｜DSML｜invoke name=\"weather\">\n"
    "<｜DSML｜parameter name=\"city\" string=\"true\">Oslo</｜DSML｜parameter>\n"
    "</｜DSML｜invoke>\n<｜DSML｜invoke name=\"weather\">\n"
    "<｜DSML｜parameter name=\"city\" string=\"true\">Lima \"é\"</｜DSML｜parameter>\n"
    "</｜DSML｜invoke>\n</｜DSML｜tool_calls>";

/// What a model would say to the agents of tests/agents: two commands, then that it is done. What
/// the commands print stands in no command, so each step is known by the result before it.
std::string AgentReply(const std::string& prompt) {
  const auto says = [&](const char* word) { return prompt.find(word) != std::string::npos; };
  if (says("baked 42")) return "It is there.</think>The toast is baked.";
  const bool codex = says("exec_command");
  const char* command =
      says("one-21") ? "cat toast.txt" : "echo baked $((6*7)) > toast.txt; echo one-$((20+1))";
  return fmt::format(
      "One step more.</think>\n\n<｜DSML｜tool_calls>\n<｜DSML｜invoke name=\"{}\">\n"
      "<｜DSML｜parameter name=\"{}\" string=\"true\">{}</｜DSML｜parameter>\n"
      "</｜DSML｜invoke>\n</｜DSML｜tool_calls>",
      codex ? "exec_command" : "Bash", codex ? "cmd" : "command", command);
}

std::string RecordedReply(const std::string& prompt) {
  const auto says = [&](const char* word) { return prompt.find(word) != std::string::npos; };
  // Without thinking the prompt ends with the token that ends it.
  const bool thinks = prompt.size() > 7 && prompt.substr(prompt.size() - 7) == "<think>";
  std::string reply = "I think.</think>Hello, wörld!";
  if (says("Bake the toast file")) {
    reply = AgentReply(prompt);
  } else if (says("<tool_result>")) {
    reply = "Now I know.</think>Both are sunny.";
  } else if (says("both cities")) {
    reply = kCalls;
  } else if (says("go on for ever")) {
    reply = std::string("I think.</think>On and on") + ScriptedGenerator::kForever;
  } else if (says("fail now")) {
    reply = std::string("I think.</think>") + ScriptedGenerator::kFailure;
  } else if (says("JSON")) {
    reply = "I think.</think>{\"city\": \"Oslo\", \"degrees\": 3}";
  }
  return thinks ? reply : reply.substr(reply.find("</think>") + 8);
}

}  // namespace

int main() {
  using namespace toaster;
  ReturnFreedMemory();
  constexpr int64_t kVocabulary = 300, kContext = 1 << 20;
  const Tokenizer tokenizer = Tokenizer::Bytes(kVocabulary);
  ScriptedGenerator generator(tokenizer, RecordedReply);
  const ServedParts parts = {
      {"toaster-replay", {}, {Effort::kHigh, Effort::kMax}, kContext, kVocabulary},
      tokenizer,
      PromptTexts::FromJson(
          R"({"effort": {"high": "", "max": "Think hard.\n"}, "tools_before": "Tools:\n",
              "tools_after": "\nEnd.\n", "response_format_before": "Answer in this form: "})",
          "replay_server"),
      generator,
      PriceTable()};
  EventLog log(stderr);
  ApiServerOptions options;
  options.model_name = "toaster-replay";
  options.max_streams = 1000;
  ApiServer api(options, RequestGuard({}, {}, {}), log);
  HttpOptions http_options;
  http_options.max_connections = 2000;
  HttpServer http(
      http_options, [&](const HttpRequest& request) { return api.Screen(request); },
      [&](HttpRequest& request) { return api.Handle(request); }, ApiServer::ErrorText);
  api.connections = [&] { return http.connections(); };
  api.Serve(parts);
  http.Start();
  std::printf("%d\n", http.port());
  std::fflush(stdout);
  while (std::getchar() != EOF) {
  }
  return 0;
}
