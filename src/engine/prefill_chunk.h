#pragma once

#include <cstdint>

#include "model/config.h"

namespace toaster {

/// Bytes of activations that one more token of a forward pass takes, about; with those of another
/// pass that waits meanwhile, if several sequences share the model.
int64_t WorkspaceBytesPerToken(const Config& config, bool shared = false);

/// Tokens per forward pass of a prefill that are worth their memory: experts are expanded once for
/// all tokens of a chunk, which stops paying at about 2,048 tokens, and the workspace is to stay
/// within an eighth of the `available` bytes (0: not known). At least 64.
int64_t PrefillChunk(const Config& config, int64_t available);

/// The most for a server, where whoever comes waits for one such pass: about a dozen tokens for
/// each expert, with which products keep most of their speed. At least 64.
int64_t ServingChunk(const Config& config);

}  // namespace toaster
