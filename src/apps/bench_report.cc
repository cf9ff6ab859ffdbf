#include "apps/bench_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/units.h"

namespace toaster {

namespace {

using Json = nlohmann::ordered_json;

constexpr double kGiga = 1e9;

Json Known(double rate) { return rate > 0 ? Json(rate / kGiga) : Json(nullptr); }

std::string Rate(double rate, const char* unit) {
  return rate > 0 ? fmt::format("{:.1f} {}", rate / kGiga, unit) : std::string("not known");
}

std::string Share(double share) {
  return share > 0 ? fmt::format("{:.1f} %", 100 * share) : std::string("-");
}

Json LimitsJson(const MachineLimits& limits) {
  return {{"read_gb_per_s", Known(limits.read_bytes_per_s)},
          {"bf16_gflop_per_s", Known(limits.bf16_flops_per_s)},
          {"int8_gop_per_s", Known(limits.int8_ops_per_s)},
          {"fp32_gflop_per_s", Known(limits.float_flops_per_s)}};
}

Json ProfileJson(const BenchmarkRun& run) {
  Json operations = Json::array();
  const double total = run.profile.Total().seconds;
  for (const Profile::Operation& operation : run.profile.operations()) {
    operations.push_back(
        {{"operation", operation.name},
         {"calls", operation.calls},
         {"seconds", operation.seconds},
         {"share_of_time", operation.seconds / total},
         {"bytes", operation.work.bytes},
         {"flops", operation.work.flops()},
         {"int8_ops", operation.work.int8_ops},
         {"share_of_limit", operation.work.LeastSeconds(run.limits) / operation.seconds}});
  }
  return operations;
}

}  // namespace

std::string LimitsText(const BenchReport& report) {
  const MachineLimits& limits = report.limits;
  return fmt::format(
      "{}, {}, opened in {:.2f} s\n"
      "limits: read {}, BF16 {}, FP32 {}, INT8 {}, disk {}\n",
      report.model, report.backend, report.open_seconds, Rate(limits.read_bytes_per_s, "GB/s"),
      Rate(limits.bf16_flops_per_s, "GFLOP/s"), Rate(limits.float_flops_per_s, "GFLOP/s"),
      Rate(limits.int8_ops_per_s, "GOP/s"), Rate(report.disk_bytes_per_s.value_or(0), "GB/s"));
}

std::string HeaderText() {
  return fmt::format("{:<8} {:>8} {:>8} {:>6} {:>10} {:>18} {:>8} {:>12} {:>12} {:>10}", "kind",
                     "tokens", "depth", "batch", "tokens/s", "slowest..fastest", "planned",
                     "bytes/token", "flops/token", "of limit");
}

std::string RunText(const BenchmarkRun& run) {
  const auto tokens = static_cast<double>(run.tokens);
  const double share = run.ShareOfLimit();
  return fmt::format(
      "{:<8} {:>8} {:>8} {:>6} {:>10.2f} {:>18} {:>8} {:>12} {:>12} {:>10}", run.kind, run.tokens,
      run.depth, run.batch, run.tokens_per_second(),
      fmt::format("{:.2f}..{:.2f}", tokens / run.most_seconds, tokens / run.least_seconds),
      run.planned_tokens_per_s > 0 ? fmt::format("{:.2f}", run.planned_tokens_per_s) : "-",
      BytesText(run.work.bytes / tokens), CountText(run.work.flops() / tokens),
      share > 0 ? fmt::format("{} {}", Share(share), run.Limit()) : "-");
}

std::string ProfileText(const BenchmarkRun& run) {
  const Profile::Operation total = run.profile.Total();
  std::string text = fmt::format("  {:<34} {:>7} {:>8} {:>7} {:>9} {:>11} {:>9}\n", "operation",
                                 "calls", "ms", "time", "GB/s", "GFLOP/s", "of limit");
  std::vector<Profile::Operation> operations = run.profile.operations();
  std::stable_sort(operations.begin(), operations.end(),
                   [](const auto& a, const auto& b) { return a.seconds > b.seconds; });
  for (const Profile::Operation& operation : operations) {
    text += fmt::format(
        "  {:<34} {:>7} {:>8.1f} {:>7} {:>9.1f} {:>11.1f} {:>9}\n", operation.name, operation.calls,
        1e3 * operation.seconds, Share(operation.seconds / total.seconds),
        operation.work.bytes / operation.seconds / kGiga,
        (operation.work.flops() + operation.work.int8_ops) / operation.seconds / kGiga,
        Share(operation.work.LeastSeconds(run.limits) / operation.seconds));
  }
  return text;
}

std::string MemoryText(const BenchReport& report) {
  constexpr double kGib = 1 << 30;
  const auto peak = static_cast<double>(report.peak_resident_bytes);
  if (!report.experts) return fmt::format("peak memory {:.2f} GiB\n", peak / kGib);
  const ExpertStoreFigures& experts = *report.experts;
  const auto used = static_cast<double>(std::max<int64_t>(1, experts.used));
  std::string copies;  // said where there is more than one
  for (const int64_t bytes : experts.copy_bytes)
    copies +=
        fmt::format("{}{}", copies.empty() ? "" : ", ", BytesText(static_cast<double>(bytes)));
  copies = experts.copy_bytes.size() > 1 ? fmt::format("from the copies: {}\n", copies) : "";
  return fmt::format(
      "peak memory {:.2f} GiB, {:.1f} % of the {:.2f} GiB planned\n"
      "experts: {} used, {:.1f} % missed; {} read for forecasts, {} of them in vain\n"
      "disk: {} read, {} of it used, in {:.1f} s; {:.1f} s waited\n{}",
      peak / kGib, 100 * peak / static_cast<double>(report.plan.total()),
      static_cast<double>(report.plan.total()) / kGib, GroupedText(experts.used),
      100 * static_cast<double>(experts.missed) / used, GroupedText(experts.read_for_forecast),
      GroupedText(experts.forecast_in_vain), BytesText(static_cast<double>(experts.read_bytes)),
      BytesText(static_cast<double>(experts.needed_bytes)), experts.read_seconds,
      experts.wait_seconds, copies);
}

std::string ReportJson(const BenchReport& report, bool profile) {
  Json runs = Json::array();
  for (const BenchmarkRun& run : report.runs) {
    const double share = run.ShareOfLimit();
    Json json = {{"kind", run.kind},
                 {"tokens", run.tokens},
                 {"depth", run.depth},
                 {"batch", run.batch},
                 {"tokens_per_s", run.tokens_per_second()},
                 {"slowest_tokens_per_s", static_cast<double>(run.tokens) / run.most_seconds},
                 {"fastest_tokens_per_s", static_cast<double>(run.tokens) / run.least_seconds},
                 {"planned_tokens_per_s",
                  run.planned_tokens_per_s > 0 ? Json(run.planned_tokens_per_s) : Json(nullptr)},
                 {"seconds", run.seconds},
                 {"bytes", run.work.bytes},
                 {"flops", run.work.flops()},
                 {"int8_ops", run.work.int8_ops},
                 {"disk_bytes", run.disk_bytes},
                 {"disk_gb_per_s", Known(run.disk_bytes_per_s)},
                 {"limit", share > 0 ? Json(run.Limit()) : Json(nullptr)},
                 {"share_of_limit", share > 0 ? Json(share) : Json(nullptr)},
                 {"limits", LimitsJson(run.limits)}};
    if (profile) json["operations"] = ProfileJson(run);
    runs.push_back(std::move(json));
  }
  Json limits = LimitsJson(report.limits);
  limits["disk_gb_per_s"] = Known(report.disk_bytes_per_s.value_or(0));
  Json document = {{"model", report.model},
                   {"backend", report.backend},
                   {"limits", limits},
                   {"open_s", report.open_seconds},
                   {"peak_rss_bytes", report.peak_resident_bytes},
                   {"runs", runs}};
  if (report.experts) {
    const ExpertStoreFigures& experts = *report.experts;
    document["planned_bytes"] = report.plan.total();
    document["experts"] = {{"kept", report.plan.experts_kept},
                           {"used", experts.used},
                           {"missed", experts.missed},
                           {"read_for_forecast", experts.read_for_forecast},
                           {"forecast_in_vain", experts.forecast_in_vain},
                           {"needed_bytes", experts.needed_bytes},
                           {"read_bytes", experts.read_bytes},
                           {"copy_bytes", experts.copy_bytes},
                           {"read_seconds", experts.read_seconds},
                           {"wait_seconds", experts.wait_seconds}};
  }
  return document.dump(2) + "\n";
}

std::string ReportCsv(const BenchReport& report) {
  std::string text = "kind,tokens,depth,batch,tokens_per_s,bytes,flops,limit,share_of_limit\n";
  for (const BenchmarkRun& run : report.runs) {
    const double share = run.ShareOfLimit();
    text +=
        fmt::format("{},{},{},{},{:.4f},{:.0f},{:.0f},{},{}\n", run.kind, run.tokens, run.depth,
                    run.batch, run.tokens_per_second(), run.work.bytes, run.work.flops(),
                    share > 0 ? run.Limit() : "", share > 0 ? fmt::format("{:.4f}", share) : "");
  }
  return text;
}

}  // namespace toaster
