// A server for the tests of official clients: everything but the model is the real one; replies are
// recorded texts, chosen by a word in the prompt. Prints its port and serves until its input ends.

#include <cstdio>

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

std::string RecordedReply(const std::string& prompt) {
  const auto says = [&](const char* word) { return prompt.find(word) != std::string::npos; };
  // Without thinking the prompt ends with the token that ends it.
  const bool thinks = prompt.size() > 7 && prompt.substr(prompt.size() - 7) == "<think>";
  std::string reply = "I think.</think>Hello, wörld!";
  if (says("<tool_result>")) {
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
  ApiServer api(options, RequestGuard({}, {}, {}), log);
  HttpServer http(
      {}, [&](const HttpRequest& request) { return api.Screen(request); },
      [&](HttpRequest& request) { return api.Handle(request); }, ApiServer::ErrorText);
  api.Serve(parts);
  http.Start();
  std::printf("%d\n", http.port());
  std::fflush(stdout);
  while (std::getchar() != EOF) {
  }
  return 0;
}
