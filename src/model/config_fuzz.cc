// Any bytes as a config.json: either a Config that everything can be computed from, or an Error.

#include <algorithm>

#include "base/check.h"
#include "base/error.h"
#include "model/cache_size.h"
#include "model/config.h"
#include "model/weights.h"

namespace toaster {
namespace {

void CheckUsable(Config config) {
  config.Validate("fuzz");
  for (const int64_t tokens : {int64_t{1}, int64_t{127}, int64_t{1} << 20}) {
    const CacheBytes bytes = ModelCacheBytes(config, tokens, true);
    CHECK(bytes.compressed >= 0 && bytes.window > 0 && bytes.tails >= 0);
  }
  CHECK(CacheBytesPerToken(config) >= 0);
  for (const std::string& key : config.unknown_keys) CHECK(key.find('\n') == std::string::npos);
  config.unknown_keys.clear();
  const Config again = Config::Parse(config.ToJson(), "again");
  CHECK(again == config, "{}\n{}", config.ToJson(), again.ToJson());
  // The list of tensors takes memory; a model of this size has one in any case.
  if (config.total_blocks() * config.n_routed_experts > 2000) return;
  int64_t bytes = 0;
  for (const TensorSpec& spec : ListTensors(config)) {
    CHECK(spec.rows > 0 && spec.columns >= 0);
    CHECK(
        !__builtin_add_overflow(bytes, 8 * spec.rows * std::max<int64_t>(spec.columns, 1), &bytes));
  }
}

}  // namespace
}  // namespace toaster

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace toaster;
  try {
    CheckUsable(Config::Parse({reinterpret_cast<const char*>(data), size}, "fuzz"));
  } catch (const Error& error) {
    CHECK(std::string_view(error.what()).find('\n') == std::string_view::npos);
    CHECK(std::string_view(error.what()).substr(0, 5) != "again", "{}", error.what());
  }
  return 0;
}
