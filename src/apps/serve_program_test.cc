// The built program serving the built-in model over loopback.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "apps/program_output.h"
#include "apps/served_program.h"
#include "base/temporary_directory.h"
#include "server/test_client.h"

namespace toaster {
namespace {

using test::Served;
using ::testing::HasSubstr;
using ::testing::Not;

std::string Body(int tokens, bool stream) {
  return R"({"messages": [{"role": "user", "content": "Hi"}], "seed": 7, "ignore_eos": true, )"
         R"("max_tokens": )" +
         std::to_string(tokens) + R"(, "stream": )" + (stream ? "true" : "false") + "}";
}

/// The part of a response that the model said.
std::string Said(const std::string& body) {
  const size_t from = body.find("\"choices\""), to = body.find("\"usage\"");
  return body.substr(from, to - from);
}

TEST(ServeProgramTest, TheSameSeedGivesTheSameAnswer) {
  Served served({});
  TestClient client(served.port());
  EXPECT_EQ(client.Get("/health").status, 200);
  const TestResponse first = client.Post("/v1/chat/completions", Body(12, false));
  ASSERT_EQ(first.status, 200) << first.body;
  // The second comes from the cache.
  const TestResponse second = client.Post("/v1/chat/completions", Body(12, false));
  EXPECT_EQ(Said(first.body), Said(second.body));
  EXPECT_THAT(second.body, Not(HasSubstr("\"prompt_cache_hit_tokens\":0,")));
  served.Signal(SIGTERM);
  EXPECT_EQ(served.ExitCode(), 0);
}

TEST(ServeProgramTest, APrefixOutlivesTheServer) {
  const test::TemporaryDirectory folder;
  const std::string store = folder.path() / "store";
  const std::vector<std::string> arguments = {"--cache-dir", store, "--cache-least-tokens", "1"};
  std::string said[2];
  for (std::string& answer : said) {
    Served served(arguments);
    TestClient client(served.port());
    const TestResponse response = client.Post("/v1/chat/completions", Body(150, false));
    EXPECT_THAT(response.body,
                HasSubstr(said[0].empty() ? "\"cache_tier\":null" : "\"cache_tier\":\"disk\""));
    answer = Said(response.body);
    served.Signal(SIGTERM);
    EXPECT_EQ(served.ExitCode(), 0);
  }
  EXPECT_EQ(said[0], said[1]);

  const std::string at = " --cache-dir " + store;
  EXPECT_THAT(test::RunProgram("cache ls" + at).text, HasSubstr(" places, 1 files of rows, "));
  EXPECT_EQ(test::RunProgram("cache verify" + at).exit_code, 0);
  for (const auto& entry : std::filesystem::directory_iterator(store + "/rows")) {
    std::fstream rows(entry.path(), std::ios::in | std::ios::out | std::ios::binary);
    rows.seekp(-1, std::ios::end);
    rows.put('x');
  }
  const test::ProgramOutput verified = test::RunProgram("cache verify" + at);
  EXPECT_EQ(verified.exit_code, 1);
  EXPECT_THAT(verified.text, HasSubstr(".rows"));
  EXPECT_THAT(test::RunProgram("cache clear" + at).text, HasSubstr("0 places"));
  EXPECT_THAT(test::RunProgram("cache ls --cache-dir /nowhere").text,
              HasSubstr("/nowhere: no prefix store is there"));
}

TEST(ServeProgramTest, ATerminatedServerEndsTheRepliesThatAreOnTheirWay) {
  Served served({});
  TestClient client(served.port());
  const std::string body = Body(600, true);
  client.Send("POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: " +
              std::to_string(body.size()) + "\r\n\r\n" + body);
  client.ReceiveUntil("data: ");
  served.Signal(SIGTERM);
  const std::string rest = client.ReceiveAll();
  EXPECT_THAT(rest, HasSubstr("[DONE]"));
  EXPECT_THAT(rest, HasSubstr("\"finish_reason\":\"length\""));
  EXPECT_EQ(served.ExitCode(), 0);
}

TEST(ServeProgramTest, AKeyFromToasterKeyOpensTheDoor) {
  const test::TemporaryDirectory folder;
  const std::string file = (folder.path() / "keys").string();
  const test::ProgramOutput made = test::RunProgram("key " + file + " me");
  ASSERT_EQ(made.exit_code, 0) << made.text;
  const std::string key = made.text.substr(made.text.find("tk-"), 67);
  // The key itself stands nowhere, and nobody else reads its digest.
  std::ifstream stream(file);
  const std::string text((std::istreambuf_iterator<char>(stream)), {});
  EXPECT_EQ(text.find(key.substr(3)), std::string::npos);
  EXPECT_EQ(std::filesystem::status(file).permissions() & std::filesystem::perms::others_all,
            std::filesystem::perms::none);
  Served served({"--api-keys", file});
  TestClient client(served.port());
  EXPECT_EQ(client.Get("/v1/models").status, 401);
  EXPECT_EQ(client.Get("/v1/models", "Authorization: Bearer " + key + "\r\n").status, 200);
}

TEST(ServeProgramTest, TotalsAreTold) {
  Served served({});
  TestClient client(served.port());
  const auto answer = client.Post("/v1/chat/completions", Body(12, false));
  ASSERT_EQ(answer.status, 200);
  EXPECT_THAT(answer.body,
              testing::ContainsRegex("\"read_bytes\": ?\\{\"memory\": ?[1-9][0-9]{6}"));
  EXPECT_THAT(client.Get("/metrics").body,
              testing::ContainsRegex("\ntoaster_read_bytes_total\\{tier=\"memory\"\\} [1-9]"));
  const std::string url = "stats --url http://127.0.0.1:" + std::to_string(served.port());
  const test::ProgramOutput totals = test::RunProgram(url + "/ --json");
  EXPECT_EQ(totals.exit_code, 0) << totals.text;
  EXPECT_THAT(totals.text, HasSubstr("\"generated_tokens\": 12.0"));
  EXPECT_THAT(test::RunProgram(url).text, HasSubstr("would have cost"));
  EXPECT_EQ(test::RunProgram("stats --url http://127.0.0.1:1").exit_code, 1);
}

TEST(DoctorTest, FindsWhatHindersServing) {
  // Streams few enough for any limit of open files.
  const test::ProgramOutput well = test::RunProgram("doctor --port 0 --max-streams 1 --json");
  EXPECT_EQ(well.exit_code, 0) << well.text;
  EXPECT_THAT(well.text, HasSubstr("\"can_serve\": true"));
  Served served({});
  const test::ProgramOutput taken =
      test::RunProgram("doctor --max-streams 1 --port " + std::to_string(served.port()));
  EXPECT_EQ(taken.exit_code, 1);
  EXPECT_THAT(taken.text, HasSubstr("can't be had"));
  const test::ProgramOutput nowhere = test::RunProgram("doctor /nowhere --port 0");
  EXPECT_EQ(nowhere.exit_code, 1);
  EXPECT_THAT(nowhere.text, HasSubstr("/nowhere"));
}

TEST(ServeProgramTest, WhatCannotWorkIsSaid) {
  for (const char* arguments :
       {"serve --api-keys /nowhere", "serve --prices /nowhere", "serve --host 192.0.2.1",
        "serve --tls-certificate /nowhere --tls-key /nowhere", "serve /nowhere --port 0"}) {
    const test::ProgramOutput output = test::RunProgram(arguments);
    EXPECT_EQ(output.exit_code, 1) << arguments << output.text;
    EXPECT_THAT(output.text, HasSubstr("toaster: ")) << arguments;
  }
}

}  // namespace
}  // namespace toaster
