#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <limits>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "apps/commands.h"
#include "apps/draw_chart.h"
#include "apps/text_input.h"
#include "base/error.h"
#include "base/json.h"
#include "train/training_log.h"

namespace toaster {
namespace {

struct Options {
  std::vector<std::string> reports;
  std::string output;
};

double Number(const nlohmann::json& run, const char* key, const std::string& origin) {
  const auto found = run.find(key);
  if (found == run.end() || !found->is_number()) {
    throw Error(ErrorCode::kCorruptFile,
                fmt::format("{}: an entry has no number \"{}\"; give the output of toaster bench "
                            "--json or toaster train",
                            origin, key));
  }
  return found->get<double>();
}

// Whether equal steps would crowd most points together, as with contexts from 1K to 1M.
bool SpansMuch(const std::vector<Series>& series) {
  double least = std::numeric_limits<double>::infinity(), most = 0;
  for (const Series& one : series) {
    for (const auto& [x, y] : one.points) least = std::min(least, x), most = std::max(most, x);
  }
  constexpr double kMuch = 64;
  return least > 0 && most >= kMuch * least;
}

// Speed and share of the limit: of prefill by length, of decode by depth with a line per batch.
std::vector<Panel> PanelsOf(const nlohmann::json& report, const std::string& origin) {
  if (!report.is_object() || !report.contains("runs") || !report["runs"].is_array() ||
      report["runs"].empty()) {
    throw Error(
        ErrorCode::kCorruptFile,
        fmt::format("{}: has no \"runs\"; give the output of toaster bench --json", origin));
  }
  std::map<double, Series> prefill_speed, prefill_share, decode_speed, decode_share;  // by batch
  for (const nlohmann::json& run : report["runs"]) {
    if (!run.is_object()) {
      throw Error(ErrorCode::kCorruptFile, fmt::format("{}: a run is no object", origin));
    }
    const bool decode = run.value("kind", "") == "decode";
    const double batch = Number(run, "batch", origin);
    const double x = Number(run, decode ? "depth" : "tokens", origin);
    const std::string name = decode ? fmt::format("batch {:.0f}", batch) : "prefill";
    Series& speed = (decode ? decode_speed : prefill_speed)[batch];
    speed.name = name;
    speed.points.emplace_back(x, Number(run, "tokens_per_s", origin));
    if (run.contains("share_of_limit") && run["share_of_limit"].is_number()) {
      Series& share = (decode ? decode_share : prefill_share)[batch];
      share.name = name;
      share.points.emplace_back(x, 100 * Number(run, "share_of_limit", origin));
    }
  }
  std::vector<Panel> panels;
  const auto add = [&](const char* title, const char* x_label, const char* y_label,
                       const std::map<double, Series>& series) {
    if (series.empty()) return;
    Panel panel{title, x_label, y_label, false, false, true, {}};
    for (const auto& [batch, line] : series) panel.series.push_back(line);
    panel.log_x = SpansMuch(panel.series);
    panels.push_back(std::move(panel));
  };
  add("Prefill", "tokens in the prompt", "tokens/s", prefill_speed);
  add("Prefill, share of what the machine allows", "tokens in the prompt", "%", prefill_share);
  add("Decode, all sequences together", "tokens in the cache", "tokens/s", decode_speed);
  add("Decode, share of what the machine allows", "tokens in the cache", "%", decode_share);
  return panels;
}

// What a run of training logged, by steps.
struct RunLog {
  std::string name;
  Series loss, validation, rate, norm, busiest;
};

RunLog ReadRun(const std::filesystem::path& folder) {
  const std::filesystem::path file = folder / "log.jsonl";
  RunLog log;
  log.name = std::filesystem::weakly_canonical(folder).filename();
  for (const std::string& line : TrainingLog::Lines(file)) {
    const nlohmann::json step = nlohmann::json::parse(line);
    const double x = Number(step, "step", file.string());
    const auto add = [&](Series& series, const char* key) {
      series.points.emplace_back(x, Number(step, key, file.string()));
    };
    add(log.loss, "ce");
    add(log.rate, "learning_rate");
    add(log.norm, "gradient_norm");
    add(log.busiest, "busiest_expert");
    if (step.contains("validation")) add(log.validation, "validation");
  }
  if (log.loss.points.empty()) {
    throw Error(ErrorCode::kCorruptFile,
                fmt::format("{}: has no steps yet; wait for the run's first one", file.string()));
  }
  return log;
}

// One run with its two losses on the same axes, or several runs, a line each.
std::vector<Panel> PanelsOfRuns(const std::vector<std::string>& folders) {
  std::vector<RunLog> logs;
  for (const std::string& folder : folders) logs.push_back(ReadRun(folder));
  const bool several = logs.size() > 1;
  std::vector<Panel> panels;
  const auto add = [&](const char* title, const char* y_label, bool y_from_zero,
                       Series RunLog::*quantity) {
    Panel panel{title, "step", y_label, false, false, y_from_zero, {}};
    for (const RunLog& log : logs) {
      if ((log.*quantity).points.empty()) continue;
      panel.series.push_back(log.*quantity);
      panel.series.back().name = several ? log.name : "";
    }
    if (!panel.series.empty()) panels.push_back(std::move(panel));
  };
  add(several ? "Training loss" : "Loss", "cross-entropy per token", false, &RunLog::loss);
  if (several) {
    add("Validation loss", "cross-entropy per token", false, &RunLog::validation);
  } else if (!logs[0].validation.points.empty()) {
    panels[0].series[0].name = "training";
    panels[0].series.push_back({"validation", logs[0].validation.points});
  }
  add("Learning rate", "", true, &RunLog::rate);
  add("Gradient norm", "before clipping", true, &RunLog::norm);
  add("Busiest expert", "tokens over the mean", true, &RunLog::busiest);
  return panels;
}

}  // namespace

void AddPlotCommand(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand(
      "plot",
      "Draw what toaster bench --json measured or how a training went (needs gnuplot, Debian's "
      "gnuplot-nox)");
  auto options = std::make_shared<Options>();
  command
      ->add_option("report", options->reports,
                   "Output of toaster bench --json (- reads standard input), or the output folder "
                   "of toaster train; several folders are drawn together, a line each")
      ->envname("TOASTER_REPORT")
      ->required();
  command->add_option("-o,--output", options->output, "The chart, an .svg or .png file")
      ->envname("TOASTER_OUTPUT")
      ->required();
  command->callback([options, &exit_code] {
    const std::vector<std::string>& reports = options->reports;
    const auto is_run = [](const std::string& path) { return std::filesystem::is_directory(path); };
    if (std::all_of(reports.begin(), reports.end(), is_run)) {
      DrawChart(PanelsOfRuns(reports), options->output);
      return;
    }
    if (reports.size() > 1) {
      const auto other = std::find_if_not(reports.begin(), reports.end(), is_run);
      throw Error(ErrorCode::kInvalidArgument,
                  fmt::format("{}: is no folder of toaster train; only such are drawn together, a "
                              "report of toaster bench alone",
                              *other));
    }
    const std::string& report = reports[0];
    const std::string origin = report == "-" ? "standard input" : report;
    DrawChart(PanelsOf(ParseJson(ReadInput(report), origin), origin), options->output);
    exit_code = 0;
  });
}

}  // namespace toaster
