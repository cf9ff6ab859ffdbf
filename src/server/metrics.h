#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "server/generator.h"

namespace toaster {

/// What one request did, when it is over.
struct RequestFigures {
  int64_t hit_tokens = 0, miss_tokens = 0, generated_tokens = 0;
  double queue_seconds = 0, prefill_seconds = 0, decode_seconds = 0;
  double first_token_seconds = -1;  ///< from the request's arrival; negative: none came
  double total_seconds = 0;
  double dollars = 0;         ///< what it would have cost
  std::string finish_reason;  ///< stop, length, tool_calls, abort or error
};

/// What is true right now.
struct GaugeFigures {
  int64_t running = 0, waiting = 0, connections = 0, streams = 0;
  std::map<std::string, int64_t> memory_bytes;  ///< by tier
  GeneratorMeters meters;
};

/// Counts what the server does and writes it as Prometheus text: under vLLM's names where vLLM has
/// the figure, under toaster_ otherwise. Any thread.
class Metrics {
 public:
  explicit Metrics(const std::string& model);
  Metrics(const Metrics&) = delete;
  Metrics& operator=(const Metrics&) = delete;

  void AddRequest(const RequestFigures& figures);
  void AddTokenGap(double seconds);
  void AddResponse(int status);
  std::string Page(const GaugeFigures& gauges) const;

 private:
  struct Histogram {
    std::vector<double> bounds;
    std::vector<int64_t> counts;
    double sum = 0;
    explicit Histogram(std::vector<double> limits)
        : bounds(std::move(limits)), counts(bounds.size() + 1) {}
    void Add(double value);
  };
  void WriteHistogram(std::string& page, const char* name, const char* help,
                      const Histogram& histogram) const;

  const std::string model_;
  mutable std::mutex mutex_;
  int64_t hit_tokens_ = 0, miss_tokens_ = 0, generated_tokens_ = 0;
  double dollars_ = 0;
  std::map<std::string, int64_t> finished_;
  std::map<int, int64_t> responses_;
  Histogram first_token_, token_gap_, total_, queue_, prefill_, decode_;
};

}  // namespace toaster
