#pragma once

// The hybrid Newton-Schulz iteration of the Muon optimiser (V4 report, pre-training settings):
// x <- a x + b (x x^T) x + c (x x^T)^2 x, eight fast steps and two that settle the singular values
// at 1.

namespace toaster {

struct NewtonSchulzStep {
  float a, b, c;
};

inline constexpr int kNewtonSchulzSteps = 10;

constexpr NewtonSchulzStep NewtonSchulzCoefficients(int step) {
  return step < 8 ? NewtonSchulzStep{3.4445f, -4.7750f, 2.0315f}
                  : NewtonSchulzStep{2.0f, -1.5f, 0.5f};
}

}  // namespace toaster
