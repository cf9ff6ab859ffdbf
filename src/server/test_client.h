#pragma once

// A client for the tests of the server: one connection, bytes in and out as the test says.

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <string>
#include <string_view>

namespace toaster {

struct TestResponse {
  int status = 0;
  std::string header, body;
};

class TestClient {
 public:
  explicit TestClient(int port) : socket_(::socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(::connect(socket_, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    // A server that never answers fails the test instead of stopping it.
    const timeval limit = {60, 0};
    setsockopt(socket_, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  }
  ~TestClient() { ::close(socket_); }
  TestClient(const TestClient&) = delete;
  TestClient& operator=(const TestClient&) = delete;

  int socket() const { return socket_; }

  void Send(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t count = ::send(socket_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (count <= 0) return;  // the server may refuse a request before it has all of it
      bytes.remove_prefix(static_cast<size_t>(count));
    }
  }

  TestResponse Get(std::string_view path, std::string_view headers = "") {
    return Ask("GET", path, headers, "");
  }
  TestResponse Post(std::string_view path, std::string_view body, std::string_view headers = "") {
    return Ask("POST", path, headers, body);
  }
  TestResponse Ask(std::string_view method, std::string_view path, std::string_view headers,
                   std::string_view body) {
    std::string request = std::string(method) + " " + std::string(path) +
                          " HTTP/1.1\r\nHost: localhost\r\n" + std::string(headers);
    if (!body.empty()) request += "Content-Length: " + std::to_string(body.size()) + "\r\n";
    Send(request + "\r\n" + std::string(body));
    return Receive();
  }

  /// Bytes up to and with `mark`, or to the end of the connection.
  std::string ReceiveUntil(std::string_view mark) {
    for (;;) {
      if (const size_t place = received_.find(mark); place != std::string::npos) {
        std::string text = received_.substr(0, place + mark.size());
        received_.erase(0, text.size());
        return text;
      }
      if (!Fill()) return std::exchange(received_, "");
    }
  }

  std::string ReceiveAll() {
    while (Fill()) {
    }
    return std::exchange(received_, "");
  }

  /// One response; chunks are put together.
  TestResponse Receive() {
    TestResponse response;
    response.header = ReceiveUntil("\r\n\r\n");
    if (response.header.size() < 12) return response;
    response.status = std::atoi(response.header.c_str() + 9);
    if (response.header.find("Transfer-Encoding: chunked") != std::string::npos) {
      for (;;) {
        const std::string line = ReceiveUntil("\r\n");
        const size_t size = std::strtoul(line.c_str(), nullptr, 16);
        const std::string chunk = ReceiveBytes(size + 2);
        if (size == 0 || chunk.size() < size) return response;
        response.body += chunk.substr(0, size);
      }
    }
    const size_t length = response.header.find("Content-Length: ");
    if (length != std::string::npos)
      response.body =
          ReceiveBytes(std::strtoul(response.header.c_str() + length + 16, nullptr, 10));
    return response;
  }

 private:
  std::string ReceiveBytes(size_t count) {
    while (received_.size() < count && Fill()) {
    }
    std::string bytes = received_.substr(0, count);
    received_.erase(0, bytes.size());
    return bytes;
  }

  bool Fill() {
    char buffer[65536];
    const ssize_t count = ::recv(socket_, buffer, sizeof buffer, 0);
    if (count <= 0) return false;
    received_.append(buffer, static_cast<size_t>(count));
    return true;
  }

  int socket_;
  std::string received_;
};

}  // namespace toaster
