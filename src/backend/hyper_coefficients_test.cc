#include "backend/hyper_coefficients.h"

#include <gtest/gtest.h>

#include <vector>

#include "base/random.h"

namespace toaster {
namespace {

std::vector<float> Draw(uint64_t seed, int64_t count, double size) {
  std::vector<float> x(static_cast<size_t>(count));
  for (size_t i = 0; i < x.size(); ++i)
    x[i] = static_cast<float>(size * (2 * UniformDouble(Philox(seed, i, 0)[0], 0) - 1));
  return x;
}

// However many tokens come together, each gets what it gets alone, bit for bit.
TEST(HyperCoefficientsTest, TokensDoNotDependOnEachOther) {
  for (const int64_t n : {1, 2, 3, 4, 8}) {
    for (const int64_t tokens : {1, 2, 7, 8, 9, 17, 19}) {
      const int64_t mixes = (2 + n) * n, square = n * n;
      const auto seed = static_cast<uint64_t>(100 * n + tokens);
      const std::vector<float> u = Draw(seed, tokens * mixes, 6), base = Draw(seed + 1, mixes, 2),
                               scale = Draw(seed + 2, 3, 2);
      const auto view = [](const std::vector<float>& values) {
        return Vector{NumberFormat::kFloat32, static_cast<int64_t>(values.size()),
                      reinterpret_cast<const uint8_t*>(values.data())};
      };
      const Matrix unused;
      const Vector base_view = view(base), scale_view = view(scale);
      const HyperParameters parameters{unused, base_view, scale_view, 20, 1e-6f, 1e-6f};
      const std::vector<float> grad_pre = Draw(seed + 3, tokens * n, 1),
                               grad_post = Draw(seed + 4, tokens * n, 1),
                               grad_comb = Draw(seed + 5, tokens * square, 1);
      std::vector<float> pre(static_cast<size_t>(tokens * n)), post(pre),
          comb(static_cast<size_t>(tokens * square)), grad(u.size());
      HyperCoefficients(u.data(), tokens, parameters, n, pre.data(), post.data(), comb.data());
      HyperCoefficientsBackward(u.data(), tokens, parameters, n, grad_pre.data(), grad_post.data(),
                                grad_comb.data(), grad.data());
      std::vector<float> pre_alone(pre.size()), post_alone(post.size()), comb_alone(comb.size()),
          grad_alone(grad.size()), read(pre.size());
      for (int64_t t = 0; t < tokens; ++t) {
        const float* of_token = u.data() + t * mixes;
        HyperCoefficients(of_token, 1, parameters, n, pre_alone.data() + t * n,
                          post_alone.data() + t * n, comb_alone.data() + t * square);
        HyperReadCoefficients(of_token, parameters, n, read.data() + t * n);
        HyperCoefficientsBackward(of_token, 1, parameters, n, grad_pre.data() + t * n,
                                  grad_post.data() + t * n, grad_comb.data() + t * square,
                                  grad_alone.data() + t * mixes);
      }
      EXPECT_EQ(pre, pre_alone) << n << " " << tokens;
      EXPECT_EQ(pre, read) << n << " " << tokens;
      EXPECT_EQ(post, post_alone) << n << " " << tokens;
      EXPECT_EQ(comb, comb_alone) << n << " " << tokens;
      EXPECT_EQ(grad, grad_alone) << n << " " << tokens;
    }
  }
}

}  // namespace
}  // namespace toaster
