// Two servers on one prefix store, for as long as TOASTER_SOAK_SECONDS says (600).

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "apps/program_output.h"
#include "apps/served_program.h"
#include "base/random.h"
#include "base/temporary_directory.h"
#include "server/test_client.h"

namespace toaster {
namespace {

using test::Served;

constexpr size_t kConversations = 24;

// Conversations of different lengths; several begin alike.
std::string Body(size_t conversation) {
  std::string text;
  for (size_t word = 0; word < 150 + 60 * conversation; ++word) {
    const uint64_t topic = word < 300 ? conversation % 4 : conversation;
    text += " w" + std::to_string(Philox(topic, word, 0)[0] % 50);
  }
  return R"({"messages": [{"role": "user", "content": ")" + text +
         R"("}], "seed": 7, "ignore_eos": true, "max_tokens": 6, "stream": false})";
}

std::string Said(const std::string& body) {
  const size_t from = body.find("\"choices\""), to = body.find("\"usage\"");
  return body.substr(from, to - from);
}

TEST(SharedStoreLongTest, TwoServersGiveOnlyRightAnswersAndLeaveAWholeStore) {
  const char* given = std::getenv("TOASTER_SOAK_SECONDS");
  const std::chrono::seconds length(given != nullptr ? std::atoi(given) : 600);
  std::array<std::string, kConversations> expected;
  {
    Served alone({});
    TestClient client(alone.port());
    for (size_t i = 0; i < kConversations; ++i) {
      const TestResponse response = client.Post("/v1/chat/completions", Body(i));
      ASSERT_EQ(response.status, 200) << response.body;
      expected[i] = Said(response.body);
    }
  }

  const test::TemporaryDirectory folder;
  const std::string store = folder.path() / "store";
  // Small enough that each gives up what the other may be about to read, and nothing in memory
  // that could hide it.
  const std::string size = "3MB";
  const std::vector<std::string> arguments = {
      "--cache-dir",          store, "--cache-size",         size, "--prefix-cache-mib", "0",
      "--cache-least-tokens", "64",  "--cache-daily-writes", "0",  "--threads",          "1"};
  Served first(arguments), second(arguments);
  std::atomic<int64_t> asked = 0, wrong = 0, from_disk = 0;
  std::atomic<bool> over = false;
  std::vector<std::thread> clients;
  for (const Served* served : {&first, &second}) {
    for (uint64_t i = 0; i < 2; ++i) {
      clients.emplace_back([&, served, i] {
        const auto stream = static_cast<uint64_t>(served->port()) * 2 + i;
        for (uint64_t turn = 0; !over; ++turn) {
          const size_t conversation = Philox(stream, turn, 0)[0] % kConversations;
          TestClient client(served->port());
          const TestResponse response = client.Post("/v1/chat/completions", Body(conversation));
          ++asked;
          from_disk += response.body.find(R"("cache_tier":"disk")") != std::string::npos;
          if (response.status == 200 && Said(response.body) == expected[conversation]) continue;
          ++wrong;
          ADD_FAILURE() << "conversation " << conversation << ": " << response.body;
          over = true;
        }
      });
    }
  }
  const std::string at = " --cache-dir " + store;
  int64_t verified = 0;
  for (const auto end = std::chrono::steady_clock::now() + length;
       std::chrono::steady_clock::now() < end && !over; ++verified) {
    std::this_thread::sleep_for(std::chrono::seconds(3));
    const test::ProgramOutput whole = test::RunProgram("cache verify" + at);
    EXPECT_EQ(whole.exit_code, 0) << whole.text;
    const test::ProgramOutput pruned = test::RunProgram("cache prune --cache-size 2MB" + at);
    EXPECT_EQ(pruned.exit_code, 0) << pruned.text;
  }
  over = true;
  for (std::thread& client : clients) client.join();
  for (Served* served : {&first, &second}) {
    served->Signal(SIGTERM);
    EXPECT_EQ(served->ExitCode(), 0);
  }
  EXPECT_EQ(wrong, 0);
  EXPECT_GT(from_disk, 0);
  const test::ProgramOutput whole = test::RunProgram("cache verify" + at);
  EXPECT_EQ(whole.exit_code, 0) << whole.text;
  // Rows and places under their own names, and nothing half written.
  for (const auto& entry : std::filesystem::recursive_directory_iterator(store)) {
    const std::string extension = entry.path().extension();
    if (entry.path().parent_path() == store) continue;
    EXPECT_TRUE(extension == ".rows" || extension == ".place") << entry.path();
  }
  printf("%lld asked, %lld from disk, %lld times verified\n", static_cast<long long>(asked),
         static_cast<long long>(from_disk), static_cast<long long>(verified));
}

}  // namespace
}  // namespace toaster
