// One call of one kernel, for counting its instructions: unlike time, they are the same on a busy
// machine. bench/kernel_instructions.py runs it under callgrind and compares with what is recorded.
//
//   kernel_instructions                 lists the cases, a line each: table and kernel
//   kernel_instructions TABLE KERNEL    calls the kernel once, inside CountedCall()
//
// Shapes are cut from DeepSeek V4 Flash: 64 rows of an expert or a projection, 64 heads over a
// window of 128 entries, 256 indexer keys.

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <functional>
#include <string>
#include <vector>

#include "backend/cpu/kernels/kernels.h"
#include "base/flush_denormals.h"
#include "tensor/number_formats.h"
#include "tensor/tensor.h"

namespace toaster::kernels {
namespace {

constexpr int64_t kRows = 64, kInner = 2048;
constexpr int64_t kHeads = 64, kSlots = 128, kWidth = 512;
constexpr int64_t kIndexHeads = 64, kIndexWidth = 128, kKeys = 256;
constexpr int64_t kNumbers = 2048;

template <typename T>
AlignedArray<T> Numbers(int64_t n, T (*number)(int64_t)) {
  AlignedArray<T> out(n);
  for (int64_t i = 0; i < n; ++i) out[i] = number(i);
  return out;
}

float SmallFloat(int64_t i) { return 0.25f * static_cast<float>(i % 13 - 6); }
uint16_t SmallBf16(int64_t i) { return FloatToBf16(SmallFloat(i)); }
uint8_t SmallIndexCode(int64_t i) { return static_cast<uint8_t>(i % 25); }
int8_t SmallSignedCode(int64_t i) { return static_cast<int8_t>(i % 5 - 2); }
int16_t SmallWhole(int64_t i) { return static_cast<int16_t>(i % 25); }
uint8_t SmallCode(int64_t i) { return static_cast<uint8_t>(i * 37 % 120); }  // no E4M3 NaN
uint8_t ScaleOne(int64_t) { return 127; }
uint8_t SmallKey(int64_t i) { return i % 68 < 64 ? SmallCode(i) : ScaleOne(i); }

}  // namespace

/// What is counted.
__attribute__((noinline)) void CountedCall(const std::function<void()>& kernel) { kernel(); }

namespace {

struct Case {
  std::string name;
  std::function<void(const KernelTable&)> run;
  bool (*has)(const KernelTable&) = [](const KernelTable&) { return true; };
};

enum class Format { kBf16, kE4m3, kE2m1, kFloat };

Case Product(const std::string& name, Format format, int64_t tokens) {
  return {fmt::format("{}/tokens:{}", name, tokens), [=](const KernelTable& table) {
            const auto weights = Numbers<uint16_t>(2 * kRows * kInner, SmallBf16);
            const auto codes = Numbers<uint8_t>(kRows * kInner, SmallCode);
            const auto floats = Numbers<float>(kRows * kInner, SmallFloat);
            const auto scales = Numbers<uint8_t>(kRows * kInner / 32, ScaleOne);
            const auto x = Numbers<uint16_t>(tokens * kInner, SmallBf16);
            const auto x_float = Numbers<float>(tokens * kInner, SmallFloat);
            AlignedArray<float> y(tokens * kRows);
            AlignedArray<std::byte> scratch(MatmulScratchBytes(kInner));
            WeightRows w = {codes.data(), kInner, kRows, kInner, scales.data()};
            const auto call = [&](auto kernel, const auto& input) {
              CountedCall([&] {
                kernel(w, input.data(), kInner, tokens, y.data(), kRows, scratch.data());
              });
            };
            switch (format) {
              case Format::kBf16:
                w.data = reinterpret_cast<const uint8_t*>(weights.data());
                w.row_bytes = 2 * kInner;
                return call(table.matmul_bf16, x);
              case Format::kE4m3:
                return call(table.matmul_e4m3, x);
              case Format::kE2m1:
                w.row_bytes = kInner / 2;
                return call(table.matmul_e2m1, x);
              case Format::kFloat:
                w.data = reinterpret_cast<const uint8_t*>(floats.data());
                w.row_bytes = 4 * kInner;
                return call(table.matmul_f32, x_float);
            }
          }};
}

std::vector<Case> Cases() {
  std::vector<Case> cases;
  for (const int64_t tokens : {1, 8, 64}) {
    cases.push_back(Product("matmul_e2m1", Format::kE2m1, tokens));
    cases.push_back(Product("matmul_e4m3", Format::kE4m3, tokens));
    cases.push_back(Product("matmul_bf16", Format::kBf16, tokens));
  }
  cases.push_back(Product("matmul_f32", Format::kFloat, 1));
  cases.push_back({"softmax_numerators", [](const KernelTable& table) {
                     const auto scores = Numbers<float>(kNumbers, SmallFloat);
                     AlignedArray<uint16_t> p(kNumbers);
                     AlignedArray<float> lanes(16);
                     std::fill_n(lanes.data(), 16, 0.0f);
                     CountedCall([&] {
                       table.softmax_numerators(scores.data(), kNumbers, 1.5f, p.data(),
                                                lanes.data());
                     });
                   }});
  cases.push_back({"accumulate_bf16", [](const KernelTable& table) {
                     const auto p = Numbers<uint16_t>(kHeads * kSlots, SmallBf16);
                     const auto v = Numbers<uint16_t>(kSlots * kWidth, SmallBf16);
                     auto o = Numbers<float>(kHeads * kWidth, SmallFloat);
                     CountedCall([&] {
                       table.accumulate_bf16(p.data(), kSlots, 1, v.data(), kWidth, kHeads, kSlots,
                                             kWidth, o.data(), kWidth);
                     });
                   }});
  cases.push_back({"accumulate_bf16/turned", [](const KernelTable& table) {
                     const auto p = Numbers<uint16_t>(kHeads * kSlots, SmallBf16);
                     const auto v = Numbers<uint16_t>(kSlots * kWidth, SmallBf16);
                     auto o = Numbers<float>(kHeads * kWidth, SmallFloat);
                     CountedCall([&] {
                       table.accumulate_bf16(p.data(), 1, kHeads, v.data(), kWidth, kHeads, kSlots,
                                             kWidth, o.data(), kWidth);
                     });
                   }});
  cases.push_back({"accumulate_f32", [](const KernelTable& table) {
                     const auto p = Numbers<float>(kHeads * kSlots, SmallFloat);
                     const auto v = Numbers<float>(kSlots * kWidth, SmallFloat);
                     auto o = Numbers<float>(kHeads * kWidth, SmallFloat);
                     CountedCall([&] {
                       table.accumulate_f32(p.data(), kSlots, 1, v.data(), kWidth, kHeads, kSlots,
                                            kWidth, o.data(), kWidth);
                     });
                   }});
  cases.push_back({"expand_entry", [](const KernelTable& table) {
                     const auto entry = Numbers<uint8_t>(584, SmallCode);
                     AlignedArray<uint16_t> out(kWidth);
                     CountedCall([&] { table.expand_entry(entry.data(), 448, 64, out.data()); });
                   }});
  cases.push_back(
      {"index_scores", [](const KernelTable& table) {
         const auto codes = Numbers<uint8_t>(kIndexWidth * kIndexHeads, SmallIndexCode);
         const auto scales = Numbers<float>(kIndexWidth / 32 * kIndexHeads, SmallFloat);
         const auto weights = Numbers<float>(kIndexHeads, SmallFloat);
         const auto keys = Numbers<uint8_t>(kKeys * 68, SmallCode);
         AlignedArray<float> out(kKeys);
         const IndexQuery query = {codes.data(), scales.data(), weights.data(),
                                   kIndexHeads,  kIndexWidth,   {}};
         const uint8_t* const page = keys.data();
         CountedCall([&] { table.index_scores(query, {&page, kKeys}, kKeys, out.data()); });
       }});
  cases.push_back(
      {"index_candidates",
       [](const KernelTable& table) {
         const auto codes = Numbers<int8_t>(kIndexWidth * kIndexHeads, SmallSignedCode);
         const AlignedArray<int32_t> offsets(kIndexHeads);
         const auto weights = Numbers<int16_t>(kIndexHeads, SmallWhole);
         const auto keys = Numbers<uint8_t>(kKeys * 68, SmallKey);
         const CandidateQuery query = {codes.data(),   offsets.data(), weights.data(),
                                       weights.data(), 1.0f,           kIndexHeads};
         const uint8_t* const page = keys.data();
         constexpr float kNone = 1e20f;
         CountedCall([&] { table.index_candidates(query, {&page, kKeys}, kKeys, 0, kNone, {}); });
       },
       [](const KernelTable& table) { return table.index_candidates != nullptr; }});
  cases.push_back({"hadamard", [](const KernelTable& table) {
                     auto x = Numbers<float>(kIndexWidth, SmallFloat);
                     CountedCall([&] { table.hadamard(x.data(), kIndexWidth); });
                   }});
  cases.push_back({"encode_key", [](const KernelTable& table) {
                     const auto x = Numbers<float>(kIndexWidth, SmallFloat);
                     AlignedArray<uint8_t> key(68);
                     CountedCall([&] { table.encode_key(x.data(), kIndexWidth, key.data()); });
                   }});
  cases.push_back({"quantize_e4m3", [](const KernelTable& table) {
                     const auto x = Numbers<float>(kNumbers, SmallFloat);
                     AlignedArray<uint16_t> out(kNumbers);
                     CountedCall([&] { table.quantize_e4m3(x.data(), kNumbers, out.data()); });
                   }});
  cases.push_back({"swiglu", [](const KernelTable& table) {
                     const auto gate = Numbers<float>(kNumbers, SmallFloat);
                     const auto up = Numbers<float>(kNumbers, SmallFloat);
                     AlignedArray<float> out(kNumbers);
                     CountedCall([&] {
                       table.swiglu(gate.data(), up.data(), kNumbers, 10.0f, 0.5f, out.data());
                     });
                   }});
  cases.push_back({"swiglu_backward", [](const KernelTable& table) {
                     const auto gate = Numbers<float>(kNumbers, SmallFloat);
                     const auto up = Numbers<float>(kNumbers, SmallFloat);
                     const auto grad = Numbers<float>(kNumbers, SmallFloat);
                     AlignedArray<float> grad_gate(kNumbers), grad_up(kNumbers);
                     CountedCall([&] {
                       table.swiglu_backward(gate.data(), up.data(), kNumbers, 10.0f, 0.5f,
                                             grad.data(), grad_gate.data(), grad_up.data());
                     });
                   }});
  return cases;
}

int Main(int argc, char** argv) {
  const std::vector<Case> cases = Cases();
  if (argc == 1) {
    for (const char* table : {"portable", "avx2"}) {  // callgrind runs no AVX-512
      for (const Case& each : cases) {
        if (CanRun(table) && each.has(*Choose(table)))
          std::printf("%s %s\n", table, each.name.c_str());
      }
    }
    return 0;
  }
  const KernelTable* table = argc == 3 ? Choose(argv[1]) : nullptr;
  for (const Case& each : cases) {
    if (table == nullptr || each.name != argv[2]) continue;
    const ScopedFlushDenormals flush;
    each.run(*table);
    return 0;
  }
  std::fprintf(stderr, "usage: kernel_instructions [TABLE KERNEL]; without both it lists them\n");
  return 2;
}

}  // namespace
}  // namespace toaster::kernels

int main(int argc, char** argv) { return toaster::kernels::Main(argc, argv); }
