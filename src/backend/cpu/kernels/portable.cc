// Plain C++ for every machine. Loops over the 16 lanes are written so that a compiler can make
// vectors of them; the order of every sum is spelled out, so that it may do no more than that.

#include "backend/cpu/kernels/kernels.h"
#include "backend/cpu/kernels/key_cursor.h"
#include "backend/cpu/kernels/scale_tiles.h"
#include "backend/cpu/kernels/weight_tables.h"
#include "tensor/elementary.h"
#include "tensor/number_formats.h"
#include "tensor/summation.h"

namespace toaster::kernels {

namespace {

constexpr int kStep = 2 * kLanes;  // BF16 numbers that one step over all lanes takes
constexpr int kRowTile = 4;        // weight rows expanded at a time

int64_t RoundUp(int64_t n, int64_t step) { return (n + step - 1) / step * step; }

// Weights of one row as floats, separated: each 32 become the 16 odd ones, then the 16 even ones.
int64_t Separated(int64_t k) { return k / kStep * kStep + (k % 2 ? 0 : kLanes) + k % kStep / 2; }

struct Bf16Row {
  static void Expand(const WeightRows& w, int64_t row, float* out) {
    const uint8_t* data = w.data + row * w.row_bytes;
    for (int64_t k = 0; k < RoundUp(w.inner, kStep); ++k) {
      out[Separated(k)] = k < w.inner ? Bf16ToFloat(LoadUnaligned<uint16_t>(data + 2 * k)) : 0.0f;
    }
  }
};

float E4m3Value(uint8_t code, float scale) {
  const float magnitude = Bf16ToFloat(kE4m3Magnitudes.bits[code & 0x7F]);
  return (code & 0x80 ? -magnitude : magnitude) * scale;
}

struct E4m3Row {
  static void Expand(const WeightRows& w, int64_t row, float* out) {
    const uint8_t* data = w.data + row * w.row_bytes;
    const uint8_t* scales = E4m3Scales(w, row);
    for (int64_t block = 0; block < w.inner; block += 128) {
      const float scale = E8m0ToFloat(scales[block / 128]);
      for (int64_t k = block; k < block + 128; ++k) out[Separated(k)] = E4m3Value(data[k], scale);
    }
  }
};

struct E2m1Row {
  static void Expand(const WeightRows& w, int64_t row, float* out) {
    const uint8_t* data = w.data + row * w.row_bytes;
    const uint8_t* scales = w.scales + row * (w.inner / 32);
    for (int64_t block = 0; block < w.inner / kStep; ++block) {
      const uint16_t* values = kScaledE2m1.bits[scales[block]];
      for (int i = 0; i < kLanes; ++i) {
        const uint8_t pair = data[block * kLanes + i];
        out[block * kStep + i] = Bf16ToFloat(values[pair >> 4]);
        out[block * kStep + kLanes + i] = Bf16ToFloat(values[pair & 15]);
      }
    }
  }
};

template <typename Format>
void MatmulBf16(const WeightRows& w, const uint16_t* x, int64_t x_stride, int64_t tokens, float* y,
                int64_t y_stride, std::byte* scratch) {
  const int64_t padded = RoundUp(w.inner, kStep);
  auto* expanded = reinterpret_cast<float*>(scratch);
  for (int64_t first = 0; first < w.rows; first += kRowTile) {
    const int64_t count = w.rows - first < kRowTile ? w.rows - first : kRowTile;
    for (int64_t r = 0; r < count; ++r) Format::Expand(w, first + r, expanded + r * padded);
    for (int64_t t = 0; t < tokens; ++t) {
      float lanes[kRowTile][kLanes] = {};
      for (int64_t k = 0; k < padded; k += kStep) {
        float odd[kLanes], even[kLanes];
        for (int i = 0; i < kLanes; ++i) {
          even[i] = Bf16ToFloat(x[t * x_stride + k + 2 * i]);
          odd[i] = Bf16ToFloat(x[t * x_stride + k + 2 * i + 1]);
        }
        for (int64_t r = 0; r < count; ++r) {
          const float* weights = expanded + r * padded + k;
          for (int i = 0; i < kLanes; ++i) {
            lanes[r][i] = __builtin_fmaf(weights[i], odd[i], lanes[r][i]);
            lanes[r][i] = __builtin_fmaf(weights[kLanes + i], even[i], lanes[r][i]);
          }
        }
      }
      for (int64_t r = 0; r < count; ++r) y[t * y_stride + first + r] = FoldLanes(lanes[r]);
    }
  }
}

void MatmulF32(const WeightRows& w, const float* x, int64_t x_stride, int64_t tokens, float* y,
               int64_t y_stride, std::byte* scratch) {
  auto* row = reinterpret_cast<float*>(scratch);
  for (int64_t r = 0; r < w.rows; ++r) {
    for (int64_t k = 0; k < w.inner; ++k) {
      row[k] = LoadUnaligned<float>(w.data + r * w.row_bytes + 4 * k);
    }
    for (int64_t t = 0; t < tokens; ++t) {
      y[t * y_stride + r] = DotFloat(row, x + t * x_stride, w.inner);
    }
  }
}

void RoundRowToBf16(const float* x, int64_t n, uint16_t* out) {
  for (int64_t i = 0; i < n; ++i) out[i] = FloatToBf16(x[i]);
  for (int64_t i = n; i < RoundUp(n, kStep); ++i) out[i] = 0;
}

void QuantizeE4m3(const float* x, int64_t n, uint16_t* out) {
  for (int64_t block = 0; block < n; block += 128) {
    float amax = kE4m3AmaxFloor;
    for (int64_t i = block; i < block + 128; ++i) {
      const float magnitude = __builtin_fabsf(x[i]);
      amax = magnitude > amax ? magnitude : amax;
    }
    const float scale = E8m0ToFloat(BlockScaleByte(amax, kE4m3InverseMax));
    for (int64_t i = block; i < block + 128; ++i) {
      out[i] = FloatToBf16(E4m3Value(FloatToE4m3(x[i] / scale), scale));
    }
  }
}

void Hadamard(float* x, int64_t n) {
  for (int64_t half = 1; half < n; half *= 2) {
    for (int64_t begin = 0; begin < n; begin += 2 * half) {
      for (int64_t i = begin; i < begin + half; ++i) {
        const float a = x[i], b = x[i + half];
        x[i] = a + b;
        x[i + half] = a - b;
      }
    }
  }
  const auto factor = static_cast<float>(1.0 / __builtin_sqrt(static_cast<double>(n)));
  for (int64_t i = 0; i < n; ++i) x[i] *= factor;
}

void EncodeKey(const float* x, int64_t width, uint8_t* key) {
  for (int64_t block = 0; block < width / 32; ++block) {
    const float* values = x + 32 * block;
    float amax = kE2m1AmaxFloor;
    for (int i = 0; i < 32; ++i) {
      const float magnitude = __builtin_fabsf(values[i]);
      amax = magnitude > amax ? magnitude : amax;
    }
    const uint8_t byte = BlockScaleByte(amax, kE2m1InverseMax);
    const float scale = E8m0ToFloat(byte);
    for (int i = 0; i < 16; ++i) {
      key[16 * block + i] = static_cast<uint8_t>(FloatToE2m1(values[2 * i] / scale) |
                                                 FloatToE2m1(values[2 * i + 1] / scale) << 4);
    }
    key[width / 2 + block] = byte;
  }
}

void ExpandEntry(const uint8_t* entry, int64_t plain, int64_t rotary, uint16_t* out) {
  const uint8_t* scales = entry + plain + 2 * rotary;
  for (int64_t i = 0; i < plain; ++i) {
    out[i] = FloatToBf16(E4m3Value(entry[i], E8m0ToFloat(scales[i / 64])));
  }
  for (int64_t i = 0; i < rotary; ++i) {
    out[plain + i] = LoadUnaligned<uint16_t>(entry + plain + 2 * i);
  }
  for (int64_t i = plain + rotary; i < RoundUp(plain + rotary, kStep); ++i) out[i] = 0;
}

float ScaleScores(float* scores, int64_t n, float factor) {
  float largest = -__builtin_inff();
  for (int64_t i = 0; i < n; ++i) {
    scores[i] *= factor;
    largest = scores[i] > largest ? scores[i] : largest;
  }
  return largest;
}

void SoftmaxNumerators(const float* scores, int64_t n, float maximum, uint16_t* p, float* lanes) {
  for (int64_t i = 0; i < n; ++i) {
    const float e = Exp(scores[i] - maximum);
    p[i] = FloatToBf16(e);
    lanes[i % kLanes] += e;
  }
}

void AccumulateBf16(const uint16_t* p, int64_t p_head, int64_t p_slot, const uint16_t* v,
                    int64_t v_stride, int64_t heads, int64_t slots, int64_t width, float* o,
                    int64_t o_stride) {
  for (int64_t h = 0; h < heads; ++h) {
    for (int64_t column = 0; column < width; column += kStep) {
      float sums[kStep];
      float* const target = o + h * o_stride + column;
      for (int i = 0; i < kStep; ++i) sums[i] = target[i];
      for (int64_t s = 0; s < slots; s += 2) {
        const float even = Bf16ToFloat(p[h * p_head + s * p_slot]);
        const float odd = Bf16ToFloat(p[h * p_head + (s + 1) * p_slot]);
        const uint16_t* const row = v + s * v_stride + column;
        for (int i = 0; i < kStep; ++i) {
          sums[i] = __builtin_fmaf(odd, Bf16ToFloat(row[v_stride + i]), sums[i]);
          sums[i] = __builtin_fmaf(even, Bf16ToFloat(row[i]), sums[i]);
        }
      }
      for (int i = 0; i < kStep; ++i) target[i] = sums[i];
    }
  }
}

void AccumulateF32(const float* p, int64_t p_head, int64_t p_slot, const float* v, int64_t v_stride,
                   int64_t heads, int64_t slots, int64_t width, float* o, int64_t o_stride) {
  for (int64_t h = 0; h < heads; ++h) {
    for (int64_t s = 0; s < slots; ++s) {
      const float factor = p[h * p_head + s * p_slot];
      for (int64_t c = 0; c < width; ++c) {
        o[h * o_stride + c] = __builtin_fmaf(factor, v[s * v_stride + c], o[h * o_stride + c]);
      }
    }
  }
}

void Swiglu(const float* gate, const float* up, int64_t n, float limit, float weight, float* out) {
  for (int64_t i = 0; i < n; ++i) {
    float g = gate[i], u = up[i];
    if (limit > 0) {
      g = limit < g ? limit : g;
      u = u < -limit ? -limit : u;
      u = limit < u ? limit : u;
    }
    out[i] = weight * ((g * Sigmoid(g)) * u);
  }
}

float SwigluBackward(const float* gate, const float* up, int64_t n, float limit, float weight,
                     const float* grad_out, float* grad_gate, float* grad_up) {
  float lanes[kLanes] = {};
  for (int64_t i = 0; i < n; ++i) {
    const bool gate_clamped = limit > 0 && gate[i] > limit;
    const bool up_clamped = limit > 0 && __builtin_fabsf(up[i]) > limit;
    const float g = gate_clamped ? limit : gate[i];
    const float u = up_clamped ? __builtin_copysignf(limit, up[i]) : up[i];
    const float s = Sigmoid(g), silu = g * s, grad = grad_out[i];
    lanes[i % kLanes] = __builtin_fmaf(grad, silu * u, lanes[i % kLanes]);
    grad_gate[i] = gate_clamped ? 0.0f : weight * grad * u * (s + silu * (1.0f - s));
    grad_up[i] = up_clamped ? 0.0f : weight * grad * silu;
  }
  return FoldLanes(lanes);
}

// Doubled values of the E2M1 codes.
constexpr int8_t kDoubledE2m1[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

float IndexScore(const IndexQuery& query, const uint8_t* key) {
  const uint8_t* key_scales = key + query.width / 2;
  float lanes[kLanes] = {};
  for (int64_t head = 0; head < query.padded_heads; head += kLanes) {
    float dots[kLanes] = {};
    for (int64_t block = 0; block < query.width / 32; ++block) {
      int sums[kLanes] = {};
      for (int64_t quad = block * 8; quad < block * 8 + 8; ++quad) {
        const uint8_t low = key[2 * quad], high = key[2 * quad + 1];
        const int k[4] = {kDoubledE2m1[low & 15], kDoubledE2m1[low >> 4], kDoubledE2m1[high & 15],
                          kDoubledE2m1[high >> 4]};
        const uint8_t* codes = query.codes + (quad * query.padded_heads + head) * 4;
        for (int i = 0; i < kLanes; ++i) {
          for (int j = 0; j < 4; ++j) sums[i] += (codes[4 * i + j] - kIndexBias) * k[j];
        }
      }
      const float key_scale = E8m0ToFloat(key_scales[block]);
      const float* query_scales = query.scales + block * query.padded_heads + head;
      for (int i = 0; i < kLanes; ++i) {
        dots[i] += static_cast<float>(sums[i]) * (query_scales[i] * key_scale);
      }
    }
    for (int i = 0; i < kLanes; ++i) {
      float dot = RoundBf16(dots[i]);
      dot = dot < 0 ? 0.0f : dot;
      lanes[i] += RoundBf16(dot * query.weights[head + i]);
    }
  }
  return RoundBf16(FoldLanes(lanes));
}

void IndexScores(const IndexQuery& query, const KeyPages& keys, int64_t count, float* out) {
  if (count == 0) return;
  KeyCursor cursor(keys, count, query.width / 2 + query.width / 32);
  for (int64_t i = 0; i < count; ++i) out[i] = IndexScore(query, cursor.Next());
}

int64_t SpinFloat(int64_t rounds, float* sink) {
  constexpr int kChains = 6 * kLanes;
  float sums[kChains];
  for (int i = 0; i < kChains; ++i) sums[i] = *sink + static_cast<float>(i);
  const float factor = *sink;
  for (int64_t round = 0; round < rounds; ++round) {
    for (float& sum : sums) sum = __builtin_fmaf(factor, factor, sum);
  }
  for (const float sum : sums) *sink += sum;
  return rounds * kChains * 2;
}

int64_t SpinInt8(int64_t rounds, float* sink) {
  constexpr int kChains = 6 * kLanes;
  uint32_t sums[kChains];
  for (int i = 0; i < kChains; ++i)
    sums[i] = static_cast<uint32_t>(*sink) + static_cast<uint32_t>(i);
  for (int64_t round = 0; round < rounds; ++round) {
    for (uint32_t& sum : sums) sum += sum * static_cast<uint32_t>(round);
  }
  for (const uint32_t sum : sums) *sink += static_cast<float>(sum);
  return rounds * kChains * 2;
}

constexpr KernelTable kTable = {
    .name = "portable",
    .matmul_bf16 = MatmulBf16<Bf16Row>,
    .matmul_e4m3 = MatmulBf16<E4m3Row>,
    .matmul_e2m1 = MatmulBf16<E2m1Row>,
    .matmul_f32 = MatmulF32,
    .round_bf16 = RoundRowToBf16,
    .quantize_e4m3 = QuantizeE4m3,
    .hadamard = Hadamard,
    .encode_key = EncodeKey,
    .expand_entry = ExpandEntry,
    .scale_scores = ScaleScores,
    .softmax_numerators = SoftmaxNumerators,
    .accumulate_bf16 = AccumulateBf16,
    .accumulate_f32 = AccumulateF32,
    .swiglu = Swiglu,
    .swiglu_backward = SwigluBackward,
    .index_scores = IndexScores,
    .spin_bf16 = SpinFloat,
    .spin_int8 = SpinInt8,
    .spin_float = SpinFloat,
};

}  // namespace

const KernelTable& Portable() { return kTable; }

}  // namespace toaster::kernels
