// What of this machine and model helps or hinders serving, and what to change.

#include <fmt/format.h>
#include <netdb.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "apps/commands.h"
#include "apps/engine_options.h"
#include "base/disk_speed.h"
#include "base/error.h"
#include "base/memory_use.h"
#include "base/units.h"
#include "chat/prompt_texts.h"
#include "model/cache_size.h"

namespace toaster {
namespace {

struct DoctorOptions {
  std::string model, host = "127.0.0.1";
  int port = 8080;
  int64_t max_streams = 512;
  bool json = false;
};

enum class Verdict { kGood, kCouldBeBetter, kHinders };

struct Finding {
  std::string what;
  Verdict verdict = Verdict::kGood;
  std::string found;   ///< how it is
  std::string advice;  ///< what to change; empty if nothing
};

const char* Word(Verdict verdict) {
  switch (verdict) {
    case Verdict::kGood:
      return "good";
    case Verdict::kCouldBeBetter:
      return "could be better";
    case Verdict::kHinders:
      break;
  }
  return "hinders";
}

Finding CheckProcessor() {
  const auto backend = CreateBackend({});
  const std::vector<std::string> kernels = RunnableKernels();
  Finding finding = {"processor", Verdict::kGood, backend->name(), ""};
  bool wide = false;
  for (const std::string& name : kernels) wide = wide || name != "portable";
  if (!wide) {
    finding.verdict = Verdict::kCouldBeBetter;
    finding.advice = "computing is slow without AVX2 and FMA; take a processor that has them";
  }
  return finding;
}

Finding CheckHugePages() {
  std::ifstream file("/sys/kernel/mm/transparent_hugepage/enabled");
  std::string line;
  if (!std::getline(file, line))
    return {"huge pages", Verdict::kGood, "this system does not tell", ""};
  if (line.find("[never]") == std::string::npos) return {"huge pages", Verdict::kGood, line, ""};
  return {"huge pages", Verdict::kCouldBeBetter, line,
          "caches and workspace are read faster in huge pages: echo madvise > "
          "/sys/kernel/mm/transparent_hugepage/enabled, better always"};
}

/// A reply holds a thread and a connection; beside them go files, the log, refusals.
Finding CheckLimit(const char* what, int resource, int64_t needed, const char* advice) {
  rlimit limit = {};
  getrlimit(static_cast<__rlimit_resource_t>(resource), &limit);
  if (limit.rlim_cur == RLIM_INFINITY) return {what, Verdict::kGood, "no limit", ""};
  const auto have = static_cast<int64_t>(limit.rlim_cur);
  if (have >= needed) return {what, Verdict::kGood, GroupedText(have), ""};
  return {what, Verdict::kHinders, fmt::format("{}, but {} may be needed", have, needed), advice};
}

Finding CheckPort(const DoctorOptions& options) {
  const std::string found = fmt::format("{} port {}", options.host, options.port);
  addrinfo hints = {};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE;
  addrinfo* address = nullptr;
  if (getaddrinfo(options.host.c_str(), std::to_string(options.port).c_str(), &hints, &address)) {
    return {"port", Verdict::kHinders, found + ": no such address",
            "give an address of this machine with --host"};
  }
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> owner(address, freeaddrinfo);
  const int socket = ::socket(address->ai_family, address->ai_socktype, 0);
  const int yes = 1;
  setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  const bool free =
      ::bind(socket, address->ai_addr, address->ai_addrlen) == 0 && ::listen(socket, 1) == 0;
  ::close(socket);
  if (free) return {"port", Verdict::kGood, found + " is free", ""};
  return {"port", Verdict::kHinders, found + " can't be had",
          "stop the program that listens there, or choose another with --host and --port"};
}

void CheckMemory(const LoadedModel& model, std::vector<Finding>& findings) {
  int64_t weights = 0;
  for (const SafetensorsFile& shard : model.checkpoint.shards()) {
    weights += static_cast<int64_t>(shard.bytes().size());
  }
  const std::optional<double> disk = DirectReadRate(model.checkpoint.ShardPaths());
  const int64_t available = AvailableMemory();
  const std::string found =
      fmt::format("{} of weights, {} of memory available", BytesText(static_cast<double>(weights)),
                  BytesText(static_cast<double>(available)));
  const bool fits = weights <= available;
  findings.push_back(
      {"memory", fits ? Verdict::kGood : Verdict::kCouldBeBetter, found,
       fits ? ""
            : "experts that don't fit are read from disk when they are needed: free memory, "
              "raise the limit of the container, or expect the speed of the disk"});
  const Config& config = model.config;
  const int64_t context = config.max_position_embeddings;
  if (context > 0) {
    const auto bytes = static_cast<double>(ModelCacheBytes(config, context, false).total());
    const bool holds = bytes < static_cast<double>(available);
    findings.push_back(
        {"context", holds ? Verdict::kGood : Verdict::kCouldBeBetter,
         fmt::format("{} for one sequence of {} tokens", BytesText(bytes), GroupedText(context)),
         holds ? "" : "the longest sequences don't fit; keep prompts shorter"});
  }
  if (!disk) return;
  constexpr double kSlow = 1e9;
  const bool matters = !fits && *disk < kSlow;
  findings.push_back({"disk", matters ? Verdict::kCouldBeBetter : Verdict::kGood,
                      fmt::format("reads {} per second", BytesText(*disk)),
                      matters ? "put the model on a faster disk (NVMe reads several GB/s)" : ""});
}

void CheckModel(const DoctorOptions& options, std::vector<Finding>& findings) {
  const std::string name = options.model.empty() ? "the built-in model" : options.model;
  try {
    EngineOptions engine;
    engine.model = options.model;
    const LoadedModel model = OpenModel(options.model);
    Finding files = {"model", Verdict::kGood,
                     fmt::format("{}, {} files", name, model.checkpoint.shards().size()), ""};
    findings.push_back(std::move(files));
    for (const std::string& note : model.notes)
      findings.push_back({"model", Verdict::kCouldBeBetter, note, "see toaster verify"});
    ModelTokenizer(engine, model);
    if (ModelPromptTexts(engine, model).Efforts().empty()) {
      findings.push_back(
          {"prompt texts", Verdict::kCouldBeBetter, "the checkpoint has none",
           "requests with tools are refused; put encoding/encoding_dsv4.py beside the weights"});
    }
    CheckMemory(model, findings);
  } catch (const Error& error) {
    findings.push_back({"model", Verdict::kHinders, error.what(),
                        "give the directory of a checkpoint that toaster verify finds sound"});
  }
}

std::vector<Finding> Examine(const DoctorOptions& options) {
  std::vector<Finding> findings = {CheckProcessor(), CheckHugePages()};
  CheckModel(options, findings);
  // The threads and connections of toaster serve, and what files a model has open.
  const int64_t needed = options.max_streams + 512 + 256;
  findings.push_back(CheckLimit("open files", RLIMIT_NOFILE, needed,
                                "raise it with ulimit -n, or LimitNOFILE= in the systemd unit, or "
                                "start the server with a smaller --max-streams"));
  findings.push_back(CheckLimit("threads", RLIMIT_NPROC, needed,
                                "raise it with ulimit -u, or LimitNPROC= in the systemd unit"));
  findings.push_back(CheckPort(options));
  return findings;
}

int Doctor(const DoctorOptions& options) {
  const std::vector<Finding> findings = Examine(options);
  bool hindered = false;
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  for (const Finding& finding : findings) {
    hindered = hindered || finding.verdict == Verdict::kHinders;
    if (options.json) {
      list.push_back({{"what", finding.what},
                      {"verdict", Word(finding.verdict)},
                      {"found", finding.found},
                      {"advice", finding.advice}});
      continue;
    }
    fmt::print("{:<16}{:<13}{}\n", Word(finding.verdict), finding.what, finding.found);
    if (!finding.advice.empty()) fmt::print("{:<29}-> {}\n", "", finding.advice);
  }
  if (options.json) {
    const nlohmann::ordered_json report = {{"can_serve", !hindered}, {"findings", std::move(list)}};
    fmt::print("{}\n",
               report.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace));
  }
  return hindered ? 1 : 0;
}

}  // namespace

void AddDoctorCommand(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand(
      "doctor",
      "Look at machine, model, memory, limits and port, and say what to change before serving. The "
      "exit code is 1 if something hinders it");
  auto options = std::make_shared<DoctorOptions>();
  command
      ->add_option("model", options->model,
                   "Model: a directory, or org/name in the Hugging Face cache (default: the "
                   "built-in model)")
      ->envname("TOASTER_MODEL");
  command->add_option("--host", options->host, "Address that is to be served")
      ->envname("TOASTER_HOST")
      ->capture_default_str();
  command->add_option("--port", options->port, "Port that is to be served; 0 is any")
      ->envname("TOASTER_PORT")
      ->check(CLI::Range(0, 65535))
      ->capture_default_str();
  command->add_option("--max-streams", options->max_streams, "Replies that are to be on their way")
      ->envname("TOASTER_MAX_STREAMS")
      ->check(CLI::Range(int64_t{1}, int64_t{10000}))
      ->capture_default_str();
  command->add_flag("--json", options->json, "Print JSON")->envname("TOASTER_JSON");
  command->callback([options, &exit_code] { exit_code = Doctor(*options); });
}

}  // namespace toaster
