#pragma once

// The backward pass of one transformer block: what ForwardBlock() did, in reverse.

#include "backend/backward.h"
#include "model/block.h"
#include "model/gradients.h"

namespace toaster {

/// The losses that arise inside a block: weights in, values out. A hash-routed block has no balance
/// loss, one without indexer no index loss; their values are 0 then.
struct BlockLosses {
  BalanceLoss balance;
  IndexLoss index;
};

/// From the gradient of the streams that ForwardBlock() made to that of the streams it was given,
/// in place; adds the parameters' gradients, those of the block's own losses included. `saved` has
/// a tape; every segment of `batch` is a whole document, whose caches are as ForwardBlock() left
/// them.
void BackwardBlock(BackwardBackend& backend, const BlockContext& block, const BlockBatch& batch,
                   const BlockSaved& saved, BlockLosses& losses, Tensor& grad_streams,
                   ParameterArrays& gradients);

}  // namespace toaster
