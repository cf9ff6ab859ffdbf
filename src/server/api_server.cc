#include "server/api_server.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <ctime>

#include "base/memory_use.h"
#include "server/chat_api.h"
#include "server/completions_api.h"
#include "server/messages_api.h"
#include "server/responses_api.h"
#include "tokenizer/utf8.h"

namespace toaster {
namespace {

using std::chrono::milliseconds;
using SteadyClock = std::chrono::steady_clock;

/// How often a wait looks whether the client is still there.
constexpr milliseconds kLook{100};

HttpResponse JsonResponse(const OrderedJson& json, int status = 200) {
  HttpResponse response;
  response.status = status;
  response.body = DumpJson(json);
  return response;
}

/// The model as clients list it.
OrderedJson ModelEntry(const ServedModel& model) {
  return {{"id", model.name},      {"object", "model"},
          {"type", "model"},       {"display_name", model.name},
          {"created", 0},          {"created_at", "1970-01-01T00:00:00Z"},
          {"owned_by", "toaster"}, {"max_model_len", model.context}};
}

int64_t Now() { return static_cast<int64_t>(std::time(nullptr)); }

}  // namespace

/// One answer by the model, while it is made. Leaves its traces in log and metrics at its end.
struct ApiServer::Answer {
  ApiServer& server;
  Asked asked;
  std::unique_ptr<ResponseWriter> writer;
  std::unique_ptr<GenerationRun> run;
  std::string key_name;
  SteadyClock::time_point last_sent = SteadyClock::now();
  std::string ended;  ///< why, if not by itself: abort, error

  Answer(ApiServer& owner, Asked what) : server(owner), asked(std::move(what)) {
    ++server.streams_;
  }
  Answer(const Answer&) = delete;
  Answer& operator=(const Answer&) = delete;
  ~Answer() {
    --server.streams_;
    try {
      if (run) Account();
    } catch (...) {  // the answer itself is out
      std::fputs("toaster: an answer is missing in the figures\n", stderr);
    }
  }

  /// Writes down what the answer took.
  void Account() const {
    const RequestFigures figures = run->Figures(ended);
    server.metrics_.AddRequest(figures);
    if (!key_name.empty())
      server.limits_.AddTokens(key_name,
                               figures.miss_tokens + figures.hit_tokens + figures.generated_tokens);
    OrderedJson details = {{"id", asked.id},
                           {"key", key_name},
                           {"finish_reason", figures.finish_reason},
                           {"prompt_tokens", figures.hit_tokens + figures.miss_tokens},
                           {"completion_tokens", figures.generated_tokens},
                           {"first_token_seconds", figures.first_token_seconds},
                           {"seconds", figures.total_seconds}};
    details["ledger"] = run->Result().ledger;
    details["ledger"].erase("notes");
    server.log_.Write("info", "generation", details);
  }

  /// Sends the whole answer as events.
  void Stream(const SendBytes& send) {
    std::string out = writer->Begin(run->prompt_tokens());
    try {
      std::vector<GenerationRun::Told> told;
      bool more = true;
      while (more) {
        more = run->Step(kLook, told);
        for (const GenerationRun::Told& piece : told)
          out += writer->Piece(piece.choice, piece.piece);
        told.clear();
        if (out.empty() && SteadyClock::now() - last_sent > server.options_.ping)
          out = writer->KeepAlive();
        if (!Send(send, out)) return;
      }
      const Outcome outcome = run->Result();
      if (asked.done) asked.done(outcome);
      out = writer->End(outcome);
    } catch (const Error& error) {
      out = writer->Failure(Failed(error));
    }
    Send(send, out);
  }

  bool Send(const SendBytes& send, std::string& out) {
    if (!out.empty()) last_sent = SteadyClock::now();
    if (!send(out)) {
      ended = "abort";
      return false;
    }
    out.clear();
    return true;
  }

  /// Works until the answer is complete, the client is gone or the time has passed. True: complete.
  bool Work(const std::function<bool()>& connected, SteadyClock::time_point until) {
    std::vector<GenerationRun::Told> told;
    while (SteadyClock::now() < until) {
      if (!run->Step(kLook, told)) return true;
      told.clear();
      if (connected()) continue;
      ended = "abort";
      return false;
    }
    return false;
  }

  std::string Whole() {
    const Outcome outcome = run->Result();
    if (asked.done) asked.done(outcome);
    return DumpJson(writer->Whole(outcome));
  }

  /// An answer that takes long: blank lines keep the connection, then the answer comes.
  void Wait(const SendBytes& send) {
    std::string body;
    try {
      while (!Work([&] { return send(""); }, SteadyClock::now() + server.options_.ping)) {
        if (!ended.empty()) return;
        if (!send("\n")) {
          ended = "abort";
          return;
        }
      }
      body = Whole();
    } catch (const Error& error) {
      body = DumpJson(ErrorBody(asked.protocol, Failed(error)));
    }
    send(body);
  }

  ApiError Failed(const Error& error) {
    ended = "error";
    server.log_.Write("error", "generation failed", {{"id", asked.id}, {"message", error.what()}});
    return ApiError::From(error);
  }
};

ApiServer::ApiServer(ApiServerOptions options, RequestGuard guard, EventLog& log)
    : options_(std::move(options)),
      guard_(std::move(guard)),
      log_(log),
      metrics_(options_.model_name),
      memory_(options_.memory_bytes) {}

std::string ApiServer::ErrorText(int status, std::string_view message) {
  return DumpJson(ErrorBody(Protocol::kOpenAi, ApiError(status, "", std::string(message))));
}

HttpResponse ApiServer::Fail(const HttpRequest& request, const ApiError& error) {
  HttpResponse response = JsonResponse(ErrorBody(ProtocolOf(request), error), error.status());
  if (error.retry_after > 0)
    response.headers.emplace_back("Retry-After", std::to_string(error.retry_after));
  if (error.status() == 401) response.headers.emplace_back("WWW-Authenticate", "Bearer");
  return response;
}

std::optional<HttpResponse> ApiServer::Screen(const HttpRequest& request) {
  try {
    const Route* route = Find(request).route;
    guard_.Check(request, route && !route->description.needs_key);
  } catch (const ApiError& error) {
    metrics_.AddResponse(error.status());
    log_.Write("warning", "refused",
               {{"address", request.remote_address}, {"status", error.status()}});
    return Fail(request, error);
  }
  return std::nullopt;
}

HttpResponse ApiServer::Handle(HttpRequest& request) {
  const auto start = SteadyClock::now();
  HttpResponse response;
  try {
    response = Answered(request);
  } catch (const Error& error) {
    response = Fail(request, ApiError::From(error));
    // What a message says about a field may repeat what stands in it, so it is not logged.
    if (response.status >= 500)
      log_.Write("error", "request failed",
                 {{"path", request.path.substr(0, 200)}, {"message", error.what()}});
  }
  if (const auto origin = guard_.AllowedOrigin(request)) {
    response.headers.emplace_back("Access-Control-Allow-Origin", *origin);
    response.headers.emplace_back("Vary", "Origin");
  }
  metrics_.AddResponse(response.status);
  const double seconds = std::chrono::duration<double>(SteadyClock::now() - start).count();
  log_.Write("info", "request",
             {{"method", request.method},
              {"path", request.path.substr(0, 200)},
              {"status", response.status},
              {"seconds", seconds},
              {"address", request.remote_address}});
  return response;
}

const ServedParts& ApiServer::Parts() const {
  const ServedParts* parts = parts_;
  if (parts && !draining_) return *parts;
  ApiError error(503, "",
                 draining_ ? "the server is stopping; ask another one"
                           : "the model is still loading; try again soon");
  error.retry_after = draining_ ? 30 : 2;
  throw error;
}

HttpResponse ApiServer::Generate(HttpRequest& http, Asked asked) {
  const ServedParts& parts = Parts();
  const ApiKeys::Key* key = guard_.KeyOf(http);
  if (streams_ >= options_.max_streams) {
    ApiError error(
        429, "",
        fmt::format("{} replies are on their way already; try again later", options_.max_streams));
    error.retry_after = 5;
    throw error;
  }
  if (const int wait = key ? limits_.Admit(*key) : 0; wait > 0) {
    ApiError error(429, "", "this API key has used up what it may use in a minute; wait");
    error.retry_after = wait;
    error.code = "rate_limit_exceeded";
    throw error;
  }
  const auto answer = std::make_shared<Answer>(*this, std::move(asked));
  if (key) answer->key_name = key->name;
  answer->writer = answer->asked.make_writer(answer->asked.request);
  answer->run = GenerationService(parts, memory_, metrics_).Start(answer->asked.request);
  HttpResponse response;
  response.headers.emplace_back("x-request-id", answer->asked.id);
  response.headers.emplace_back("request-id", answer->asked.id);
  if (answer->asked.request.stream) {
    response.content_type = "text/event-stream";
    response.headers.emplace_back("Cache-Control", "no-cache");
    response.headers.emplace_back("X-Accel-Buffering", "no");
    response.stream = [answer](const SendBytes& send) { answer->Stream(send); };
    return response;
  }
  try {
    if (answer->Work(http.connected, SteadyClock::now() + options_.ping)) {
      response.body = answer->Whole();
      return response;
    }
  } catch (const Error& error) {
    throw answer->Failed(error);
  }
  if (answer->ended.empty())
    response.stream = [answer](const SendBytes& send) { answer->Wait(send); };
  return response;
}

HttpResponse ApiServer::Chat(HttpRequest& http) {
  const ServedModel& model = Parts().model;
  Asked asked;
  asked.request = ParseChatRequest(ParseRequestBody(http.body), model);
  asked.id = "chatcmpl-" + RandomHex(32);
  asked.make_writer =
      [head = ResponseHead{asked.id, Now(), model.name}](const GenerationRequest& request) {
        return MakeChatWriter(request, head);
      };
  return Generate(http, std::move(asked));
}

HttpResponse ApiServer::Complete(HttpRequest& http) {
  const ServedModel& model = Parts().model;
  Asked asked;
  asked.request = ParseCompletionRequest(ParseRequestBody(http.body), model);
  asked.id = "cmpl-" + RandomHex(32);
  asked.make_writer =
      [head = ResponseHead{asked.id, Now(), model.name}](const GenerationRequest& request) {
        return MakeCompletionWriter(request, head);
      };
  return Generate(http, std::move(asked));
}

HttpResponse ApiServer::Messages(HttpRequest& http) {
  const ServedModel& model = Parts().model;
  Asked asked;
  asked.protocol = Protocol::kAnthropic;
  asked.request = ParseMessagesRequest(ParseRequestBody(http.body), model);
  asked.id = "msg_" + RandomHex(24);
  asked.make_writer =
      [head = ResponseHead{asked.id, Now(), model.name}](const GenerationRequest& request) {
        return MakeMessagesWriter(request, head);
      };
  return Generate(http, std::move(asked));
}

HttpResponse ApiServer::Responses(HttpRequest& http) {
  const ServedModel& model = Parts().model;
  const JsonValue body = ParseRequestBody(http.body);
  const JsonValue* user = body.Find("user_id");
  const std::string user_id = user && user->is_string() ? user->text : "";
  const auto asked_for = std::make_shared<ResponsesRequest>(ParseResponsesRequest(
      body, model, [&](const std::string& id) { return memory_.FindResponse(user_id, id); }));
  Asked asked;
  asked.request = asked_for->generation;
  asked.id = "resp_" + RandomHex(32);
  asked.make_writer = [head = ResponseHead{asked.id, Now(), model.name},
                       asked_for](const GenerationRequest&) {
    return MakeResponsesWriter(*asked_for, head);
  };
  if (asked_for->store) {
    asked.done = [this, asked_for, id = asked.id, user_id](const Outcome& outcome) {
      std::vector<Message> messages = asked_for->to_keep;
      messages.push_back(ReplyMessage(outcome.replies.at(0)));
      memory_.KeepResponse(user_id, id, std::move(messages));
    };
  }
  return Generate(http, std::move(asked));
}

HttpResponse ApiServer::CountTokens(HttpRequest& http) {
  const ServedParts& parts = Parts();
  GenerationRequest request =
      ParseMessagesRequest(ParseRequestBody(http.body), parts.model, /*counting=*/true);
  int64_t restored = 0;
  const auto prompts = GenerationService(parts, memory_, metrics_).Render(request, restored);
  return JsonResponse({{"input_tokens", prompts.at(0).tokens.size()}});
}

HttpResponse ApiServer::Tokenize(HttpRequest& http) {
  const ServedParts& parts = Parts();
  const JsonValue body = ParseRequestBody(http.body);
  const RequestFields fields(body);
  std::vector<int32_t> tokens;
  if (fields.Find("messages")) {
    GenerationRequest request = ParseChatRequest(body, parts.model);
    int64_t restored = 0;
    tokens = GenerationService(parts, memory_, metrics_).Render(request, restored).at(0).tokens;
  } else {
    const std::string text =
        fields.Find("content") ? fields.RequireString("content") : fields.RequireString("prompt");
    const bool recognised = fields.Boolean("parse_special").value_or(false);
    tokens = parts.tokenizer.Encode(
        text, recognised ? ControlTokens::kRecognised : ControlTokens::kAsText);
  }
  return JsonResponse(
      {{"tokens", tokens}, {"count", tokens.size()}, {"max_model_len", parts.model.context}});
}

HttpResponse ApiServer::Detokenize(HttpRequest& http) {
  const ServedParts& parts = Parts();
  const JsonValue body = ParseRequestBody(http.body);
  const RequestFields fields(body);
  fields.Require("tokens");
  std::vector<int32_t> tokens;
  for (const JsonValue& item : *fields.List("tokens")) {
    const std::optional<int64_t> token = AsInteger(item);
    if (!token || *token < 0 || *token >= parts.model.vocab_size) {
      fields.Fail(fmt::format("tokens[{}]", tokens.size()),
                  fmt::format("has to be a token id below {}", parts.model.vocab_size));
    }
    tokens.push_back(static_cast<int32_t>(*token));
  }
  const std::string text = ReplaceIllFormed(parts.tokenizer.Decode(tokens));
  return JsonResponse({{"prompt", text}, {"content", text}});
}

HttpResponse ApiServer::ApplyTemplate(HttpRequest& http) {
  const ServedParts& parts = Parts();
  GenerationRequest request = ParseChatRequest(ParseRequestBody(http.body), parts.model);
  int64_t restored = 0;
  const auto prompts = GenerationService(parts, memory_, metrics_).Render(request, restored);
  return JsonResponse({{"prompt", prompts.at(0).prompt.Text()},
                       {"tokens", prompts.at(0).tokens},
                       {"stable_tokens", prompts.at(0).stable_tokens}});
}

HttpResponse ApiServer::Models(HttpRequest&) {
  const ServedModel& model = Parts().model;
  return JsonResponse({{"object", "list"},
                       {"data", OrderedJson::array({ModelEntry(model)})},
                       {"has_more", false},
                       {"first_id", model.name},
                       {"last_id", model.name}});
}

HttpResponse ApiServer::Model(HttpRequest& http) {
  const ServedModel& model = Parts().model;
  constexpr std::string_view kBefore = "/models/";
  const std::string name = http.path.substr(http.path.find(kBefore) + kBefore.size());
  if (name == model.name) return JsonResponse(ModelEntry(model));
  throw ApiError(404, "model", "this server has no model of that name; /v1/models lists it");
}

HttpResponse ApiServer::Page(HttpRequest& http) {
  const std::optional<WebFile> file = FindWebFile(http.path);
  if (!file) throw ApiError(404, "", "the page is at /");
  HttpResponse response;
  response.content_type = std::string(file->content_type);
  response.headers = {{"ETag", file->etag}, {"Cache-Control", "no-cache"}};
  const std::string* const known = http.Header("if-none-match");
  if (known != nullptr && *known == file->etag) {
    response.status = 304;
  } else {
    response.body = std::string(file->bytes);
  }
  return response;
}

HttpResponse ApiServer::Health(HttpRequest&) {
  if (draining_) return JsonResponse({{"status", "stopping"}}, 503);
  if (!parts_.load()) return JsonResponse({{"status", "loading"}}, 503);
  return JsonResponse({{"status", "ok"}});
}

HttpResponse ApiServer::MetricsPage(HttpRequest&) {
  GaugeFigures gauges;
  if (const ServedParts* parts = parts_) {
    gauges.running = parts->generator.running();
    gauges.waiting = parts->generator.waiting();
    gauges.meters = parts->generator.Meters();
  }
  gauges.connections = static_cast<int64_t>(connections());
  gauges.streams = streams_;
  const MemoryUse memory = CurrentMemoryUse();
  gauges.memory_bytes = {{"weights", memory.file}, {"ram", memory.anonymous}};
  HttpResponse response;
  response.content_type = "text/plain; version=0.0.4; charset=utf-8";
  response.body = metrics_.Page(gauges);
  return response;
}

HttpResponse ApiServer::Props(HttpRequest&) {
  const ServedParts& parts = Parts();
  return JsonResponse({{"model_alias", parts.model.name},
                       {"n_ctx", parts.model.context},
                       {"total_slots", parts.generator.Slots().size()},
                       {"default_generation_settings", {{"n_ctx", parts.model.context}}},
                       {"build_info", "toaster"}});
}

HttpResponse ApiServer::Slots(HttpRequest&) {
  OrderedJson slots = OrderedJson::array();
  for (const GenerationSlot& slot : Parts().generator.Slots()) {
    slots.push_back({{"id", slot.id},
                     {"is_processing", slot.working},
                     {"n_past", slot.tokens},
                     {"n_ctx", Parts().model.context}});
  }
  return JsonResponse(slots);
}

}  // namespace toaster
