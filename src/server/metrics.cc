#include "server/metrics.h"

#include <fmt/format.h>

#include <algorithm>

namespace toaster {
namespace {

const std::vector<double> kShortTimes = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1,
                                         0.25,  0.5,    1,     2.5,  5,     10};
const std::vector<double> kLongTimes = {0.01, 0.05, 0.1, 0.25, 0.5, 1,   2.5,  5,
                                        10,   30,   60,  120,  300, 600, 1800, 3600};

void Head(std::string& page, std::string_view name, std::string_view type, std::string_view help) {
  page += fmt::format("# HELP {} {}\n# TYPE {} {}\n", name, help, name, type);
}

/// A label's value as Prometheus wants it.
std::string Escape(std::string_view text) {
  std::string escaped;
  for (const char c : text) {
    if (c == '\\' || c == '"') escaped += '\\';
    if (c == '\n') {
      escaped += "\\n";
    } else {
      escaped += c;
    }
  }
  return escaped;
}

}  // namespace

Metrics::Metrics(const std::string& model)
    : model_(Escape(model)),
      first_token_(kLongTimes),
      token_gap_(kShortTimes),
      total_(kLongTimes),
      queue_(kLongTimes),
      prefill_(kLongTimes),
      decode_(kLongTimes) {}

void Metrics::Histogram::Add(double value) {
  const auto place = std::lower_bound(bounds.begin(), bounds.end(), value) - bounds.begin();
  ++counts[static_cast<size_t>(place)];
  sum += value;
}

void Metrics::AddRequest(const RequestFigures& figures) {
  const std::lock_guard lock(mutex_);
  hit_tokens_ += figures.hit_tokens;
  miss_tokens_ += figures.miss_tokens;
  generated_tokens_ += figures.generated_tokens;
  dollars_ += figures.dollars;
  ++finished_[figures.finish_reason];
  if (figures.first_token_seconds >= 0) first_token_.Add(figures.first_token_seconds);
  total_.Add(figures.total_seconds);
  queue_.Add(figures.queue_seconds);
  prefill_.Add(figures.prefill_seconds);
  decode_.Add(figures.decode_seconds);
}

void Metrics::AddTokenGap(double seconds) {
  const std::lock_guard lock(mutex_);
  token_gap_.Add(seconds);
}

void Metrics::AddResponse(int status) {
  const std::lock_guard lock(mutex_);
  ++responses_[status];
}

void Metrics::WriteHistogram(std::string& page, const char* name, const char* help,
                             const Histogram& histogram) const {
  Head(page, name, "histogram", help);
  int64_t count = 0;
  for (size_t i = 0; i < histogram.counts.size(); ++i) {
    count += histogram.counts[i];
    const std::string bound =
        i < histogram.bounds.size() ? fmt::format("{}", histogram.bounds[i]) : "+Inf";
    page +=
        fmt::format("{}_bucket{{model_name=\"{}\",le=\"{}\"}} {}\n", name, model_, bound, count);
  }
  page += fmt::format("{}_sum{{model_name=\"{}\"}} {}\n", name, model_, histogram.sum);
  page += fmt::format("{}_count{{model_name=\"{}\"}} {}\n", name, model_, count);
}

std::string Metrics::Page(const GaugeFigures& gauges) const {
  const std::lock_guard lock(mutex_);
  std::string page;
  const auto vllm = [&](const char* name, const char* type, const char* help, int64_t value) {
    Head(page, name, type, help);
    page += fmt::format("{}{{model_name=\"{}\"}} {}\n", name, model_, value);
  };
  const auto own = [&](const char* name, const char* type, const char* help, const auto& value) {
    Head(page, name, type, help);
    page += fmt::format("{} {}\n", name, value);
  };
  vllm("vllm:num_requests_running", "gauge", "Requests that are being computed.", gauges.running);
  vllm("vllm:num_requests_waiting", "gauge", "Requests that wait for their turn.", gauges.waiting);
  vllm("vllm:prompt_tokens_total", "counter", "Tokens of prompts.", hit_tokens_ + miss_tokens_);
  vllm("vllm:generation_tokens_total", "counter", "Tokens sampled.", generated_tokens_);
  vllm("vllm:prefix_cache_queries_total", "counter", "Tokens looked for in the prefix cache.",
       hit_tokens_ + miss_tokens_);
  vllm("vllm:prefix_cache_hits_total", "counter", "Tokens found in the prefix cache.", hit_tokens_);
  Head(page, "vllm:request_success_total", "counter", "Requests by the way they ended.");
  for (const auto& [reason, count] : finished_)
    page +=
        fmt::format("vllm:request_success_total{{model_name=\"{}\",finished_reason=\"{}\"}} {}\n",
                    model_, reason, count);
  WriteHistogram(page, "vllm:time_to_first_token_seconds", "From a request to its first token.",
                 first_token_);
  WriteHistogram(page, "vllm:inter_token_latency_seconds", "From one token to the next.",
                 token_gap_);
  WriteHistogram(page, "vllm:e2e_request_latency_seconds", "From a request to its end.", total_);
  WriteHistogram(page, "vllm:request_queue_time_seconds", "Waiting.", queue_);
  WriteHistogram(page, "vllm:request_prefill_time_seconds", "Reading the prompt.", prefill_);
  WriteHistogram(page, "vllm:request_decode_time_seconds", "Writing the reply.", decode_);
  own("toaster_requests_running", "gauge", "Requests that are being computed.", gauges.running);
  own("toaster_requests_waiting", "gauge", "Requests that wait for their turn.", gauges.waiting);
  own("toaster_connections", "gauge", "Connections that are open.", gauges.connections);
  own("toaster_streams", "gauge", "Replies on their way.", gauges.streams);
  own("toaster_generated_tokens_total", "counter", "Tokens sampled.", generated_tokens_);
  own("toaster_prompt_cache_hit_tokens_total", "counter", "Prompt tokens from the cache.",
      hit_tokens_);
  own("toaster_prompt_cache_miss_tokens_total", "counter", "Prompt tokens computed.", miss_tokens_);
  own("toaster_saved_dollars", "counter", "What the same traffic would have cost.", dollars_);
  Head(page, "toaster_responses_total", "counter", "HTTP responses by status.");
  for (const auto& [status, count] : responses_)
    page += fmt::format("toaster_responses_total{{status=\"{}\"}} {}\n", status, count);
  Head(page, "toaster_memory_bytes", "gauge", "Memory in use by tier.");
  for (const auto& [tier, bytes] : gauges.memory_bytes)
    page += fmt::format("toaster_memory_bytes{{tier=\"{}\"}} {}\n", Escape(tier), bytes);
  const GeneratorMeters& meters = gauges.meters;
  Head(page, "toaster_read_bytes_total", "counter", "Weights and caches read, by memory tier.");
  page +=
      fmt::format("toaster_read_bytes_total{{tier=\"memory\"}} {:.0f}\n", meters.read_bytes.memory);
  page += fmt::format("toaster_read_bytes_total{{tier=\"disk\"}} {:.0f}\n", meters.read_bytes.disk);
  if (meters.limit_share > 0) {
    own("toaster_limit_share", "gauge", "Share of the speed that this machine allows, lately.",
        meters.limit_share);
  }
  if (!meters.experts) return page;
  const ExpertStoreFigures& experts = *meters.experts;
  own("toaster_experts_used_total", "counter", "Experts that steps needed.", experts.used);
  own("toaster_experts_missed_total", "counter",
      "Experts that steps needed and that were neither in memory nor on their way.",
      experts.missed);
  own("toaster_experts_forecast_total", "counter", "Experts read before they were needed.",
      experts.read_for_forecast);
  own("toaster_experts_forecast_in_vain_total", "counter",
      "Experts read before they were needed, and then not needed.", experts.forecast_in_vain);
  own("toaster_expert_read_seconds_total", "counter", "In which experts were being read.",
      experts.read_seconds);
  own("toaster_expert_wait_seconds_total", "counter", "In which computing waited for experts.",
      experts.wait_seconds);
  return page;
}

}  // namespace toaster
