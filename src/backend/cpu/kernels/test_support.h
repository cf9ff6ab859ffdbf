#pragma once

// What the tests and benchmarks of the kernels share: random numbers of every temper, aligned
// memory, the list of tables this processor can run, and comparison bit by bit.

#include <gtest/gtest.h>

#include <array>
#include <new>
#include <string>
#include <vector>

#include "backend/cpu/kernels/kernels.h"
#include "base/flush_denormals.h"
#include "base/random.h"
#include "tensor/number_formats.h"

namespace toaster::kernels {

/// Names of the tables this processor can run.
inline std::vector<std::string> RunnableTables() {
  std::vector<std::string> names;
  for (const char* name : kTableNames) {
    if (CanRun(name)) names.emplace_back(name);
  }
  return names;
}

/// Memory aligned to 64 bytes and no longer than asked for, so that the address sanitizer sees one
/// element too far.
template <typename T>
class AlignedArray {
 public:
  explicit AlignedArray(int64_t size)
      : size_(size),
        data_(static_cast<T*>(::operator new (size * sizeof(T), std::align_val_t{64}))) {
    for (int64_t i = 0; i < size; ++i) data_[i] = T{};
  }
  ~AlignedArray() { ::operator delete (data_, std::align_val_t{64}); }
  AlignedArray(const AlignedArray&) = delete;
  AlignedArray& operator=(const AlignedArray&) = delete;

  T* data() { return data_; }
  const T* data() const { return data_; }
  int64_t size() const { return size_; }
  T& operator[](int64_t i) { return data_[i]; }
  const T& operator[](int64_t i) const { return data_[i]; }

 private:
  int64_t size_;
  T* data_;
};

/// Which numbers a test draws.
enum class Temper {
  kOrdinary,  ///< magnitudes from 2^-4 to 2^4
  kWide,      ///< all finite magnitudes
  kEdges,     ///< zeros of both signs, denormals, the smallest and largest normal numbers, ones
  kAll,       ///< any bit pattern, infinities and NaN included
};
inline constexpr Temper kFiniteTempers[] = {Temper::kOrdinary, Temper::kWide, Temper::kEdges};
inline constexpr Temper kTempers[] = {Temper::kOrdinary, Temper::kWide, Temper::kEdges,
                                      Temper::kAll};

class TestRandom {
 public:
  explicit TestRandom(uint64_t key) : key_(key) {}

  uint32_t Bits() {
    if (used_ == 4) {
      block_ = Philox(key_, counter_++, 0);
      used_ = 0;
    }
    return block_[used_++];
  }
  /// Uniform in [0, count).
  int64_t Below(int64_t count) { return Bits() % count; }
  /// Uniform in [first, last].
  int64_t Between(int64_t first, int64_t last) { return first + Below(last - first + 1); }
  template <typename Choices>
  auto OneOf(const Choices& choices) {
    return std::data(choices)[Below(std::size(choices))];
  }

  float Float(Temper temper) {
    const uint32_t bits = Bits();
    const uint32_t sign = bits & 0x80000000, mantissa = bits & 0x7FFFFF;
    switch (temper) {
      case Temper::kOrdinary:
        return FromBits(sign | static_cast<uint32_t>(Between(123, 131)) << 23 | mantissa);
      case Temper::kWide:
        return FromBits(sign | static_cast<uint32_t>(Between(0, 254)) << 23 | mantissa);
      case Temper::kEdges: {
        constexpr uint32_t kEdge[] = {0,          0,          1,          0x00400000, 0x007FFFFF,
                                      0x00800000, 0x00810000, 0x7F7FFFFF, 0x7F7F0000, 0x3F800000};
        return FromBits(sign | OneOf(kEdge));
      }
      case Temper::kAll:
        return FromBits(bits % 8 == 0 ? sign | 0x7F800000 | (mantissa & 0x10000) : Bits());
    }
    return 0;
  }
  /// The upper half of a float of this temper.
  uint16_t Bf16(Temper temper) {
    return static_cast<uint16_t>(__builtin_bit_cast(uint32_t, Float(temper)) >> 16);
  }

 private:
  static float FromBits(uint32_t bits) { return __builtin_bit_cast(float, bits); }

  uint64_t key_;
  uint64_t counter_ = 0;
  std::array<uint32_t, 4> block_ = {};
  int used_ = 4;
};

/// Equal bits, or both NaN.
inline ::testing::AssertionResult SameFloat(float expected, float actual) {
  const auto a = __builtin_bit_cast(uint32_t, expected), b = __builtin_bit_cast(uint32_t, actual);
  if (a == b || (expected != expected && actual != actual)) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << expected << " (0x" << std::hex << a << ") expected, got "
                                       << actual << " (0x" << b << ")";
}

inline ::testing::AssertionResult SameBf16(uint16_t expected, uint16_t actual) {
  return SameFloat(Bf16ToFloat(expected), Bf16ToFloat(actual));
}

/// The table's name as the last part of a test's name.
inline std::string TableName(const ::testing::TestParamInfo<std::string>& test) {
  return test.param;
}

/// Runs every test with each table, denormals flushed.
class KernelTest : public ::testing::TestWithParam<std::string> {
 protected:
  const KernelTable& table() const { return *Choose(GetParam().c_str()); }

 private:
  ScopedFlushDenormals flush_;
};

}  // namespace toaster::kernels
