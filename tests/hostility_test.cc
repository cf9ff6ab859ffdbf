// The program served to clients that mean no good, and to more of them than it can work for.

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <array>
#include <atomic>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "apps/served_program.h"
#include "server/test_client.h"

namespace toaster {
namespace {

using std::chrono::milliseconds;
using ::testing::HasSubstr;

/// What a process holds.
struct Holdings {
  int64_t descriptors = 0, threads = 0, anonymous_bytes = 0;
};

Holdings HoldingsOf(pid_t process) {
  const std::string folder = fmt::format("/proc/{}", process);
  Holdings holdings;
  for (const auto& entry : std::filesystem::directory_iterator(folder + "/fd")) {
    static_cast<void>(entry);
    ++holdings.descriptors;
  }
  std::ifstream status(folder + "/status");
  for (std::string line; std::getline(status, line);) {
    if (line.rfind("RssAnon:", 0) == 0)
      holdings.anonymous_bytes = std::atoll(line.c_str() + 8) * 1024;
    if (line.rfind("Threads:", 0) == 0) holdings.threads = std::atoll(line.c_str() + 8);
  }
  return holdings;
}

std::string Request(std::string_view body, std::string_view headers = "") {
  return fmt::format(
      "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n{}Content-Length: {}\r\n\r\n{}",
      headers, body.size(), body);
}

/// A request whose reply is as good as endless.
std::string EndlessStream(size_t number) {
  return Request(fmt::format(
      R"({{"messages": [{{"role": "user", "content": "Count to {}"}}], "ignore_eos": true,)"
      R"( "stream": true, "max_tokens": 1000000, "seed": {}}})",
      number, number));
}

/// Bytes of a request and the status that it deserves.
struct BadRequest {
  std::string name, bytes;
  int status = 0;
};

constexpr size_t kMaxBody = size_t{8} << 20;  // as the server is started

std::vector<BadRequest> BadRequests() {
  const auto repeated = [](std::string_view text, size_t count) {
    std::string all;
    for (size_t i = 0; i < count; ++i) all += text;
    return all;
  };
  const std::string get = "GET /health HTTP/1.1\r\nHost: localhost\r\n";
  const std::string post = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n";
  const std::string chunked = post + "Transfer-Encoding: chunked\r\n\r\n";
  std::vector<BadRequest> all = {
      {"no HTTP", "\x16\x03\x01 hello\r\n\r\n", 400},
      {"no such method", "BREW / HTTP/1.1\r\nHost: localhost\r\n\r\n", 400},
      {"no such version", "GET /health HTTP/7.0\r\nHost: localhost\r\n\r\n", 400},
      {"wrong method", "DELETE /health HTTP/1.1\r\nHost: localhost\r\n\r\n", 405},
      {"no such path", "GET /../etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n", 404},
      {"endless path", "GET /" + std::string(4000, 'a') + " HTTP/1.1\r\nHost: localhost\r\n\r\n",
       414},
      {"foreign host", "GET /v1/models HTTP/1.1\r\nHost: evil.example\r\n\r\n", 403},
      {"header flood", get + repeated("x-flood: yes\r\n", 10000) + "\r\n", 431},
      {"one endless header", get + "x-flood: " + std::string(1 << 20, 'y') + "\r\n\r\n", 431},
      {"headers without end", get + repeated("x: y\r\n", 200000), 431},
      {"negative length", post + "Content-Length: -1\r\n\r\n", 400},
      {"length of no number", post + "Content-Length: many\r\n\r\n", 400},
      {"length beyond numbers", post + "Content-Length: 99999999999999999999\r\n\r\n", 413},
      {"length beyond the limit", post + fmt::format("Content-Length: {}\r\n\r\n", kMaxBody + 1),
       413},
      {"body beyond the limit",
       chunked + fmt::format("{:x}\r\n", kMaxBody + 1) + std::string(kMaxBody + 1, 'x') + "\r\n",
       413},
      {"compressed", Request("{}", "Content-Encoding: gzip\r\n"), 415},
      {"form", Request("{}", "Content-Type: multipart/form-data; boundary=b\r\n"), 415},
      {"no body", Request(""), 400},
      {"no JSON", Request("{\"messages\": "), 400},
      {"endless string", Request("{\"messages\": \"" + std::string(kMaxBody / 2, 'x')), 400},
      {"no object", Request("[]"), 400},
      {"no UTF-8", Request("{\"messages\": \"\xFF\xFE\"}"), 400},
      {"zero byte", Request(std::string_view("{\"messages\": \"\0\"}", 17)), 400},
      {"deep arrays", Request("{\"messages\": " + std::string(1 << 20, '[')), 400},
      {"deep objects", Request(repeated("{\"a\":", 200000)), 400},
      {"too many values", Request("{\"messages\": [" + repeated("1,", size_t{3} << 20) + "1]}"),
       400},
      {"many keys", Request("{" + repeated("\"a\": 1,", 100000) + "\"messages\": 1}"), 400},
      {"wrong type", Request("{\"messages\": {\"role\": \"user\"}}"), 400},
      {"number beyond numbers",
       Request(R"({"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1e400})"), 400},
  };
  return all;
}

/// Sends the bytes in small pieces, so that the server waits inside of everything.
void Trickle(int socket, std::string_view bytes) {
  while (!bytes.empty()) {
    const size_t count = std::min<size_t>(7, bytes.size());
    if (::send(socket, bytes.data(), count, MSG_NOSIGNAL) <= 0) return;
    bytes.remove_prefix(count);
    std::this_thread::yield();
  }
}

/// Asks for /health all the time, and counts what it hears.
class HealthWatch {
 public:
  explicit HealthWatch(int port)
      : thread_([this, port] {
          while (!stopping_) {
            TestClient client(port);
            client.Get("/health").status == 200 ? ++well_ : ++unwell_;
          }
        }) {}
  ~HealthWatch() { Stop(); }
  HealthWatch(const HealthWatch&) = delete;
  HealthWatch& operator=(const HealthWatch&) = delete;

  void Stop() {
    stopping_ = true;
    if (thread_.joinable()) thread_.join();
  }
  int well() const { return well_; }
  int unwell() const { return unwell_; }

 private:
  std::atomic<int> well_{0}, unwell_{0};
  std::atomic<bool> stopping_{false};
  std::thread thread_;
};

struct Crowd {
  size_t active, idle;  ///< streams that the server works for, and that wait for their turn
  size_t slow;          ///< of the active ones: nobody reads them
  size_t half_open;     ///< connections that begin a request and never end it, of each kind
  int rounds;
  int64_t most_growth = 0;  ///< bytes, from the end of the first round to that of the last
};

class HostilityTest : public testing::Test {
 protected:
  static void Endure(const Crowd& crowd);
};
using HostilityLongTest = HostilityTest;

/// The value of a metric.
double Metric(int port, const std::string& name) {
  TestClient client(port);
  const std::string page = "\n" + client.Get("/metrics").body;
  const size_t place = page.find("\n" + name + " ");
  EXPECT_NE(place, page.npos) << name;
  return place == page.npos ? -1 : std::atof(page.c_str() + place + 1 + name.size());
}

/// One round: the crowd comes, bad requests are answered meanwhile, and everybody goes.
void BeHostile(int port, const Crowd& crowd) {
  std::vector<std::unique_ptr<TestClient>> streams, half_open;
  for (size_t i = 0; i < crowd.active + crowd.idle; ++i) {
    streams.push_back(std::make_unique<TestClient>(port));
    if (i < crowd.slow) {
      const int small = 2048;
      setsockopt(streams.back()->socket(), SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    }
    streams.back()->Send(EndlessStream(i));
    // Who came first runs; the others wait for them.
    EXPECT_THAT(streams.back()->ReceiveUntil("\r\n\r\n"), HasSubstr(" 200 "));
    if (i >= crowd.slow && i < crowd.active) streams.back()->ReceiveUntil("data: ");
  }
  EXPECT_EQ(Metric(port, "toaster_streams"), static_cast<double>(streams.size()));

  const std::string whole = EndlessStream(0);
  for (size_t i = 0; i < crowd.half_open; ++i) {
    for (const size_t length : {size_t{0}, size_t{9}, whole.find("\r\n\r\n"), whole.size() - 1}) {
      half_open.push_back(std::make_unique<TestClient>(port));
      half_open.back()->Send(whole.substr(0, length));
    }
  }
  for (const BadRequest& request : BadRequests()) {
    TestClient client(port);
    client.Send(request.bytes);
    EXPECT_EQ(client.Receive().status, request.status) << request.name;
  }
  {
    TestClient client(port);
    Trickle(client.socket(), Request("{\"messages\": 7}"));
    EXPECT_EQ(client.Receive().status, 400);
    // On the same connection: a good request with bytes behind it that are none.
    client.Send("GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n\x01\x02\x03\r\n\r\n");
    EXPECT_EQ(client.Receive().status, 200);
    EXPECT_EQ(client.Receive().status, 400);
  }
  // Those that are read are still answered.
  for (size_t i = crowd.slow; i < crowd.active; ++i)
    EXPECT_THAT(streams[i]->ReceiveUntil("data: "), HasSubstr("data: "));
  // Every second one goes with a bang.
  for (size_t i = 0; i < streams.size(); i += 2) {
    const linger now = {1, 0};
    setsockopt(streams[i]->socket(), SOL_SOCKET, SO_LINGER, &now, sizeof now);
  }
}

void HostilityTest::Endure(const Crowd& crowd) {
  rlimit files = {};
  getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;  // for the server, too, which inherits it
  setrlimit(RLIMIT_NOFILE, &files);
  const size_t streams = crowd.active + crowd.idle;
  // Those that will run wait, too, until the step that is under way ends.
  test::Served served({"--parallel", std::to_string(crowd.active), "--max-waiting",
                       std::to_string(streams), "--max-streams", std::to_string(streams + 8),
                       "--max-body-mib", std::to_string(kMaxBody >> 20), "--prefix-cache-mib", "4",
                       "--linger-seconds", "0"});
  ASSERT_NE(served.port(), 0);
  const Holdings before = HoldingsOf(served.process());
  Holdings first, last;
  HealthWatch watch(served.port());
  for (int round = 0; round < crowd.rounds; ++round) {
    BeHostile(served.port(), crowd);
    // What was held is given back: the threads last, a while after their work.
    do {
      std::this_thread::sleep_for(milliseconds(50));
      last = HoldingsOf(served.process());
    } while (Metric(served.port(), "toaster_streams") > 0 || last.threads > before.threads + 16);
    if (round == 0) first = last;
    std::printf("round %d: %ld descriptors, %ld threads, %.1f MiB\n", round, last.descriptors,
                last.threads, static_cast<double>(last.anonymous_bytes) / (1 << 20));
  }
  watch.Stop();
  EXPECT_EQ(watch.unwell(), 0);
  EXPECT_GT(watch.well(), 0);
  // Connections that the server has yet to close are the watch's own last ones.
  EXPECT_LE(last.descriptors, before.descriptors + 8);
  if (crowd.most_growth > 0) {
    EXPECT_LT(last.anonymous_bytes - first.anonymous_bytes, crowd.most_growth);
  }

  TestClient client(served.port());
  EXPECT_EQ(client
                .Post("/v1/chat/completions",
                      R"({"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1})")
                .status,
            200);
  served.Signal(SIGTERM);
  EXPECT_EQ(served.ExitCode(), 0);
}

TEST_F(HostilityTest, AFewMeanClientsHinderNobody) {
  Endure({.active = 4, .idle = 12, .slow = 2, .half_open = 4, .rounds = 1});
}

TEST_F(HostilityLongTest, FiveHundredIdleStreamsAndSixtyFourActiveOnesLeaveNothingBehind) {
  // A leak of 10 KB a stream would be 17 MB in these rounds.
  Endure({.active = 64,
          .idle = 500,
          .slow = 16,
          .half_open = 50,
          .rounds = 4,
          .most_growth = int64_t{12} << 20});
}

}  // namespace
}  // namespace toaster
