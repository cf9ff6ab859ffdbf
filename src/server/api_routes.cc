// Which path is answered how: the one table that routing and the published description share.

#include <fmt/format.h>

#include "server/api_server.h"
#include "tokenizer/utf8.h"

namespace toaster {
namespace {

/// The path without the prefixes under which other services have theirs: /anthropic, /beta, /v1.
std::string_view PlainPath(std::string_view path) {
  const auto strip = [&](std::string_view prefix) {
    const bool has = path.substr(0, prefix.size()) == prefix && path.size() > prefix.size() &&
                     path[prefix.size()] == '/';
    if (has) path.remove_prefix(prefix.size());
  };
  strip("/anthropic");
  strip("/beta");
  strip("/v1");
  return path;
}

bool Fits(std::string_view route, std::string_view path) {
  route = PlainPath(route);
  const size_t brace = route.find('{');
  if (brace == std::string_view::npos) return path == route;
  return path.size() > brace && path.substr(0, brace) == route.substr(0, brace);
}

}  // namespace

const std::vector<ApiServer::Route>& ApiServer::Routes() {
  constexpr bool kStreams = true, kNeedsKey = true;
  constexpr const char* kJson = "application/json";
  static const std::vector<Route> routes = {
      {{"POST", "/v1/chat/completions", "chat", "OpenAI's and DeepSeek's chat.", ChatSchema, kJson,
        kStreams, kNeedsKey},
       &ApiServer::Chat},
      {{"POST", "/v1/completions", "complete", "Goes on with a text, or fills in before a suffix.",
        CompletionSchema, kJson, kStreams, kNeedsKey},
       &ApiServer::Complete},
      {{"POST", "/v1/responses", "respond", "OpenAI's Responses API.", ResponsesSchema, kJson,
        kStreams, kNeedsKey},
       &ApiServer::Responses},
      {{"POST", "/v1/messages", "answerMessages", "Anthropic's Messages API.", MessagesSchema,
        kJson, kStreams, kNeedsKey},
       &ApiServer::Messages},
      {{"POST", "/v1/messages/count_tokens", "countTokens", "Tokens of a Messages request.",
        CountTokensSchema, kJson, !kStreams, kNeedsKey},
       &ApiServer::CountTokens},
      {{"GET", "/v1/models", "listModels", "The model.", nullptr, kJson, !kStreams, kNeedsKey},
       &ApiServer::Models},
      {{"GET", "/v1/models/{model}", "getModel", "The model, by its name.", nullptr, kJson,
        !kStreams, kNeedsKey},
       &ApiServer::Model},
      {{"POST", "/tokenize", "tokenize", "A text, or the prompt of a chat, as token ids.",
        TokenizeSchema, kJson, !kStreams, kNeedsKey},
       &ApiServer::Tokenize},
      {{"POST", "/detokenize", "detokenize", "Token ids as a text.", DetokenizeSchema, kJson,
        !kStreams, kNeedsKey},
       &ApiServer::Detokenize},
      {{"POST", "/apply-template", "applyTemplate", "The prompt of a chat request.", ChatSchema,
        kJson, !kStreams, kNeedsKey},
       &ApiServer::ApplyTemplate},
      {{"GET", "/health", "health", "Whether the model is there."}, &ApiServer::Health},
      {{"GET", "/metrics", "metrics", "Counters and gauges for Prometheus.", nullptr, "text/plain",
        !kStreams, kNeedsKey},
       &ApiServer::MetricsPage},
      {{"GET", "/props", "props", "The model and how it is served.", nullptr, kJson, !kStreams,
        kNeedsKey},
       &ApiServer::Props},
      {{"GET", "/slots", "slots", "What the model computes.", nullptr, kJson, !kStreams, kNeedsKey},
       &ApiServer::Slots},
      {{"GET", "/openapi.json", "describe", "This document."}, &ApiServer::Describe},
      {{"GET", "/", "page", "The chat page.", nullptr, "text/html"}, &ApiServer::Page},
      {{"GET", "/index.html", "pageIndex", "The chat page.", nullptr, "text/html"},
       &ApiServer::Page},
      {{"GET", "/app.js", "pageScript", "The chat page's script.", nullptr, "text/javascript"},
       &ApiServer::Page},
      {{"GET", "/app.css", "pageStyle", "The chat page's style.", nullptr, "text/css"},
       &ApiServer::Page}};
  return routes;
}

ApiServer::Found ApiServer::Find(const HttpRequest& request) {
  const std::string_view path = PlainPath(request.path);
  std::string_view method = request.method;
  if (method == "HEAD") method = "GET";
  Found found;
  for (const Route& route : Routes()) {
    if (!Fits(route.description.path, path)) continue;
    if (route.description.method == method) found.route = &route;
    found.methods += found.methods.empty() ? "" : ", ";
    found.methods += route.description.method == "GET" ? "GET, HEAD" : route.description.method;
  }
  if (!found.methods.empty()) found.methods += ", OPTIONS";
  return found;
}

HttpResponse ApiServer::Answered(HttpRequest& request) {
  const Found found = Find(request);
  if (found.route) return (this->*found.route->handler)(request);
  const std::string path = ReplaceIllFormed(request.path.substr(0, 200));
  if (found.methods.empty()) {
    throw ApiError(404, "",
                   fmt::format("there is nothing at {}; /openapi.json lists what there is", path));
  }
  HttpResponse response;
  if (request.method == "OPTIONS") {
    response.status = 204;
    if (guard_.AllowedOrigin(request)) {
      response.headers = {{"Access-Control-Allow-Methods", found.methods},
                          {"Access-Control-Allow-Headers",
                           "Authorization, Content-Type, x-api-key, anthropic-version"},
                          {"Access-Control-Max-Age", "600"}};
    }
  } else {
    response = Fail(request, ApiError(405, "",
                                      fmt::format("{} does not take {}; it takes {}", path,
                                                  request.method, found.methods)));
  }
  response.headers.emplace_back("Allow", found.methods);
  return response;
}

HttpResponse ApiServer::Describe(HttpRequest&) {
  static const std::string document = [] {
    std::vector<RouteDescription> descriptions;
    for (const Route& route : Routes()) descriptions.push_back(route.description);
    return DumpJson(OpenApiDocument(descriptions));
  }();
  HttpResponse response;
  response.body = document;
  return response;
}

Protocol ApiServer::ProtocolOf(const HttpRequest& request) {
  const bool anthropic = request.path.rfind("/anthropic/", 0) == 0 ||
                         PlainPath(request.path).substr(0, 9) == "/messages";
  return anthropic ? Protocol::kAnthropic : Protocol::kOpenAi;
}

}  // namespace toaster
