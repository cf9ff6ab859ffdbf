#pragma once

// What the steps of an engine read, and how close they come to what the machine allows.

#include "backend/machine_limits.h"
#include "backend/profile.h"
#include "engine/expert_store.h"

namespace toaster {

/// Bytes of weights and caches that a step read, by where they came from.
struct StepBytes {
  double memory = 0;  ///< counted by the backend's profile
  double disk = 0;    ///< of experts, those read for a forecast included
};

/// One thread.
class StepMeter {
 public:
  /// All are borrowed and may be null or zeros: what they would tell is not known then. The profile
  /// is the one that the model's backend writes to; the meter clears it.
  StepMeter(Profile* profile, const ExpertStore* experts, const MachineLimits& limits);

  void Begin();
  /// After a step of so many seconds.
  StepBytes End(double seconds);

  /// The share that the last kHalfLife seconds of steps reached of the speed that memory,
  /// arithmetic and, where experts are read, a disk that never rests would allow; 0: not known.
  double limit_share() const { return seconds_ > 0 ? least_seconds_ / seconds_ : 0; }

  static constexpr double kHalfLife = 5;

 private:
  Profile* const profile_;
  const ExpertStore* const experts_;
  const MachineLimits limits_;
  ExpertStoreFigures before_;
  // Sums over past steps whose weights halve every kHalfLife seconds.
  double least_seconds_ = 0, seconds_ = 0;
};

}  // namespace toaster
