#include <fmt/format.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <memory>
#include <thread>

#include "apps/cache_options.h"
#include "apps/commands.h"
#include "apps/engine_options.h"
#include "apps/private_file.h"
#include "apps/text_input.h"
#include "base/error.h"
#include "base/memory_use.h"
#include "engine/prefill_chunk.h"
#include "server/api_server.h"
#include "server/engine_generator.h"

namespace toaster {
namespace {

struct ServeOptions {
  EngineOptions engine;
  CacheOptions cache;
  HttpOptions http;
  std::string name;
  std::vector<std::string> aliases, hosts, origins;
  std::string keys, prices;
  int64_t max_waiting = 64, max_streams = 512, max_body_mib = 64, drain_seconds = 60;
  int64_t parallel = 16, prefix_cache_mib = -1;  ///< -1: see --help
  double linger_seconds = 60, prefill_slice_seconds = 1;
  bool tame_prompts = false, quiet = false;
};

void AddServeOptions(CLI::App& command, ServeOptions& options) {
  options.http.port = 8080;
  AddEngineOptions(command, options.engine);
  AddNumericsOption(command, options.engine);
  AddCacheOptions(command, options.cache);
  command.add_option("--host", options.http.host, "Address to listen on; 0.0.0.0 is all of them")
      ->envname("TOASTER_HOST")
      ->capture_default_str();
  command.add_option("--port", options.http.port, "Port to listen on; 0 picks a free one")
      ->envname("TOASTER_PORT")
      ->check(CLI::Range(0, 65535))
      ->capture_default_str();
  command
      .add_option("--name", options.name,
                  "Name of the model in responses (default: the last part of MODEL)")
      ->envname("TOASTER_NAME");
  command
      .add_option("--alias", options.aliases,
                  "Another name by which clients may ask for the model; * means any; repeatable")
      ->envname("TOASTER_ALIAS")
      ->allow_extra_args(false);
  command
      .add_option("--api-keys", options.keys,
                  "File of the keys that may use the server (default: no key is needed); see "
                  "toaster key")
      ->envname("TOASTER_API_KEYS");
  command
      .add_option("--allow-host", options.hosts,
                  "Name under which the server is reached, besides localhost and addresses; "
                  "repeatable")
      ->envname("TOASTER_ALLOW_HOST")
      ->allow_extra_args(false);
  command
      .add_option("--allow-origin", options.origins,
                  "Site whose pages may ask the server, as https://name; * means any; repeatable")
      ->envname("TOASTER_ALLOW_ORIGIN")
      ->allow_extra_args(false);
  auto* certificate = command
                          .add_option("--tls-certificate", options.http.certificate,
                                      "PEM file with the certificate chain: serve HTTPS")
                          ->envname("TOASTER_TLS_CERTIFICATE");
  auto* key = command
                  .add_option("--tls-key", options.http.private_key,
                              "PEM file with the certificate's private key")
                  ->envname("TOASTER_TLS_KEY");
  certificate->needs(key);
  key->needs(certificate);
  command
      .add_option("--prices", options.prices,
                  "JSON file with prices per million tokens (default: DeepSeek's)")
      ->envname("TOASTER_PRICES");
  command.add_option("--parallel", options.parallel, "Requests that are computed at a time")
      ->envname("TOASTER_PARALLEL")
      ->check(CLI::Range(int64_t{1}, int64_t{4096}))
      ->capture_default_str();
  command
      .add_option("--prefix-cache-mib", options.prefix_cache_mib,
                  "Memory for the beginnings of earlier requests (default: an eighth of what "
                  "weights and sequences leave)")
      ->envname("TOASTER_PREFIX_CACHE_MIB")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 24));
  command
      .add_option("--prefill-slice-seconds", options.prefill_slice_seconds,
                  "The longest, about, that others wait for a piece of a prompt's forward pass")
      ->envname("TOASTER_PREFILL_SLICE_SECONDS")
      ->check(CLI::Range(0.01, 3600.0))
      ->capture_default_str();
  command
      .add_option("--linger-seconds", options.linger_seconds,
                  "How long a prompt is read on after its client has gone, in case it comes back")
      ->envname("TOASTER_LINGER_SECONDS")
      ->check(CLI::Range(0.0, 86400.0))
      ->capture_default_str();
  command
      .add_option("--max-waiting", options.max_waiting,
                  "Requests that may wait for their turn; more get status 429")
      ->envname("TOASTER_MAX_WAITING")
      ->check(CLI::Range(int64_t{1}, int64_t{100000}))
      ->capture_default_str();
  command
      .add_option("--max-streams", options.max_streams,
                  "Replies on their way at once; more get status 429")
      ->envname("TOASTER_MAX_STREAMS")
      ->check(CLI::Range(int64_t{1}, int64_t{10000}))
      ->capture_default_str();
  command.add_option("--max-body-mib", options.max_body_mib, "Largest request, in MiB")
      ->envname("TOASTER_MAX_BODY_MIB")
      ->check(CLI::Range(int64_t{1}, int64_t{1024}))
      ->capture_default_str();
  command
      .add_option("--drain-seconds", options.drain_seconds,
                  "How long replies on their way may take after a SIGTERM")
      ->envname("TOASTER_DRAIN_SECONDS")
      ->check(CLI::Range(int64_t{0}, int64_t{86400}))
      ->capture_default_str();
  command
      .add_flag("--tame-prompts", options.tame_prompts,
                "Take billing lines, request ids and the date out of the system prompts of agents, "
                "so that they stay the same and are found in the cache; told in toaster.notes")
      ->envname("TOASTER_TAME_PROMPTS");
  command.add_flag("-q,--quiet", options.quiet, "No log on standard error")
      ->envname("TOASTER_QUIET");
}

/// Blocks the signals that stop the server in this thread and those it starts, so that one of them
/// can wait for them.
class StopSignals {
 public:
  StopSignals() {
    sigemptyset(&set_);
    for (const int signal : {SIGINT, SIGTERM}) sigaddset(&set_, signal);
    pthread_sigmask(SIG_BLOCK, &set_, &before_);
  }
  ~StopSignals() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;

  /// False: none came within the time.
  bool Wait(int seconds) const {
    const timespec time = {seconds, 0};
    return sigtimedwait(&set_, nullptr, &time) > 0;
  }

 private:
  sigset_t set_, before_;
};

std::string NameOf(const ServeOptions& options) {
  if (!options.name.empty()) return options.name;
  if (options.engine.model.empty()) return "toaster-builtin";
  std::filesystem::path path(options.engine.model);
  if (path.filename().empty()) path = path.parent_path();
  return path.filename().string();
}

/// What the share of the limit is a share of; nothing where memory is too short to measure it.
MachineLimits MeasureMachine(const EngineOptions& options) {
  constexpr int64_t kEnough = int64_t{1} << 30;
  const int64_t available = AvailableMemory();
  if (available < kEnough || (options.memory > 0 && options.memory < kEnough)) return {};
  return CreateBackend(options.backend)->MeasureLimits();
}

int Serve(ServeOptions options) {
  const StopSignals signals;
  ReturnFreedMemory();
  EventLog log(options.quiet ? nullptr : stderr);
  ApiKeys keys = options.keys.empty() ? ApiKeys() : ApiKeys::Load(options.keys);
  const PriceTable prices = options.prices.empty()
                                ? PriceTable()
                                : PriceTable::FromJson(ReadInput(options.prices), options.prices);
  const bool no_keys = keys.empty();
  ApiServerOptions api_options;
  api_options.model_name = NameOf(options);
  api_options.max_streams = options.max_streams;
  ApiServer api(api_options, RequestGuard(std::move(keys), options.hosts, options.origins), log);

  // A stream holds a thread; there are more, so that /health and refusals always find one.
  options.http.max_connections = static_cast<size_t>(options.max_streams) + 512;
  options.http.max_body_bytes = static_cast<size_t>(options.max_body_mib) << 20;
  HttpServer http(
      options.http, [&](const HttpRequest& request) { return api.Screen(request); },
      [&](HttpRequest& request) { return api.Handle(request); }, ApiServer::ErrorText);
  api.connections = [&] { return http.connections(); };
  http.Start();
  const std::string address =
      fmt::format("http{}://{}:{}", options.http.certificate.empty() ? "" : "s",
                  options.http.host == "0.0.0.0" ? "localhost" : options.http.host, http.port());
  log.Write("info", "loading", {{"model", api_options.model_name}, {"address", address}});
  if (no_keys && options.http.host != "127.0.0.1" && options.http.host != "localhost") {
    log.Write(
        "warning", "open",
        {{"message", "everybody who reaches this address may use the model; give --api-keys"}});
  }

  EngineOptions engine = options.engine;
  engine.sequences = options.parallel;
  engine.prefix_bytes = options.prefix_cache_mib >= 0 ? options.prefix_cache_mib << 20 : -1;
  // Before the model is in memory, so that measuring takes nothing of its budget.
  Profile profile;
  engine.backend.profile = &profile;
  const EngineMeters meters = {&profile, MeasureMachine(engine)};
  const auto running = StartModel(engine);
  const Config& config = running->config();
  PromptTexts texts = ModelPromptTexts(options.engine, running->loaded());
  ServedModel model = {api_options.model_name, options.aliases, texts.Efforts(),
                       config.max_position_embeddings, config.vocab_size};
  for (const std::string& warning : texts.warnings())
    log.Write("warning", "prompt texts", {{"message", warning}});
  EngineLimits limits;
  limits.most_running = options.parallel;
  limits.most_waiting = options.max_waiting;
  // Experts from disk are read once a pass, so that passes stay long.
  limits.chunk = running->plan().chunk;
  if (options.engine.chunk == 0 && !running->plan().streams)
    limits.chunk = std::min(limits.chunk, ServingChunk(config));
  limits.prefill_slice_seconds = options.prefill_slice_seconds;
  limits.linger_seconds = options.linger_seconds;
  limits.prefix_bytes = running->plan().prefix_bytes;
  const auto store = OpenStore(options.cache, *running, [&](const std::string& line) {
    log.Write("warning", "prefix store", {{"message", line}});
  });
  EngineGenerator generator(*running, limits, store.get(), meters);
  const ServedParts parts = {std::move(model), ModelTokenizer(options.engine, running->loaded()),
                             std::move(texts), generator,
                             prices,           options.tame_prompts};
  api.Serve(parts);
  log.Write("info", "ready", {{"model", api_options.model_name}, {"address", address}});
  fmt::print("{}\n", address);
  std::fflush(stdout);

  while (!signals.Wait(3600)) {
  }
  log.Write("info", "stopping", {{"replies", api.streams()}});
  api.Drain();
  http.Drain();
  // Another signal, or the end of the time, cuts the replies that are left.
  for (int64_t second = 0; second < options.drain_seconds && api.streams() > 0; ++second)
    if (signals.Wait(1)) break;
  generator.Stop();
  http.Stop();
  log.Write("info", "stopped", {});
  return 0;
}

struct KeyOptions {
  std::string file, name;
  int64_t requests = 0, tokens = 0;
};

void MakeKey(const KeyOptions& options) {
  const auto [secret, line] = ApiKeys::Make(options.name, options.requests, options.tokens);
  AppendPrivateFile(options.file, line);
  fmt::print("{}\n", secret);
  fmt::print(stderr,
             "This key is shown once; {} knows only its digest. A running server reads the "
             "file when it starts.\n",
             options.file);
}

}  // namespace

void AddServeCommand(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand("serve",
                                         "Answer over HTTP in the protocols of OpenAI, DeepSeek "
                                         "and Anthropic. SIGTERM lets replies on "
                                         "their way come to their end");
  auto options = std::make_shared<ServeOptions>();
  AddServeOptions(*command, *options);
  command->callback([options, &exit_code] { exit_code = Serve(*options); });
}

void AddKeyCommand(CLI::App& app, int&) {
  CLI::App* command = app.add_subcommand(
      "key", "Make an API key: prints it once and adds its digest to a file for serve --api-keys");
  auto options = std::make_shared<KeyOptions>();
  command->add_option("file", options->file, "The file of keys; made if it is not there")
      ->required()
      ->envname("TOASTER_API_KEYS");
  command->add_option("name", options->name, "Whose key it is; appears in the log")
      ->required()
      ->check(CLI::Validator(
          [](const std::string& name) {
            const bool good = !name.empty() && name[0] != '#' &&
                              name.find_first_of(" \t\r\n") == std::string::npos;
            return good ? std::string() : std::string("has to be one word");
          },
          "WORD"));
  command
      ->add_option("--requests-per-minute", options->requests,
                   "Most requests in a minute; 0: no limit")
      ->envname("TOASTER_REQUESTS_PER_MINUTE")
      ->check(CLI::NonNegativeNumber);
  command
      ->add_option("--tokens-per-minute", options->tokens,
                   "Most tokens, of prompts and replies, in a minute; 0: no limit")
      ->envname("TOASTER_TOKENS_PER_MINUTE")
      ->check(CLI::NonNegativeNumber);
  command->callback([options] { MakeKey(*options); });
}

}  // namespace toaster
