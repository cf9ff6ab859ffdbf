// Any bytes as a safetensors file: either sound or an Error.

#include <fmt/format.h>

#include <algorithm>

#include "base/check.h"
#include "checkpoint/safetensors.h"

namespace toaster {
namespace {

void CheckSound(const SafetensorsFile& file) {
  const auto* begin = reinterpret_cast<const uint8_t*>(file.bytes().data());
  const StoredTensor* before = nullptr;
  std::vector<std::pair<int64_t, int64_t>> ranges;
  for (const StoredTensor& tensor : file.tensors()) {
    CHECK(before == nullptr || before->name < tensor.name);
    CHECK(file.Find(tensor.name) == &tensor);
    int64_t bytes = StoredTypeSize(tensor.type);
    for (const int64_t extent : tensor.shape) bytes *= extent == 0 ? 0 : extent;
    CHECK(bytes == tensor.bytes, "{}", tensor.Description());
    CHECK(tensor.offset >= 8 &&
          tensor.offset + tensor.bytes <= static_cast<int64_t>(file.bytes().size()));
    CHECK(tensor.data == begin + tensor.offset);
    if (tensor.bytes > 0) ranges.emplace_back(tensor.offset, tensor.offset + tensor.bytes);
    before = &tensor;
  }
  std::sort(ranges.begin(), ranges.end());
  for (size_t i = 1; i < ranges.size(); ++i) CHECK(ranges[i - 1].second <= ranges[i].first);
}

}  // namespace
}  // namespace toaster

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace toaster;
  const std::span bytes(reinterpret_cast<const std::byte*>(data), size);
  try {
    CheckSound(SafetensorsFile(bytes, "fuzz"));
  } catch (const Error& error) {
    CHECK(std::string_view(error.what()).find('\n') == std::string_view::npos);
  }
  DefectList defects;
  try {
    CheckSound(SafetensorsFile(bytes, "fuzz", &defects));
  } catch (const Error&) {
  }
  for (const std::string& defect : defects) CHECK(defect.find('\n') == std::string::npos);
  return 0;
}
