#include "server/http_server.h"

#include <fmt/format.h>
#include <httplib.h>
#include <netdb.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <atomic>
#include <charconv>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <iterator>
#include <list>
#include <mutex>
#include <thread>

#include "base/error.h"

namespace toaster {
namespace {

using SteadyClock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr size_t kLongestPath = 2048;
constexpr int kBacklog = 1024;
constexpr const char* kTooLarge =
    "the request body is larger than this server takes; shorten it or start the server with a "
    "larger --max-body-mib";
/// All bodies together may be as large as so many of the largest.
constexpr size_t kLargestBodies = 4;
constexpr const char* kTooMuch =
    "the server has its hands full with other large requests; try again soon";

struct FreeTls {
  void operator()(SSL_CTX* context) const { SSL_CTX_free(context); }
  void operator()(SSL* session) const { SSL_free(session); }
};

/// A thread per connection that is being answered, made when there is none idle; one that has done
/// its work while enough others are idle ends, so that a rush leaves no threads behind.
class ConnectionThreads : public httplib::TaskQueue {
 public:
  /// `queued` is told how many connections have no thread.
  ConnectionThreads(size_t most, std::atomic<size_t>& queued) : most_(most), queued_(queued) {}

  void enqueue(std::function<void()> task) override {
    const std::lock_guard lock(mutex_);
    tasks_.push_back(std::move(task));
    queued_ = tasks_.size();
    if (idle_ < tasks_.size() && threads_.size() < most_) {
      threads_.emplace_back();
      threads_.back() = std::thread([this, self = std::prev(threads_.end())] { Work(self); });
    }
    wake_.notify_one();
  }

  void shutdown() override {
    std::list<std::thread> threads;
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
      threads.swap(threads_);
      threads.push_back(std::move(ended_));
    }
    wake_.notify_all();
    for (std::thread& thread : threads)
      if (thread.joinable()) thread.join();
  }

 private:
  static constexpr size_t kKept = 8;  ///< idle threads that are enough

  void Work(std::list<std::thread>::iterator self) {
    std::unique_lock lock(mutex_);
    for (;;) {
      ++idle_;
      wake_.wait(lock, [&] { return stopping_ || !tasks_.empty(); });
      --idle_;
      if (tasks_.empty()) break;
      const std::function<void()> task = std::move(tasks_.front());
      tasks_.pop_front();
      queued_ = tasks_.size();
      lock.unlock();
      task();
      lock.lock();
      if (idle_ >= kKept && tasks_.empty()) break;
    }
    if (stopping_) return;
    // A thread can't join itself: the next one that ends does.
    std::thread before = std::exchange(ended_, std::move(*self));
    threads_.erase(self);
    lock.unlock();
    if (before.joinable()) before.join();
  }

  const size_t most_;
  std::atomic<size_t>& queued_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::function<void()>> tasks_;
  std::list<std::thread> threads_;
  std::thread ended_;  ///< the last one that ended for want of work
  size_t idle_ = 0;
  bool stopping_ = false;
};

/// A body's share of the memory for all of them.
class BodyShare {
 public:
  BodyShare(std::atomic<size_t>& total, size_t most) : total_(total), most_(most) {}
  ~BodyShare() { total_ -= bytes_; }
  BodyShare(const BodyShare&) = delete;
  BodyShare& operator=(const BodyShare&) = delete;

  /// False: others have taken too much.
  bool Grow(size_t bytes) {
    bytes_ += bytes;
    return (total_ += bytes) <= most_;
  }

 private:
  std::atomic<size_t>& total_;
  const size_t most_;
  size_t bytes_ = 0;
};

/// One connection's bytes, plain or by TLS, with the limits of HttpOptions. The library's own
/// streams neither bound the headers of a request nor notice a client that goes.
class Connection : public httplib::Stream {
 public:
  Connection(int socket, const HttpOptions& options, SSL* tls)
      : socket_(socket), options_(options), tls_(tls) {}

  /// Waits for the first byte of a request. False: it did not come, or the connection is not to
  /// wait on.
  bool WaitForRequest(const std::function<bool()>& give_up) {
    const auto end = SteadyClock::now() + std::chrono::seconds(options_.keep_alive_seconds);
    while (begin_ == buffer_.size()) {
      if (tls_ && SSL_pending(tls_) > 0) break;
      if (Poll(POLLIN, milliseconds(250))) {
        if (!Fill()) return false;
      } else if (give_up() || SteadyClock::now() >= end) {
        return false;
      }
    }
    header_bytes_ = 0;
    in_header_ = true;
    failed_ = 0;
    deadline_ = SteadyClock::now() + std::chrono::seconds(options_.read_seconds);
    return true;
  }

  /// The status with which reading ended before the request was complete; 0: it did not.
  int failed() const { return failed_; }

  bool Connected() const {
    pollfd state = {socket_, POLLRDHUP, 0};
    return ::poll(&state, 1, 0) == 0;
  }

  bool is_readable() const override { return true; }
  bool is_writable() const override { return Connected(); }
  socket_t socket() const override { return socket_; }

  ssize_t read(char* target, size_t size) override {
    if (begin_ == buffer_.size()) {
      const auto now = SteadyClock::now();
      const auto left = std::chrono::duration_cast<milliseconds>(deadline_ - now);
      const bool ready = (tls_ && SSL_pending(tls_) > 0) || (now < deadline_ && Poll(POLLIN, left));
      if (!ready) {
        failed_ = 408;
        return -1;
      }
      if (!Fill()) return 0;
    }
    const size_t count = std::min(size, buffer_.size() - begin_);
    std::copy_n(buffer_.data() + begin_, count, target);
    begin_ += count;
    if (in_header_) {
      header_bytes_ += count;
      if (header_bytes_ > options_.max_header_bytes) {
        failed_ = 431;
        return -1;
      }
    }
    return static_cast<ssize_t>(count);
  }

  /// No other request is read from it.
  void CloseAfterResponse() { closing_ = true; }
  bool closing() const { return closing_; }

  /// What follows is the body.
  void EndHeader() { in_header_ = false; }

  /// What the library would answer to a request that was given up is not sent; see failed().
  ssize_t write(const char* bytes, size_t size) override {
    return failed_ == 0 ? WriteAll(bytes, size) : -1;
  }

  ssize_t WriteAll(const char* bytes, size_t size) {
    size_t done = 0;
    while (done < size) {
      const ssize_t count = WriteSome(bytes + done, size - done);
      if (count > 0) {
        done += static_cast<size_t>(count);
      } else if (count < 0 || !Poll(POLLOUT, std::chrono::seconds(options_.write_seconds))) {
        return -1;
      }
    }
    return static_cast<ssize_t>(size);
  }

  void get_remote_ip_and_port(std::string& ip, int& port) const override {
    sockaddr_storage address = {};
    socklen_t length = sizeof address;
    if (getpeername(socket_, reinterpret_cast<sockaddr*>(&address), &length) == 0)
      Describe(address, length, ip, port);
  }
  void get_local_ip_and_port(std::string& ip, int& port) const override {
    sockaddr_storage address = {};
    socklen_t length = sizeof address;
    if (getsockname(socket_, reinterpret_cast<sockaddr*>(&address), &length) == 0)
      Describe(address, length, ip, port);
  }

 private:
  static void Describe(const sockaddr_storage& address, socklen_t length, std::string& ip,
                       int& port) {
    char host[NI_MAXHOST], service[NI_MAXSERV];
    if (getnameinfo(reinterpret_cast<const sockaddr*>(&address), length, host, sizeof host, service,
                    sizeof service, NI_NUMERICHOST | NI_NUMERICSERV) != 0)
      return;
    ip = host;
    port = std::atoi(service);
  }

  bool Poll(short events, milliseconds time) const {
    pollfd state = {socket_, events, 0};
    return ::poll(&state, 1, static_cast<int>(std::clamp<int64_t>(time.count(), 0, 1 << 30))) > 0;
  }

  /// Reads what is there. False: the connection has ended.
  bool Fill() {
    buffer_.resize(size_t{16} << 10);
    begin_ = 0;
    const ssize_t count = tls_ ? SSL_read(tls_, buffer_.data(), static_cast<int>(buffer_.size()))
                               : ::recv(socket_, buffer_.data(), buffer_.size(), 0);
    buffer_.resize(count > 0 ? static_cast<size_t>(count) : 0);
    return count > 0;
  }

  /// Bytes written; 0: the socket takes none now; -1: the connection has ended.
  ssize_t WriteSome(const char* bytes, size_t size) {
    if (tls_) {
      const int count = SSL_write(tls_, bytes, static_cast<int>(std::min<size_t>(size, 1 << 20)));
      if (count > 0) return count;
      const int error = SSL_get_error(tls_, count);
      return error == SSL_ERROR_WANT_WRITE || error == SSL_ERROR_WANT_READ ? 0 : -1;
    }
    const ssize_t count = ::send(socket_, bytes, size, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (count >= 0) return count;
    return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR ? 0 : -1;
  }

  const int socket_;
  const HttpOptions& options_;
  SSL* const tls_;  ///< nullptr: plain
  std::string buffer_;
  size_t begin_ = 0;  ///< first byte of buffer_ not read yet
  size_t header_bytes_ = 0;
  bool in_header_ = true;
  bool closing_ = false;
  int failed_ = 0;
  SteadyClock::time_point deadline_;
};

const char* ReasonOf(int status) {
  switch (status) {
    case 408:
      return "Request Timeout";
    case 431:
      return "Request Header Fields Too Large";
    default:
      return "Error";
  }
}

}  // namespace

const std::string* HttpRequest::Header(std::string_view name) const {
  const auto same = [](char a, char b) {
    const auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; };
    return lower(a) == lower(b);
  };
  for (const auto& [key, value] : headers) {
    if (key.size() == name.size() && std::equal(key.begin(), key.end(), name.begin(), same))
      return &value;
  }
  return nullptr;
}

struct HttpServer::Parts : httplib::Server {
  Parts(HttpOptions given, Screen screen, HttpServer::Handler handler, ErrorBodyMaker error_body)
      : options(std::move(given)),
        screen_(std::move(screen)),
        handler_(std::move(handler)),
        error_body_(std::move(error_body)) {
    if (!options.certificate.empty()) LoadCertificate();
    new_task_queue = [this] { return new ConnectionThreads(options.max_connections, queued_); };
    set_tcp_nodelay(true);
    // The library would let a second server take the same port.
    set_socket_options([](socket_t socket) {
      const int yes = 1;
      setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    });
    set_payload_max_length(options.max_body_bytes);
    SetHandlers();
  }

  void Bind() {
    port = options.port;
    const bool bound = options.port > 0 ? bind_to_port(options.host, options.port)
                                        : (port = bind_to_any_port(options.host)) > 0;
    if (!bound) {
      throw Error(ErrorCode::kIo,
                  fmt::format("can't listen on {} port {}: is another program using it, and is the "
                              "address one of this machine? choose another with --host and --port",
                              options.host, options.port));
    }
    // Five waiting connections, as the library has it, is too few.
    ::listen(svr_sock_, kBacklog);
  }

  HttpOptions options;
  int port = 0;
  std::atomic<bool> draining{false};
  std::atomic<size_t> open{0};
  std::thread acceptor;

 private:
  void LoadCertificate() {
    context_.reset(SSL_CTX_new(TLS_server_method()));
    SSL_CTX_set_min_proto_version(context_.get(), TLS1_2_VERSION);
    SSL_CTX_set_mode(context_.get(),
                     SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    const auto check = [](bool good, const std::string& file, const char* what) {
      if (good) return;
      ERR_clear_error();
      throw Error(ErrorCode::kInvalidArgument,
                  fmt::format("{}: is no {} in PEM form that fits; give --tls-certificate and "
                              "--tls-key of one pair",
                              file, what));
    };
    check(SSL_CTX_use_certificate_chain_file(context_.get(), options.certificate.c_str()) == 1,
          options.certificate, "certificate chain");
    check(SSL_CTX_use_PrivateKey_file(context_.get(), options.private_key.c_str(),
                                      SSL_FILETYPE_PEM) == 1 &&
              SSL_CTX_check_private_key(context_.get()) == 1,
          options.private_key, "private key");
  }

  void SetHandlers() {
    set_pre_routing_handler([this](const httplib::Request& request, httplib::Response& response) {
      ConnectionOf(request).EndHeader();
      std::optional<HttpResponse> answer = Refuse(request);
      if (!answer) answer = screen_(Convert(request));
      if (!answer) return HandlerResponse::Unhandled;
      // The body that follows is not read, so nothing else can.
      if (request.has_header("Content-Length") || request.has_header("Transfer-Encoding"))
        ConnectionOf(request).CloseAfterResponse();
      Give(request, std::move(*answer), response);
      return HandlerResponse::Handled;
    });
    const auto without_body = [this](const httplib::Request& request, httplib::Response& response) {
      Answer(request, "", response);
    };
    const auto with_body = [this](const httplib::Request& request, httplib::Response& response,
                                  const httplib::ContentReader& reader) {
      std::string body;
      BodyShare share(body_bytes_, kLargestBodies * options.max_body_bytes);
      bool fits = true, room = true;
      // Without a length there is no body; the library would read to the end of the connection.
      const bool has_body =
          request.has_header("Content-Length") || request.has_header("Transfer-Encoding");
      const bool read = !has_body || reader([&](const char* bytes, size_t count) {
        fits = body.size() + count <= options.max_body_bytes;
        room = share.Grow(count);
        if (fits && room) body.append(bytes, count);
        return fits && room;
      });
      if (!fits || !room) {
        response.status = fits ? 503 : 413;
        if (fits) response.set_header("Retry-After", "2");
        ConnectionOf(request).CloseAfterResponse();
      } else if (read) {
        Answer(request, std::move(body), response);
      }
    };
    Get(".*", without_body);
    Options(".*", without_body);
    Post(".*", with_body);
    Put(".*", with_body);
    Patch(".*", with_body);
    Delete(".*", with_body);
    set_error_handler([this](const httplib::Request&, httplib::Response& response) {
      if (!response.body.empty() || response.content_provider_) return;
      const char* message = response.status == 413 ? kTooLarge
                            : response.status == 503
                                ? kTooMuch
                                : "the request is no HTTP that this server understands";
      response.set_content(error_body_(response.status, message), "application/json");
    });
  }

  std::optional<HttpResponse> Refuse(const httplib::Request& request) {
    const auto refuse = [&](int status, const char* message) {
      HttpResponse response;
      response.status = status;
      response.body = error_body_(status, message);
      return response;
    };
    if (request.path.size() > kLongestPath) return refuse(414, "the path is too long");
    if (request.has_header("Content-Length")) {
      // The library would read a body that is too large to its end before it refuses it.
      const std::string text = request.get_header_value("Content-Length");
      uint64_t length = 0;
      const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), length);
      if (error == std::errc::result_out_of_range || length > options.max_body_bytes)
        return refuse(413, kTooLarge);
      if (error != std::errc() || end != text.data() + text.size())
        return refuse(400, "the Content-Length is no number");
    }
    if (request.has_header("Content-Encoding") &&
        request.get_header_value("Content-Encoding") != "identity")
      return refuse(415, "compressed bodies are not taken; send the JSON as it is");
    if (request.is_multipart_form_data()) return refuse(415, "forms are not taken; send JSON");
    return std::nullopt;
  }

  static HttpRequest Convert(const httplib::Request& request) {
    HttpRequest converted;
    converted.method = request.method;
    converted.path = request.path;
    converted.remote_address = request.remote_addr;
    converted.headers.assign(request.headers.begin(), request.headers.end());
    converted.parameters.assign(request.params.begin(), request.params.end());
    converted.connected = [&connection = ConnectionOf(request)] { return connection.Connected(); };
    return converted;
  }

  void Answer(const httplib::Request& request, std::string body, httplib::Response& response) {
    HttpRequest converted = Convert(request);
    converted.body = std::move(body);
    HttpResponse answer;
    try {
      answer = handler_(converted);
    } catch (const std::exception&) {
      answer.status = 500;
      answer.body = error_body_(500, "the server failed; its log says more");
    }
    Give(request, std::move(answer), response);
  }

  void Give(const httplib::Request& request, HttpResponse answer, httplib::Response& response) {
    response.status = answer.status;
    for (const auto& [key, value] : answer.headers) response.set_header(key, value);
    if (draining) ConnectionOf(request).CloseAfterResponse();
    if (ConnectionOf(request).closing()) response.set_header("Connection", "close");
    if (!answer.stream) {
      response.set_content(answer.body, answer.content_type);
      return;
    }
    response.set_chunked_content_provider(
        answer.content_type, [stream = std::move(answer.stream)](size_t, httplib::DataSink& sink) {
          // All of it in one call: between calls the library would give up when the port closes.
          bool connected = true;
          const SendBytes send = [&](std::string_view bytes) {
            if (!connected) return false;
            connected = bytes.empty() ? sink.is_writable() : sink.write(bytes.data(), bytes.size());
            return connected;
          };
          stream(send);
          if (connected) sink.done();
          return connected;
        });
  }

  /// The library has no place for it, so it travels in a member of the request that only clients
  /// use.
  struct ConnectionHolder {
    Connection* connection;
    bool operator()(uint64_t, uint64_t) const { return true; }
  };
  static Connection& ConnectionOf(const httplib::Request& request) {
    return *request.progress.target<ConnectionHolder>()->connection;
  }

  bool process_and_close_socket(socket_t socket) override;

  Screen screen_;
  HttpServer::Handler handler_;
  ErrorBodyMaker error_body_;
  std::unique_ptr<SSL_CTX, FreeTls> context_;
  std::atomic<size_t> queued_{0};      ///< connections without a thread
  std::atomic<size_t> body_bytes_{0};  ///< of the requests that are read or answered
};

bool HttpServer::Parts::process_and_close_socket(socket_t socket) {
  ++open;
  std::unique_ptr<SSL, FreeTls> tls;
  bool good = true;
  if (context_) {
    // A handshake that stops halfway must not keep the thread.
    const timeval limit = {options.keep_alive_seconds, 0};
    setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    setsockopt(socket, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    tls.reset(SSL_new(context_.get()));
    good = tls && SSL_set_fd(tls.get(), socket) == 1 && SSL_accept(tls.get()) == 1;
  }
  Connection connection(socket, options, tls.get());
  // Who asks nothing makes room for those without a thread.
  const auto give_up = [&] { return draining || (queued_ > 0 && open >= options.max_connections); };
  while (good && connection.WaitForRequest(give_up)) {
    bool closed = false, understood = false;
    const bool answered = process_request(connection, /*close_connection=*/false, closed,
                                          [&](httplib::Request& request) {
                                            understood = true;
                                            request.progress = ConnectionHolder{&connection};
                                          });
    if (connection.failed() != 0) {
      const std::string body =
          error_body_(connection.failed(), "the request's headers are too long or came too slowly");
      const std::string response = fmt::format(
          "HTTP/1.1 {} {}\r\nConnection: close\r\nContent-Type: "
          "application/json\r\nContent-Length: {}\r\n\r\n{}",
          connection.failed(), ReasonOf(connection.failed()), body.size(), body);
      connection.WriteAll(response.data(), response.size());
    }
    good = answered && understood && connection.failed() == 0 && !closed && !connection.closing() &&
           !draining;
  }
  if (tls) SSL_shutdown(tls.get());
  ::shutdown(socket, SHUT_RDWR);
  ::close(socket);
  ERR_clear_error();
  --open;
  return true;
}

HttpServer::HttpServer(HttpOptions options, Screen screen, Handler handler,
                       ErrorBodyMaker error_body)
    : parts_(std::make_unique<Parts>(std::move(options), std::move(screen), std::move(handler),
                                     std::move(error_body))) {
  parts_->Bind();
}

HttpServer::~HttpServer() { Stop(); }

int HttpServer::port() const { return parts_->port; }

void HttpServer::Start() {
  parts_->acceptor = std::thread([parts = parts_.get()] { parts->listen_after_bind(); });
  while (!parts_->is_running()) std::this_thread::yield();
}

void HttpServer::Drain() { parts_->draining = true; }

void HttpServer::Stop() {
  Drain();
  if (!parts_->acceptor.joinable()) return;
  parts_->stop();
  parts_->acceptor.join();
}

size_t HttpServer::connections() const { return parts_->open; }

}  // namespace toaster
