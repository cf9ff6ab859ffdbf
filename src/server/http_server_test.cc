#include "server/http_server.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "server/test_client.h"

namespace toaster {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

HttpServer MakeServer(HttpOptions options, HttpServer::Handler handler) {
  return HttpServer(
      std::move(options),
      [](const HttpRequest& request) -> std::optional<HttpResponse> {
        if (request.path != "/secret") return std::nullopt;
        HttpResponse response;
        response.status = 401;
        response.body = "no";
        return response;
      },
      std::move(handler),
      [](int status, std::string_view) { return "made " + std::to_string(status); });
}

HttpResponse Echo(HttpRequest& request) {
  HttpResponse response;
  response.body = request.method + " " + request.path + " " + request.body;
  return response;
}

TEST(HttpServerTest, AnswersSeveralRequestsOnOneConnection) {
  HttpServer server = MakeServer({}, Echo);
  server.Start();
  TestClient client(server.port());
  EXPECT_EQ(client.Get("/a%20b?x=1").body, "GET /a b ");
  EXPECT_EQ(client.Post("/c", "body").body, "POST /c body");
  client.Send(
      "POST /d HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
  EXPECT_EQ(client.Receive().body, "POST /d abc");
}

TEST(HttpServerTest, ABodyIsNotReadBeforeTheRequestWasScreened) {
  HttpServer server = MakeServer({}, Echo);
  server.Start();
  TestClient client(server.port());
  client.Send("POST /secret HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\n");
  const TestResponse response = client.Receive();
  EXPECT_EQ(response.status, 401);
  EXPECT_THAT(response.header, HasSubstr("Connection: close"));
  EXPECT_EQ(client.ReceiveAll(), "");
}

TEST(HttpServerTest, LimitsEndARequestWithTheRightStatus) {
  HttpOptions options;
  options.max_body_bytes = 100;
  options.max_header_bytes = 4000;
  options.read_seconds = 1;
  HttpServer server = MakeServer(options, Echo);
  server.Start();
  const auto status = [&](std::string_view request) {
    TestClient client(server.port());
    client.Send(request);
    return client.Receive().status;
  };
  const std::string big(101, 'x');
  EXPECT_EQ(status("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 101\r\n\r\n" + big), 413);
  EXPECT_EQ(status("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n65\r\n" + big +
                   "\r\n0\r\n\r\n"),
            413);
  // Before a byte of the body has come.
  EXPECT_EQ(status("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999999999999999\r\n\r\n"),
            413);
  EXPECT_EQ(status("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: -1\r\n\r\n"), 400);
  std::string flood = "GET / HTTP/1.1\r\nHost: h\r\n";
  for (int i = 0; i < 1000; ++i) flood += "x-flood: yes\r\n";
  EXPECT_EQ(status(flood + "\r\n"), 431);
  EXPECT_EQ(status("GET / HTTP/1.1\r\nHost: h\r\n"), 408);
  EXPECT_EQ(status("POST / HTTP/1.1\r\nHost: h\r\nContent-Encoding: gzip\r\nContent-Length: "
                   "1\r\n\r\nx"),
            415);
  EXPECT_EQ(status("POST / HTTP/1.1\r\nHost: h\r\nContent-Type: multipart/form-data; "
                   "boundary=b\r\nContent-Length: 1\r\n\r\nx"),
            415);
  EXPECT_EQ(status("GET /" + std::string(3000, 'a') + " HTTP/1.1\r\nHost: h\r\n\r\n"), 414);
  EXPECT_EQ(status("nonsense\r\n\r\n"), 400);
}

TEST(HttpServerTest, AllBodiesTogetherAreBounded) {
  HttpOptions options;
  options.max_body_bytes = 100;
  std::mutex mutex;
  std::condition_variable wake;
  int held = 0;
  bool free = false;
  HttpServer server = MakeServer(options, [&](HttpRequest& request) {
    std::unique_lock lock(mutex);
    ++held;
    wake.notify_all();
    wake.wait(lock, [&] { return free; });
    return Echo(request);
  });
  server.Start();
  const std::string large =
      "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\n" + std::string(100, 'x');
  // Four of the largest have room.
  std::vector<std::unique_ptr<TestClient>> clients;
  for (int i = 0; i < 4; ++i) {
    clients.push_back(std::make_unique<TestClient>(server.port()));
    clients.back()->Send(large);
  }
  {
    std::unique_lock lock(mutex);
    wake.wait(lock, [&] { return held == 4; });
  }
  TestClient fifth(server.port());
  fifth.Send(large);
  const TestResponse refused = fifth.Receive();
  EXPECT_EQ(refused.status, 503);
  EXPECT_THAT(refused.header, HasSubstr("Retry-After: "));
  {
    const std::lock_guard lock(mutex);
    free = true;
  }
  wake.notify_all();
  for (const auto& client : clients) EXPECT_EQ(client->Receive().status, 200);
  // What was held is free again; the answer may come a little before that.
  int status = 503;
  while (status == 503) {
    TestClient again(server.port());
    again.Send(large);
    status = again.Receive().status;
  }
  EXPECT_EQ(status, 200);
}

TEST(HttpServerTest, IdleConnectionsMakeRoom) {
  HttpOptions options;
  options.max_connections = 2;
  options.keep_alive_seconds = 3600;
  HttpServer server = MakeServer(options, Echo);
  server.Start();
  TestClient one(server.port()), other(server.port()), third(server.port());
  EXPECT_EQ(one.Get("/").status, 200);
  EXPECT_EQ(third.Get("/").status, 200);
}

TEST(HttpServerTest, StreamsAndNoticesThatTheClientIsGone) {
  std::atomic<int> ended = 0;
  HttpServer server = MakeServer({}, [&](HttpRequest&) {
    HttpResponse response;
    response.content_type = "text/event-stream";
    response.stream = [&](const SendBytes& send) {
      send("data: 1\n\n");
      while (send("")) std::this_thread::sleep_for(std::chrono::milliseconds(2));
      ++ended;
    };
    return response;
  });
  server.Start();
  {
    TestClient client(server.port());
    client.Send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    EXPECT_THAT(client.ReceiveUntil("data: 1\n\n"), HasSubstr("text/event-stream"));
  }
  while (ended == 0) std::this_thread::yield();
}

TEST(HttpServerTest, AHandlerSeesThatItsClientIsGone) {
  std::atomic<bool> gone = false;
  HttpServer server = MakeServer({}, [&](HttpRequest& request) {
    while (request.connected()) std::this_thread::sleep_for(std::chrono::milliseconds(2));
    gone = true;
    return HttpResponse();
  });
  server.Start();
  {
    TestClient client(server.port());
    client.Send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
  }
  while (!gone) std::this_thread::yield();
}

TEST(HttpServerTest, AnswersManyConnectionsAtOnce) {
  std::atomic<int> inside = 0;
  constexpr int kClients = 64;
  HttpServer server = MakeServer({}, [&](HttpRequest& request) {
    ++inside;
    // Comes to an end only if all of them are being answered.
    while (inside < kClients && request.connected())
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    return Echo(request);
  });
  server.Start();
  std::vector<std::unique_ptr<TestClient>> clients;
  for (int i = 0; i < kClients; ++i) {
    clients.push_back(std::make_unique<TestClient>(server.port()));
    clients.back()->Send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
  }
  for (const auto& client : clients) EXPECT_EQ(client->Receive().status, 200);
}

TEST(HttpServerTest, StoppingWaitsForTheAnswerThatIsOnItsWay) {
  std::atomic<bool> begun = false, go_on = false;
  HttpServer server = MakeServer({}, [&](HttpRequest&) {
    HttpResponse response;
    response.stream = [&](const SendBytes& send) {
      begun = true;
      send("first");
      while (!go_on) std::this_thread::yield();
      send("last");
    };
    return response;
  });
  server.Start();
  TestClient client(server.port());
  client.Send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
  while (!begun) std::this_thread::yield();
  std::thread stopper([&] { server.Stop(); });
  go_on = true;
  EXPECT_THAT(client.ReceiveAll(), HasSubstr("last"));
  stopper.join();
}

TEST(HttpServerTest, APortThatIsTakenIsSaid) {
  HttpServer server = MakeServer({}, Echo);
  HttpOptions options;
  options.port = server.port();
  try {
    MakeServer(options, Echo);
    ADD_FAILURE();
  } catch (const std::exception& error) {
    EXPECT_THAT(error.what(), HasSubstr("--port"));
  }
}

}  // namespace
}  // namespace toaster
