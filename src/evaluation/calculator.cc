#include "evaluation/calculator.h"

#include <fmt/format.h>

#include <cstdint>
#include <optional>

namespace toaster {
namespace {

constexpr int kDeepest = 64;

/// Recursive descent; the first trouble ends it.
class Parser {
 public:
  explicit Parser(std::string_view text) : rest_(text) {}

  std::string Run() {
    const int64_t value = Sum(0);
    if (!trouble_ && Next() != '\0') trouble_ = "not an expression";
    return trouble_ ? fmt::format("error: {}", trouble_) : fmt::format("{}", value);
  }

 private:
  /// The next character that is no blank; 0 at the end.
  char Next() {
    const size_t begin = rest_.find_first_not_of(" \t\n");
    rest_.remove_prefix(begin == rest_.npos ? rest_.size() : begin);
    return rest_.empty() ? '\0' : rest_[0];
  }
  bool Take(char wanted) {
    if (Next() != wanted) return false;
    rest_.remove_prefix(1);
    return true;
  }
  int64_t Fail(const char* trouble) {
    if (!trouble_) trouble_ = trouble;
    return 0;
  }

  int64_t Sum(int depth) {
    int64_t value = Product(depth);
    while (!trouble_) {
      const bool add = Take('+');
      if (!add && !Take('-')) break;
      const int64_t other = Product(depth);
      if (add ? __builtin_add_overflow(value, other, &value)
              : __builtin_sub_overflow(value, other, &value)) {
        return Fail("the number is too large");
      }
    }
    return value;
  }

  int64_t Product(int depth) {
    int64_t value = Factor(depth);
    while (!trouble_) {
      const bool multiply = Take('*');
      if (!multiply && !Take('/')) break;
      const int64_t other = Factor(depth);
      if (trouble_) return 0;
      if (multiply) {
        if (__builtin_mul_overflow(value, other, &value)) return Fail("the number is too large");
      } else {
        if (other == 0) return Fail("division by zero");
        if (value == INT64_MIN && other == -1) return Fail("the number is too large");
        if (value % other != 0) return Fail("the division leaves a remainder");
        value /= other;
      }
    }
    return value;
  }

  int64_t Factor(int depth) {
    if (depth > kDeepest) return Fail("nested too deeply");
    if (Take('-')) {
      int64_t value = Factor(depth + 1);
      return __builtin_sub_overflow(int64_t{0}, value, &value) ? Fail("the number is too large")
                                                               : value;
    }
    if (Take('(')) {
      const int64_t value = Sum(depth + 1);
      return Take(')') ? value : Fail("not an expression");
    }
    if (Next() < '0' || Next() > '9') return Fail("not an expression");
    int64_t value = 0;
    for (; !rest_.empty() && rest_[0] >= '0' && rest_[0] <= '9'; rest_.remove_prefix(1)) {
      if (__builtin_mul_overflow(value, 10, &value) ||
          __builtin_add_overflow(value, rest_[0] - '0', &value)) {
        return Fail("the number is too large");
      }
    }
    return value;
  }

  std::string_view rest_;
  const char* trouble_ = nullptr;
};

}  // namespace

std::string Calculate(std::string_view expression) { return Parser(expression).Run(); }

}  // namespace toaster
