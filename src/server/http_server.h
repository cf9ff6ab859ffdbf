#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace toaster {

/// A request as it came in. `body` is empty when it is looked at for the first time (see Screen).
struct HttpRequest {
  std::string method, path;  ///< path: decoded, without the query
  std::string body;
  std::string remote_address;
  std::vector<std::pair<std::string, std::string>> headers, parameters;
  /// False once the client is gone (or has closed its side). Only while the request is answered.
  std::function<bool()> connected;

  /// The first header of that name, in any case of letters; nullptr if there is none.
  const std::string* Header(std::string_view name) const;
};

/// Sends bytes of a streamed body; false: the client is gone or reads too slowly. Empty bytes only
/// ask.
using SendBytes = std::function<bool(std::string_view)>;

struct HttpResponse {
  int status = 200;
  std::string content_type = "application/json";
  std::string body;
  std::vector<std::pair<std::string, std::string>> headers;
  /// If set, it writes the body, on the connection's thread, and returns when that is complete.
  std::function<void(const SendBytes&)> stream;
};

struct HttpOptions {
  std::string host = "127.0.0.1";
  int port = 0;  ///< 0: any
  /// PEM files; both empty: no TLS.
  std::string certificate, private_key;
  size_t max_body_bytes = size_t{64} << 20;
  size_t max_header_bytes = size_t{64} << 10;
  size_t max_connections = 1024;  ///< more wait, and idle ones make room for them
  int keep_alive_seconds = 15;
  int read_seconds = 60;   ///< for a whole request to arrive
  int write_seconds = 30;  ///< for a client to take some bytes
};

/// An HTTP/1.1 server, the only user of its library: sockets, TLS, threads, limits. Knows no paths:
/// every request goes to one handler. Each connection has a thread, from a set that grows with
/// them.
///
/// Limits end a request with 431 (headers), 413 (body), 503 (all bodies together larger than four
/// of the largest), 408 (slow), 415 (compressed or multipart bodies) or by closing the connection.
class HttpServer {
 public:
  /// Answers on a connection's thread; any number at once. An exception becomes status 500.
  using Handler = std::function<HttpResponse(HttpRequest&)>;
  /// Looks at a request before its body is read; an answer ends it there.
  using Screen = std::function<std::optional<HttpResponse>(const HttpRequest&)>;
  /// The body of an answer that the server gives itself.
  using ErrorBodyMaker = std::function<std::string(int status, std::string_view message)>;

  /// Binds the port, so that connections may come; nobody answers before Start(). Throws Error(kIo)
  /// for an address that can't be had and Error(kInvalidArgument) for bad certificates.
  HttpServer(HttpOptions options, Screen screen, Handler handler, ErrorBodyMaker error_body);
  ~HttpServer();

  int port() const;
  void Start();
  /// From now on connections close after their response.
  void Drain();
  /// Closes the port and waits for the requests that are being answered; who answers them has to
  /// come to an end.
  void Stop();
  /// Connections open now.
  size_t connections() const;

 private:
  struct Parts;
  std::unique_ptr<Parts> parts_;
};

}  // namespace toaster
