#include "evaluation/proportion.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace toaster {

Proportion::Interval Proportion::Wilson() const {
  if (count == 0) return {};
  constexpr double kDeviations = 1.959963984540054;  // that leave 2.5 % on each side
  const auto n = static_cast<double>(count);
  const double square = kDeviations * kDeviations;
  const double middle = (share() + square / (2 * n)) / (1 + square / n);
  const double half = kDeviations / (1 + square / n) *
                      std::sqrt(share() * (1 - share()) / n + square / (4 * n * n));
  return {std::max(0.0, middle - half), std::min(1.0, middle + half)};
}

std::string Proportion::Text() const {
  const Interval interval = Wilson();
  return fmt::format("{} of {}, {:.1f} % ({:.1f} to {:.1f})", right, count, 100 * share(),
                     100 * interval.low, 100 * interval.high);
}

}  // namespace toaster
