#pragma once

// A model for tests of commands: random weights and plain bytes as tokens, so that what they show
// does not depend on what the built-in model has learned.

#include <cstdlib>
#include <string>

#include "base/temporary_directory.h"
#include "base/thread_pool.h"
#include "checkpoint/official_layout.h"
#include "checkpoint/random_weights.h"
#include "checkpoint/save_weights.h"
#include "model/config.h"

namespace toaster::test {

/// A checkpoint of the "tiny" shape (512 tokens), there until the process ends.
inline std::string RandomModel() {
  static const TemporaryDirectory folder;
  static const std::string path = [] {
    const Config config = Config::Preset("tiny");
    const RandomWeights weights(config, 0);
    ThreadPool pool(1);
    const std::string out = (folder.path() / "random_model").string();
    SaveCheckpoint(
        out, config, SingleFile(config),
        [&](const PlannedTensor& tensor, int64_t offset, std::span<std::byte> bytes) {
          weights.Fill(tensor, offset, bytes);
        },
        pool, [](int64_t, int64_t) {});
    return out;
  }();
  return path;
}

/// Makes commands that are started, and name no model, take RandomModel() while it lives.
class ScopedRandomModel {
 public:
  ScopedRandomModel() { setenv("TOASTER_MODEL", RandomModel().c_str(), 1); }
  ~ScopedRandomModel() { unsetenv("TOASTER_MODEL"); }
  ScopedRandomModel(const ScopedRandomModel&) = delete;
  ScopedRandomModel& operator=(const ScopedRandomModel&) = delete;
};

}  // namespace toaster::test
