#pragma once

#include "engine/engine.h"
#include "server/generator.h"

namespace toaster {

/// The engine as what the server computes with.
class EngineGenerator : public Generator {
 public:
  /// See Engine; the model and the store, which may be null, are borrowed.
  EngineGenerator(RunningModel& running, const EngineLimits& limits, PrefixStore* store = nullptr,
                  const EngineMeters& meters = {})
      : engine_(running, limits, store, meters), places_(limits.most_running) {}

  /// Cancels what is left: every stream ends.
  void Stop() { engine_.Stop(); }

  std::unique_ptr<GenerationStream> Submit(GenerationJob job) override;
  int64_t waiting() const override { return engine_.status().waiting; }
  int64_t running() const override { return static_cast<int64_t>(engine_.status().running.size()); }
  std::vector<GenerationSlot> Slots() const override;
  GeneratorMeters Meters() const override;

 private:
  Engine engine_;
  const int64_t places_;
};

}  // namespace toaster
