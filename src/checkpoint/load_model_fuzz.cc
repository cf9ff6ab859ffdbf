// A config and the header of a safetensors file, parted by a zero byte, in front of
// 600 kilobytes of zeros: either a model whose views lie inside the file, or an Error.

#include <cstring>
#include <type_traits>

#include "base/check.h"
#include "checkpoint/load_weights.h"

namespace toaster {
namespace {

void CheckViews(LoadedModel& model, std::span<const std::byte> file) {
  const auto* begin = reinterpret_cast<const uint8_t*>(file.data());
  const auto inside = [&](const uint8_t* data, int64_t bytes) {
    return data >= begin && bytes >= 0 && data + bytes <= begin + file.size();
  };
  VisitTensors(model.config, model.weights, [&](const TensorSpec& spec, auto& view) {
    using View = std::decay_t<decltype(view)>;
    if constexpr (std::is_same_v<View, Matrix>) {
      CHECK(view.rows == spec.rows && view.columns == spec.columns);
      CHECK(inside(view.data, view.data_bytes()), "{}", spec.name);
      CHECK(!view.quantised() || inside(view.scales, view.scale_bytes()), "{}", spec.name);
    } else if constexpr (std::is_same_v<View, Vector>) {
      CHECK(view.size == spec.rows);
      CHECK(inside(view.data, view.size * (view.format == NumberFormat::kBf16 ? 2 : 4)));
    } else {
      CHECK(inside(view.data, 8 * view.rows * view.columns));
    }
  });
}

}  // namespace
}  // namespace toaster

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace toaster;
  constexpr size_t kZeros = 600'000;
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const size_t split = input.find('\0');
  if (split == std::string_view::npos) return 0;
  const std::string_view header = input.substr(split + 1);
  std::vector<std::byte> file(8 + header.size() + kZeros);
  const uint64_t length = header.size();
  std::memcpy(file.data(), &length, 8);
  std::memcpy(file.data() + 8, header.data(), header.size());
  try {
    LoadedModel model = LoadModel(Checkpoint::InMemory(input.substr(0, split), file, "fuzz"));
    CheckViews(model, file);
  } catch (const Error& error) {
    CHECK(std::string_view(error.what()).find('\n') == std::string_view::npos);
  }
  return 0;
}
