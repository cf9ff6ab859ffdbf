#include "server/api_server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <mutex>
#include <thread>

#include "base/temporary_directory.h"
#include "server/test_client.h"
#include "server/test_generator.h"
#include "server/test_replies.h"

namespace toaster {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr const char* kTexts = R"({"effort": {"high": "", "max": "Think hard. "},
  "tools_before": "Tools:\n", "tools_after": "\nEnd.\n", "response_format_before": "Format: "})";

/// A server with a script, over loopback.
class TestServer {
 public:
  explicit TestServer(ScriptedGenerator::Script script, ApiServerOptions options = {},
                      RequestGuard guard = RequestGuard({}, {}, {}))
      : generator(Tokenizer::Bytes(300), std::move(script)),
        parts_{{"toaster-test", {}, {Effort::kHigh, Effort::kMax}, 4096, 300},
               Tokenizer::Bytes(300),
               PromptTexts::FromJson(kTexts, "test"),
               generator,
               PriceTable()},
        log_(nullptr),
        api((options.model_name = "toaster-test", options), std::move(guard), log_),
        http(
            {}, [this](const HttpRequest& request) { return api.Screen(request); },
            [this](HttpRequest& request) { return api.Handle(request); }, ApiServer::ErrorText) {
    http.Start();
  }
  void Serve(bool tame_prompts = false) {
    parts_.tame_prompts = tame_prompts;
    api.Serve(parts_);
  }

  ScriptedGenerator generator;

 private:
  ServedParts parts_;
  EventLog log_;

 public:
  ApiServer api;
  HttpServer http;
};

std::string Hello(const std::string&) { return "think</think>hello"; }

TEST(ApiServerTest, EveryProtocolAnswersWholeAndStreamed) {
  TestServer server(Hello);
  server.Serve();
  TestClient client(server.http.port());
  const std::string chat = R"({"messages": [{"role": "user", "content": "Hi"}])";
  for (const char* path : {"/v1/chat/completions", "/chat/completions", "/beta/chat/completions",
                           "/beta/v1/chat/completions"}) {
    const TestResponse response = client.Post(path, chat + "}");
    ASSERT_EQ(response.status, 200) << path << response.body;
    const OrderedJson json = OrderedJson::parse(response.body);
    EXPECT_EQ(json["choices"][0]["message"]["content"], "hello");
    EXPECT_EQ(json["choices"][0]["message"]["reasoning_content"], "think");
    EXPECT_TRUE(json["toaster"].contains("price_dollars"));
  }
  const TestResponse streamed = client.Post("/v1/chat/completions", chat + R"(, "stream": true})");
  EXPECT_THAT(streamed.header, HasSubstr("text/event-stream"));
  EXPECT_EQ(Events(streamed.body).back(), "[DONE]");

  const std::string messages = R"({"max_tokens": 50, "thinking": {"type": "enabled"},
      "messages": [{"role": "user", "content": "Hi"}])";
  for (const char* path : {"/v1/messages", "/anthropic/v1/messages"}) {
    const OrderedJson json = OrderedJson::parse(client.Post(path, messages + "}").body);
    EXPECT_EQ(json["content"][1]["text"], "hello") << path;
  }
  EXPECT_EQ(
      Events(client.Post("/v1/messages", messages + R"(, "stream": true})").body).back()["type"],
      "message_stop");
  EXPECT_GT(OrderedJson::parse(client
                                   .Post("/v1/messages/count_tokens",
                                         R"({"messages": [{"role": "user", "content": "Hi"}]})")
                                   .body)["input_tokens"],
            3);

  const OrderedJson response =
      OrderedJson::parse(client.Post("/v1/responses", R"({"input": "Hi"})").body);
  EXPECT_EQ(response["output"][1]["content"][0]["text"], "hello");
  EXPECT_EQ(Events(client.Post("/v1/responses", R"({"input": "Hi", "stream": true})").body)
                .back()["type"],
            "response.completed");

  const OrderedJson text = OrderedJson::parse(
      client.Post("/v1/completions", R"({"prompt": "Hi", "echo": true, "n": 2})").body);
  EXPECT_EQ(text["choices"][1]["text"], "Hithinkhello");
}

/// The last prompt that a server's thread was asked to answer.
class LastPrompt {
 public:
  void Set(const std::string& prompt) {
    const std::lock_guard lock(mutex_);
    prompt_ = prompt;
  }
  std::string Get() const {
    const std::lock_guard lock(mutex_);
    return prompt_;
  }

 private:
  mutable std::mutex mutex_;
  std::string prompt_;
};

TEST(ApiServerTest, AnEarlierResponseIsGoneOnFrom) {
  LastPrompt last_prompt;
  TestServer server([&](const std::string& prompt) {
    last_prompt.Set(prompt);
    return "t</think>first answer";
  });
  server.Serve();
  TestClient client(server.http.port());
  const OrderedJson first =
      OrderedJson::parse(client.Post("/v1/responses", R"({"input": "question"})").body);
  const TestResponse second = client.Post(
      "/v1/responses", fmt::format(R"({{"input": "more", "previous_response_id": "{}"}})",
                                   first["id"].get<std::string>()));
  EXPECT_EQ(second.status, 200);
  EXPECT_THAT(last_prompt.Get(), HasSubstr("question"));
  EXPECT_THAT(last_prompt.Get(), HasSubstr("first answer"));
  EXPECT_EQ(
      client.Post("/v1/responses", R"({"input": "x", "previous_response_id": "resp_none"})").status,
      404);
}

TEST(ApiServerTest, TheTurnAfterAToolCallExtendsTheCache) {
  LastPrompt last_prompt;
  TestServer server([&](const std::string& prompt) {
    last_prompt.Set(prompt);
    // Odd blanks, which only a repetition of the sampled bytes keeps.
    return prompt.find("<tool_result>") != std::string::npos
               ? "done</think>It is late."
               : "need clock</think>\n\n<｜DSML｜tool_calls>\n<｜DSML｜invoke  name=\"clock\">\n"
                 "<｜DSML｜parameter name=\"n\" string=\"false\">1.50</｜DSML｜parameter>\n"
                 "</｜DSML｜invoke>\n</｜DSML｜tool_calls>";
  });
  server.Serve();
  TestClient client(server.http.port());
  const std::string tools = R"("tools": [{"type": "function", "function": {"name": "clock"}}])";
  const OrderedJson first = OrderedJson::parse(
      client
          .Post("/v1/chat/completions",
                R"({"messages": [{"role": "user", "content": "Time?"}], )" + tools + "}")
          .body);
  const OrderedJson& call = first["choices"][0]["message"]["tool_calls"][0];
  ASSERT_EQ(call["function"]["name"], "clock");
  // The client sends back name, arguments and id, and drops the reasoning.
  const OrderedJson messages = OrderedJson::array(
      {{{"role", "user"}, {"content", "Time?"}},
       {{"role", "assistant"}, {"content", nullptr}, {"tool_calls", OrderedJson::array({call})}},
       {{"role", "tool"}, {"tool_call_id", call["id"]}, {"content", "23:00"}}});
  const OrderedJson second = OrderedJson::parse(
      client.Post("/v1/chat/completions", "{\"messages\": " + messages.dump() + ", " + tools + "}")
          .body);
  EXPECT_EQ(second["choices"][0]["message"]["content"], "It is late.");
  EXPECT_THAT(last_prompt.Get(), HasSubstr("<think>need clock</think>"));
  EXPECT_THAT(last_prompt.Get(), HasSubstr("invoke  name=\"clock\""));
  // All of the first prompt and of the reply is found again.
  const int64_t first_tokens = first["usage"]["total_tokens"];
  EXPECT_EQ(second["usage"]["prompt_cache_hit_tokens"], first_tokens - 1) << "but the end token";
  EXPECT_EQ(second["toaster"]["notes"].size(), 1U);

  // The Messages API sends the arguments as an object.
  const OrderedJson third = OrderedJson::parse(
      client
          .Post("/v1/messages",
                R"({"max_tokens": 500, "thinking": {"type": "enabled"}, "messages":
                      [{"role": "user", "content": "Time?"}],
                      "tools": [{"name": "clock", "input_schema": {}}]})")
          .body);
  ASSERT_EQ(third["stop_reason"], "tool_use") << third.dump();
}

TEST(ApiServerTest, PromptsOfAgentsAreTamedIfAskedFor) {
  for (const bool tame : {false, true}) {
    TestServer server(Hello);
    server.Serve(tame);
    TestClient client(server.http.port());
    OrderedJson last;
    for (const char* nonce : {"fa690", "1c8b4"}) {
      last = OrderedJson::parse(
          client
              .Post("/v1/messages",
                    std::string(R"({"max_tokens": 9, "messages": [{"role": "user", "content":
                        "Hi"}], "system": [{"type": "text", "text": "x-anthropic-billing-header: cch=)") +
                        nonce + R"(;"}, {"type": "text", "text": "You are a very long prompt."}]})")
              .body);
    }
    const int64_t missed = last["toaster"]["cache_miss_tokens"];
    EXPECT_EQ(missed < 5, tame) << last.dump();
    EXPECT_EQ(last["toaster"]["notes"].dump().find("system prompt") != std::string::npos, tame)
        << last.dump();
  }
}

TEST(ApiServerTest, AForcedCallIsBegunInThePrompt) {
  TestServer server([](const std::string& prompt) {
    EXPECT_THAT(prompt, HasSubstr("tool_calls>\n<｜DSML｜invoke name=\"clock\">\n"));
    return "</｜DSML｜invoke>\n</｜DSML｜tool_calls>";
  });
  server.Serve();
  TestClient client(server.http.port());
  const std::string request = R"({"messages": [{"role": "user", "content": "Time?"}],
      "tools": [{"type": "function", "function": {"name": "clock"}}],
      "tool_choice": {"type": "function", "function": {"name": "clock"}})";
  const OrderedJson whole =
      OrderedJson::parse(client.Post("/v1/chat/completions", request + "}").body);
  EXPECT_EQ(whole["choices"][0]["message"]["tool_calls"][0]["function"]["name"], "clock");
  EXPECT_EQ(whole["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"], "{}");
  EXPECT_EQ(whole["choices"][0]["finish_reason"], "tool_calls");
  EXPECT_THAT(client.Post("/v1/chat/completions", request + R"(, "stream": true})").body,
              HasSubstr("\"clock\""));
}

TEST(ApiServerTest, BadBodiesGetTheRightStatusInTheShapeOfTheirProtocol) {
  TestServer server(Hello);
  server.Serve();
  TestClient client(server.http.port());
  const std::string deep = std::string(2000, '[') + std::string(2000, ']');
  for (const std::string& body :
       {std::string("{"), std::string("[]"), std::string("\"\\ud800\""), deep,
        "{\"messages\": " + deep + "}", std::string("{\"messages\": 3}"), std::string("\xFF{}"),
        std::string("{\"a\": 1e999}"), std::string("null")}) {
    for (const char* path : {"/v1/chat/completions", "/v1/completions", "/v1/responses",
                             "/tokenize", "/detokenize", "/apply-template"}) {
      const TestResponse response = client.Post(path, body);
      EXPECT_EQ(response.status, 400) << path << " " << body.substr(0, 40);
      EXPECT_TRUE(OrderedJson::parse(response.body)["error"]["message"].is_string());
    }
    const TestResponse response = client.Post("/v1/messages", body);
    EXPECT_EQ(response.status, 400);
    EXPECT_EQ(OrderedJson::parse(response.body)["type"], "error");
  }
  EXPECT_EQ(client.Post("/v1/chat/completions", "").status, 400);
  EXPECT_EQ(client.Get("/v1/chat/completions").status, 405);
  const std::string long_prompt(5000, 'x');
  const TestResponse too_long =
      client.Post("/v1/chat/completions",
                  R"({"messages": [{"role": "user", "content": ")" + long_prompt + R"("}]})");
  EXPECT_EQ(too_long.status, 400);
  EXPECT_EQ(OrderedJson::parse(too_long.body)["error"]["code"], "context_length_exceeded");
  EXPECT_EQ(server.generator.submitted, 0);
}

TEST(ApiServerTest, OneTableRoutesAndDescribes) {
  TestServer server(Hello);
  server.Serve();
  TestClient client(server.http.port());
  const OrderedJson document = OrderedJson::parse(client.Get("/openapi.json").body);
  const OrderedJson& paths = document["paths"];
  EXPECT_EQ(document["openapi"], "3.1.0");
  EXPECT_TRUE(paths["/v1/messages"]["post"].contains("requestBody"));
  EXPECT_EQ(paths["/v1/models/{model}"]["get"]["parameters"][0]["name"], "model");

  const TestResponse wrong_method = client.Get("/beta/chat/completions");
  EXPECT_EQ(wrong_method.status, 405);
  EXPECT_THAT(wrong_method.header, HasSubstr("Allow: POST, OPTIONS\r\n"));
  EXPECT_EQ(client.Post("/health", "{}").status, 405);
  EXPECT_EQ(client.Ask("PUT", "/v1/models", "", "{}").status, 405);
  EXPECT_THAT(client.Ask("OPTIONS", "/props", "", "").header, HasSubstr("Allow: GET, HEAD"));
  for (const char* path : {"/v1", "/v1/models/", "/v1/chat", "/v1/messages/other", "/healthy"})
    EXPECT_EQ(client.Get(path).status, 404) << path;
  // HEAD is GET without the body: the next answer on the connection follows at once.
  client.Send("HEAD /props HTTP/1.1\r\nHost: localhost\r\n\r\n");
  EXPECT_THAT(client.ReceiveUntil("\r\n\r\n"), HasSubstr("200 OK"));
  EXPECT_EQ(client.Get("/health").status, 200);
}

TEST(ApiServerTest, AFailureIsSaidInTheStreamAndAsAStatus) {
  TestServer server([](const std::string&) { return std::string("a</think>b\x02"); });
  server.Serve();
  TestClient client(server.http.port());
  const std::string chat = R"({"messages": [{"role": "user", "content": "Hi"}])";
  EXPECT_EQ(client.Post("/v1/chat/completions", chat + "}").status, 500);
  EXPECT_THAT(client.Post("/v1/chat/completions", chat + R"(, "stream": true})").body,
              HasSubstr("the disk is gone"));
  EXPECT_THAT(client
                  .Post("/v1/messages", R"({"max_tokens": 9, "stream": true, "messages":
                          [{"role": "user", "content": "Hi"}]})")
                  .body,
              HasSubstr("event: error"));
  EXPECT_THAT(client.Post("/v1/responses", R"({"input": "Hi", "stream": true})").body,
              HasSubstr("response.failed"));
}

TEST(ApiServerTest, AClientThatGoesEndsItsJob) {
  TestServer server([](const std::string&) { return std::string("a</think>b\x01"); });
  server.Serve();
  for (const char* stream : {"true", "false"}) {
    {
      TestClient client(server.http.port());
      const std::string body = fmt::format(
          R"({{"messages": [{{"role": "user", "content": "Hi"}}], "stream": {}}})", stream);
      client.Send(fmt::format(
          "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{}",
          body.size(), body));
      while (server.generator.alive == 0) std::this_thread::yield();
    }
    while (server.generator.alive > 0) std::this_thread::yield();
  }
}

TEST(ApiServerTest, SilenceIsFilledWithPings) {
  ApiServerOptions options;
  options.ping = std::chrono::milliseconds(5);
  TestServer server([](const std::string&) { return std::string("a</think>\x03\x03\x03\x03x"); },
                    options);
  server.Serve();
  TestClient client(server.http.port());
  const std::string chat = R"({"messages": [{"role": "user", "content": "Hi"}])";
  EXPECT_THAT(client.Post("/v1/chat/completions", chat + R"(, "stream": true})").body,
              HasSubstr(": keep-alive\n\n"));
  EXPECT_THAT(client
                  .Post("/v1/messages", R"({"max_tokens": 90, "stream": true, "messages":
                          [{"role": "user", "content": "Hi"}]})")
                  .body,
              HasSubstr("event: ping"));
  const TestResponse whole = client.Post("/v1/chat/completions", chat + "}");
  EXPECT_EQ(whole.body[0], '\n');
  EXPECT_EQ(OrderedJson::parse(whole.body)["choices"][0]["message"]["content"], "x");
}

TEST(ApiServerTest, RepliesOnTheirWayAreBounded) {
  ApiServerOptions options;
  options.max_streams = 1;
  TestServer server([](const std::string&) { return std::string("a\x01"); }, options);
  server.Serve();
  TestClient first(server.http.port()), second(server.http.port());
  const std::string body = R"({"messages": [{"role": "user", "content": "Hi"}], "stream": true})";
  first.Send(fmt::format(
      "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{}",
      body.size(), body));
  first.ReceiveUntil("data: ");
  const TestResponse refused = second.Post("/v1/chat/completions", body);
  EXPECT_EQ(refused.status, 429);
  EXPECT_THAT(refused.header, HasSubstr("Retry-After: "));
  EXPECT_EQ(second.Get("/health").status, 200);
}

TEST(ApiServerTest, SaysWhenTheModelIsNotThere) {
  TestServer server(Hello);
  TestClient client(server.http.port());
  EXPECT_EQ(client.Get("/health").status, 503);
  const TestResponse loading = client.Post("/v1/chat/completions", "{}");
  EXPECT_EQ(loading.status, 503);
  EXPECT_THAT(loading.header, HasSubstr("Retry-After: "));
  server.Serve();
  EXPECT_EQ(client.Get("/health").status, 200);
  server.api.Drain();
  EXPECT_EQ(client.Get("/health").status, 503);
}

TEST(ApiServerTest, OnlyKnownHostsOriginsAndKeysAreAnswered) {
  const auto [secret, line] = ApiKeys::Make("me", 2, 0);
  const test::TemporaryDirectory folder;
  std::ofstream(folder.path() / "keys") << "# mine\n" << line;
  TestServer server(Hello, {},
                    RequestGuard(ApiKeys::Load(folder.path() / "keys"), {"toaster.example"},
                                 {"https://good.example"}));
  server.Serve();
  const auto status = [&](const std::string& headers) {
    TestClient client(server.http.port());
    client.Send("GET /v1/models HTTP/1.1\r\n" + headers + "\r\n");
    return client.Receive().status;
  };
  const std::string key = "x-api-key: " + secret + "\r\n";
  EXPECT_EQ(status("Host: localhost\r\n"), 401);
  EXPECT_EQ(status("Host: localhost\r\nAuthorization: Bearer nonsense\r\n"), 401);
  EXPECT_EQ(status("Host: localhost\r\n" + key), 200);
  EXPECT_EQ(status("Host: 127.0.0.1:80\r\nAuthorization: Bearer " + secret + "\r\n"), 200);
  EXPECT_EQ(status("Host: [::1]:80\r\n" + key), 200);
  EXPECT_EQ(status("Host: toaster.example\r\n" + key), 200);
  EXPECT_EQ(status("Host: evil.example\r\n" + key), 403);
  EXPECT_EQ(status(key), 403);
  EXPECT_EQ(status("Host: localhost\r\nOrigin: https://evil.example\r\n" + key), 403);
  EXPECT_EQ(status("Host: localhost\r\nOrigin: http://localhost\r\n" + key), 200);
  EXPECT_EQ(status("Host: localhost\r\nOrigin: https://good.example\r\n" + key), 200);

  // The page is for everybody who may reach the server.
  EXPECT_EQ(TestClient(server.http.port()).Get("/").status, 200);

  // Two requests a minute, and then a wait.
  TestClient client(server.http.port());
  const std::string body = R"({"messages": [{"role": "user", "content": "Hi"}]})";
  EXPECT_EQ(client.Post("/v1/chat/completions", body, key).status, 200);
  EXPECT_EQ(client.Post("/v1/chat/completions", body, key).status, 200);
  const TestResponse third = client.Post("/v1/chat/completions", body, key);
  EXPECT_EQ(third.status, 429);
  EXPECT_THAT(third.header, HasSubstr("Retry-After: 30"));
}

TEST(ApiServerTest, ServesThePageBeforeAndAfterTheModelIsThere) {
  TestServer server(Hello);
  for (int i = 0; i < 2; ++i) {
    TestClient client(server.http.port());
    const TestResponse page = client.Get("/");
    EXPECT_EQ(page.status, 200);
    EXPECT_THAT(page.header, HasSubstr("text/html"));
    EXPECT_THAT(page.body, HasSubstr("app.js"));
    const TestResponse script = client.Get("/app.js");
    EXPECT_THAT(script.header, HasSubstr("text/javascript"));
    const size_t begin = script.header.find("ETag: ");
    ASSERT_NE(begin, std::string::npos);
    const std::string etag =
        script.header.substr(begin + 6, script.header.find("\r\n", begin) - begin - 6);
    EXPECT_EQ(client.Get("/app.js", "If-None-Match: " + etag + "\r\n").status, 304);
    server.Serve();
  }
}

TEST(ApiServerTest, UtilitiesAndMetrics) {
  TestServer server(Hello);
  server.Serve();
  TestClient client(server.http.port());
  const OrderedJson tokens =
      OrderedJson::parse(client.Post("/tokenize", R"({"content": "ab"})").body);
  EXPECT_EQ(tokens["tokens"], OrderedJson::array({100, 101}));
  EXPECT_EQ(
      OrderedJson::parse(client.Post("/detokenize", R"({"tokens": [100, 101]})").body)["content"],
      "ab");
  EXPECT_EQ(client.Post("/detokenize", R"({"tokens": [300]})").status, 400);
  const OrderedJson prompt = OrderedJson::parse(
      client.Post("/apply-template", R"({"messages": [{"role": "user", "content": "Hi"}]})").body);
  EXPECT_EQ(prompt["prompt"], "<｜begin▁of▁sentence｜><｜User｜>Hi<｜Assistant｜><think>");
  client.Post("/v1/completions", R"({"prompt": "Hi"})");
  const std::string metrics = client.Get("/metrics").body;
  EXPECT_THAT(metrics, HasSubstr("vllm:generation_tokens_total{model_name=\"toaster-test\"} "));
  EXPECT_THAT(metrics, HasSubstr("toaster_prompt_cache_miss_tokens_total "));
  EXPECT_THAT(metrics, HasSubstr("vllm:request_success_total{model_name=\"toaster-test\","));
  EXPECT_THAT(metrics, HasSubstr("\ntoaster_limit_share 0.75\n"));
  EXPECT_THAT(metrics, HasSubstr("\ntoaster_read_bytes_total{tier=\"memory\"} 13000000000\n"));
  EXPECT_THAT(metrics, HasSubstr("\ntoaster_read_bytes_total{tier=\"disk\"} 7\n"));
  EXPECT_THAT(metrics, HasSubstr("\ntoaster_experts_used_total 12\n"));
  EXPECT_THAT(metrics, HasSubstr("\ntoaster_experts_missed_total 3\n"));
  EXPECT_EQ(OrderedJson::parse(client.Get("/props").body)["model_alias"], "toaster-test");
  EXPECT_TRUE(OrderedJson::parse(client.Get("/slots").body)[0].contains("is_processing"));
  EXPECT_EQ(OrderedJson::parse(client.Get("/v1/models").body)["data"][0]["id"], "toaster-test");
  EXPECT_EQ(client.Get("/v1/models/toaster-test").status, 200);
  EXPECT_EQ(client.Get("/v1/models/other").status, 404);
}

TEST(ApiKeysTest, FilesThatMakeNoSenseAreNamedButNotRepeated) {
  const test::TemporaryDirectory folder;
  for (const char* text : {"me secret-in-the-clear\n", "", "# nothing\n", "me\n"}) {
    std::ofstream(folder.path() / "keys") << text;
    try {
      ApiKeys::Load(folder.path() / "keys");
      ADD_FAILURE() << text;
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), HasSubstr("keys"));
      EXPECT_THAT(error.what(), Not(HasSubstr("secret-in-the-clear")));
    }
  }
  EXPECT_THROW(ApiKeys::Load(folder.path() / "none"), Error);
}

TEST(PriceTableTest, TheFirstEntryThatFitsCounts) {
  const PriceTable prices;
  EXPECT_DOUBLE_EQ(Cost(prices.For("DeepSeek-V4-Flash"), 1e6, 1e6, 1e6), 0.0028 + 0.14 + 0.28);
  EXPECT_DOUBLE_EQ(Cost(prices.For("DeepSeek-V4-Pro"), 1e6, 0, 0), 0.003625);
  const PriceTable own = PriceTable::FromJson(
      R"({"Tiny": {"cache_hit": 1, "cache_miss": 2, "output": 3}})", "prices.json");
  EXPECT_DOUBLE_EQ(Cost(own.For("my-tiny-model"), 1e6, 1e6, 1e6), 6);
  EXPECT_DOUBLE_EQ(Cost(own.For("other"), 1e6, 1e6, 1e6), 0);
  EXPECT_THROW(PriceTable::FromJson("[]", "x"), Error);
  EXPECT_THROW(PriceTable::FromJson(R"({"": {"cache_hit": -1}})", "x"), Error);
}

}  // namespace
}  // namespace toaster
