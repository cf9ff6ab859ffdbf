#pragma once

// Steps of the model that concern one token, one head or one compressed block: the same few lines
// for every backend that computes on the host. What a backend adds is how it walks over them.
// `official` rounds (see Numerics).

#include <cstdint>
#include <span>
#include <vector>

#include "backend/backend.h"

namespace toaster {

/// RMSNorm of x [weight.size] (section 2); in place if output is x.
void NormaliseRow(const float* x, const Vector& weight, float eps, bool official, float* output);

/// Turns the last 2 * pairs numbers of x [width] and rounds them.
void RotateTail(float* x, int64_t width, const float* cosine, const float* sine, int64_t pairs,
                bool inverse, bool official);

/// Sections 7.1.3 and 7.1.4 on one head; `squares` has room for `width` numbers.
void PrepareQueryHead(float* x, int64_t width, float eps, const float* cosine, const float* sine,
                      int64_t pairs, bool official, float* squares);

/// Section 9.2 to 9.4 on one indexer head, up to but without the E2M1 rounding.
void PrepareIndexHead(float* x, int64_t width, const float* cosine, const float* sine,
                      int64_t pairs, bool official);
/// The factor of section 9.6.
float IndexWeightScale(int64_t heads, int64_t width);

/// A cache entry from its numbers, and back: compact in `official`, floats otherwise.
void WriteEntry(const float* values, EntryShape shape, bool official, uint8_t* entry);
void ReadEntry(const uint8_t* entry, EntryShape shape, bool official, float* values);

/// output [d] = sum over j of pre[j] * streams[j], rounded; j rising by fused multiply-adds.
void ReadStreams(const float* streams, const float* pre, int64_t n, int64_t d, bool official,
                 float* output);
/// HC_POST on one token's streams [n, d]; in place if output is streams.
void WriteStreams(const float* y, const float* post, const float* comb, const float* streams,
                  int64_t n, int64_t d, bool official, float* output);

/// One token of a pooling window: D values and D scores.
struct PoolSlot {
  const float* values;
  const float* scores;
};
/// From the slots of a complete block to its cache row: pool, norm, rotation at `position`, then
/// entry or indexer key.
void MakeCompressedRow(std::span<const PoolSlot> slots, const CompressParameters& parameters,
                       int64_t position, bool official, uint8_t* row);

/// The numbers of the `count` largest scores [n], ties to the lower number, in ascending order.
void SelectTop(const float* scores, int64_t n, int64_t count, std::vector<int32_t>& chosen);

/// Router of one token: scores [experts] come as products and leave as affinities; experts and
/// weights [experts_per_token] are chosen. `table` is the hash layer's row, or null.
void RouteRow(float* scores, const RouteParameters& parameters, const int32_t* table,
              int32_t* experts, float* weights);

}  // namespace toaster
