#pragma once

#include <cstdint>

namespace toaster::kernels {

/// Puts one indexer head into the arrays of an IndexQuery (kernels.h) as column `head`: its codes
/// doubled, its scales times 1/4. `key` is the head in the form of an indexer key (encode_key).
void PackIndexHead(const uint8_t* key, int64_t width, int64_t head, int64_t padded_heads,
                   int8_t* codes, float* scales);

}  // namespace toaster::kernels
