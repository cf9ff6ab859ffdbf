#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "server/conversation_memory.h"
#include "server/event_log.h"
#include "server/generation_service.h"
#include "server/http_server.h"
#include "server/metrics.h"
#include "server/open_api.h"
#include "server/request_guard.h"
#include "server/web_page.h"

namespace toaster {

struct ApiServerOptions {
  std::string model_name;
  int64_t max_streams = 512;  ///< replies on their way at once
  std::chrono::milliseconds ping{10000};
  size_t memory_bytes = size_t{64} << 20;  ///< of each kind in ConversationMemory
};

/// The paths of the server: which answers what. Any thread. Before Serve() requests that need the
/// model get 503.
class ApiServer {
 public:
  ApiServer(ApiServerOptions options, RequestGuard guard, EventLog& log);

  /// The model is there. The parts are borrowed and stay until the server is destroyed.
  void Serve(const ServedParts& parts) { parts_ = &parts; }
  /// From now on requests that need the model get 503.
  void Drain() { draining_ = true; }
  /// Replies on their way.
  int64_t streams() const { return streams_; }

  // The handlers of an HttpServer.
  std::optional<HttpResponse> Screen(const HttpRequest& request);
  HttpResponse Handle(HttpRequest& request);
  static std::string ErrorText(int status, std::string_view message);

  /// Connections that are open, for the metrics; set once, before requests come.
  std::function<size_t()> connections = [] { return size_t{0}; };

 private:
  /// A request that is answered by the model, and who says the answer.
  struct Asked {
    GenerationRequest request;
    std::function<std::unique_ptr<ResponseWriter>(const GenerationRequest&)> make_writer;
    std::function<void(const Outcome&)> done;  ///< may be empty
    Protocol protocol = Protocol::kOpenAi;
    std::string id;
  };
  struct Answer;
  struct Route {
    RouteDescription description;
    HttpResponse (ApiServer::*handler)(HttpRequest&);
  };
  struct Found {
    const Route* route = nullptr;  ///< nullptr: none with this path and method
    std::string methods;           ///< that the path takes; empty: there is no such path
  };

  static const std::vector<Route>& Routes();
  static Found Find(const HttpRequest& request);
  static Protocol ProtocolOf(const HttpRequest& request);
  /// By the handler of its route, or with what is wrong with path or method.
  HttpResponse Answered(HttpRequest& request);
  HttpResponse Generate(HttpRequest& http, Asked asked);
  HttpResponse Chat(HttpRequest& http);
  HttpResponse Complete(HttpRequest& http);
  HttpResponse Messages(HttpRequest& http);
  HttpResponse Responses(HttpRequest& http);
  HttpResponse CountTokens(HttpRequest& http);
  HttpResponse Tokenize(HttpRequest& http);
  HttpResponse Detokenize(HttpRequest& http);
  HttpResponse ApplyTemplate(HttpRequest& http);
  HttpResponse Models(HttpRequest& http);
  HttpResponse Model(HttpRequest& http);
  HttpResponse Page(HttpRequest& http);
  HttpResponse Health(HttpRequest& http);
  HttpResponse MetricsPage(HttpRequest& http);
  HttpResponse Props(HttpRequest& http);
  HttpResponse Slots(HttpRequest& http);
  HttpResponse Describe(HttpRequest& http);
  HttpResponse Fail(const HttpRequest& request, const ApiError& error);
  /// Throws ApiError of status 503 while there is no model, or the server stops.
  const ServedParts& Parts() const;

  const ApiServerOptions options_;
  const RequestGuard guard_;
  EventLog& log_;
  Metrics metrics_;
  ConversationMemory memory_;
  RateLimits limits_;
  std::atomic<const ServedParts*> parts_{nullptr};
  std::atomic<bool> draining_{false};
  std::atomic<int64_t> streams_{0};
};

}  // namespace toaster
