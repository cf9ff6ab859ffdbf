#pragma once

#include <string>

#include "checkpoint/load_weights.h"

namespace toaster {

/// What tells a model from every other: a digest of the configuration, of every tensor's name, type
/// and shape, of samples of its bytes and of each file's size and time. 32 hexadecimal digits.
std::string ModelIdentity(const LoadedModel& model);

}  // namespace toaster
