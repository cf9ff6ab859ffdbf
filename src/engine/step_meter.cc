#include "engine/step_meter.h"

#include <algorithm>
#include <cmath>

namespace toaster {

StepMeter::StepMeter(Profile* profile, const ExpertStore* experts, const MachineLimits& limits)
    : profile_(profile), experts_(experts), limits_(limits) {}

void StepMeter::Begin() {
  if (profile_ != nullptr) profile_->Clear();
  if (experts_ != nullptr) before_ = experts_->figures();
}

StepBytes StepMeter::End(double seconds) {
  StepBytes bytes;
  double least_seconds = 0;
  if (profile_ != nullptr) {
    const Work work = profile_->Total().work;
    bytes.memory = work.bytes;
    least_seconds = work.LeastSeconds(limits_);
  }
  if (experts_ != nullptr) {
    const ExpertStoreFigures after = experts_->figures();
    bytes.disk = static_cast<double>(after.read_bytes - before_.read_bytes);
    if (least_seconds > 0)
      least_seconds = std::max(least_seconds, after.read_seconds - before_.read_seconds);
  }
  if (least_seconds > 0) {
    const double kept = std::exp2(-seconds / kHalfLife);
    least_seconds_ = least_seconds_ * kept + least_seconds;
    seconds_ = seconds_ * kept + seconds;
  }
  return bytes;
}

}  // namespace toaster
