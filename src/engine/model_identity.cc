#include "engine/model_identity.h"

#include <algorithm>
#include <filesystem>
#include <span>
#include <string_view>
#include <system_error>

#include "base/digest.h"
#include "base/mapped_file.h"

namespace toaster {

namespace {

// Of a file up to this size every byte is part of the model's identity; of a larger one samples.
constexpr size_t kSmallFileBytes = 256 << 20;
constexpr size_t kSampleBytes = 256;

}  // namespace

std::string ModelIdentity(const LoadedModel& model) {
  Digest digest;
  const auto add_number = [&](uint64_t number) {
    digest.AddValues(std::span<const uint64_t>(&number, 1));
  };
  const auto add_text = [&](std::string_view text) {
    add_number(text.size());
    digest.AddValues(std::span<const char>(text));
  };
  add_text(model.config.ToJson());
  for (const SafetensorsFile& shard : model.checkpoint.shards()) {
    add_number(shard.bytes().size());
    std::error_code error;
    const auto time = std::filesystem::last_write_time(shard.origin(), error);
    if (!error) add_number(static_cast<uint64_t>(time.time_since_epoch().count()));
    const ScopedRandomAccess single_pages(shard.bytes());
    for (const StoredTensor& tensor : shard.tensors()) {
      add_text(tensor.name);
      add_text(tensor.Description());
      // Routed experts are nearly all of a large model; reading a page of each would take long.
      const auto size = static_cast<size_t>(tensor.bytes);
      const bool whole = shard.bytes().size() <= kSmallFileBytes;
      if (!whole && tensor.name.find(".experts.") != std::string::npos) continue;
      const auto bytes = std::span(tensor.data, size);
      digest.AddValues(bytes.first(whole ? size : std::min(size, kSampleBytes)));
      if (!whole) digest.AddValues(bytes.last(std::min(size, kSampleBytes)));
    }
  }
  return digest.Hex();
}

}  // namespace toaster
