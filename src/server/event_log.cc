#include "server/event_log.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <chrono>

namespace toaster {

void EventLog::Write(std::string_view level, std::string_view event, const OrderedJson& details) {
  if (!file_) return;
  using std::chrono::system_clock;
  const system_clock::time_point now = system_clock::now();
  const auto milliseconds =
      std::chrono::duration_cast<std::chrono::milliseconds>(now.time_since_epoch()).count() % 1000;
  OrderedJson line = {
      {"time", fmt::format("{:%Y-%m-%dT%H:%M:%S}.{:03}Z", fmt::gmtime(system_clock::to_time_t(now)),
                           milliseconds)},
      {"level", level},
      {"event", event}};
  if (details.is_object()) line.update(details);
  const std::string text = DumpJson(line) + "\n";
  const std::lock_guard lock(mutex_);
  std::fwrite(text.data(), 1, text.size(), file_);
  std::fflush(file_);
}

}  // namespace toaster
