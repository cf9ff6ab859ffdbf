#include "checkpoint/safetensors.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>

#include "base/printable.h"
#include "checkpoint/safetensors_header.h"

namespace toaster {
namespace {

struct TypeRow {
  std::string_view name;
  int64_t size;
};

// In the order of StoredType.
constexpr std::array<TypeRow, 16> kTypes = {{{"BOOL", 1},
                                             {"U8", 1},
                                             {"I8", 1},
                                             {"F8_E4M3", 1},
                                             {"F8_E5M2", 1},
                                             {"F8_E8M0", 1},
                                             {"U16", 2},
                                             {"I16", 2},
                                             {"F16", 2},
                                             {"BF16", 2},
                                             {"U32", 4},
                                             {"I32", 4},
                                             {"F32", 4},
                                             {"U64", 8},
                                             {"I64", 8},
                                             {"F64", 8}}};

StoredType TypeFromName(const HeaderEntry& entry, const std::string& origin) {
  for (size_t i = 0; i < kTypes.size(); ++i) {
    if (kTypes[i].name == entry.dtype) return static_cast<StoredType>(i);
  }
  throw Error(ErrorCode::kUnsupported,
              fmt::format("{}: tensor '{}' has the unknown type '{}'; a newer version of this "
                          "program may know it",
                          origin, Printable(entry.name), Printable(entry.dtype)));
}

// Shape product times element size; -1 if that is beyond int64_t.
int64_t ByteCount(const std::vector<int64_t>& shape, StoredType type) {
  int64_t count = StoredTypeSize(type);
  if (std::find(shape.begin(), shape.end(), 0) != shape.end()) return 0;
  for (const int64_t extent : shape) {
    if (__builtin_mul_overflow(count, extent, &count)) return -1;
  }
  return count;
}

// The tensor an entry describes, without data. `data_start` is the offset of the data in the file.
StoredTensor Describe(HeaderEntry&& entry, int64_t data_start, const std::string& origin) {
  StoredTensor tensor;
  tensor.type = TypeFromName(entry, origin);
  tensor.name = std::move(entry.name);
  tensor.shape = std::move(entry.shape);
  tensor.bytes = ByteCount(tensor.shape, tensor.type);
  int64_t end = 0;
  if (entry.begin > entry.end || tensor.bytes != entry.end - entry.begin ||
      __builtin_add_overflow(data_start, entry.end, &end)) {
    throw Error(
        ErrorCode::kCorruptFile,
        fmt::format("{}: tensor '{}', {}, has the range {} to {}, which is not its size; "
                    "download the file again",
                    origin, Printable(tensor.name), tensor.Description(), entry.begin, entry.end));
  }
  tensor.offset = end - tensor.bytes;
  return tensor;
}

}  // namespace

std::string_view StoredTypeName(StoredType type) { return kTypes[static_cast<size_t>(type)].name; }
int64_t StoredTypeSize(StoredType type) { return kTypes[static_cast<size_t>(type)].size; }

std::string StoredTensor::Description() const {
  return fmt::format("{} [{}]", StoredTypeName(type), fmt::join(shape, ", "));
}

SafetensorsFile::SafetensorsFile(const std::filesystem::path& path, DefectList* defects)
    : mapping_(path), bytes_(mapping_.bytes()), origin_(path.string()) {
  ReadHeader(defects);
}

SafetensorsFile::SafetensorsFile(std::span<const std::byte> bytes, const std::string& origin,
                                 DefectList* defects)
    : bytes_(bytes), origin_(origin) {
  ReadHeader(defects);
}

const StoredTensor* SafetensorsFile::Find(std::string_view name) const {
  const auto found = std::lower_bound(
      tensors_.begin(), tensors_.end(), name,
      [](const StoredTensor& tensor, std::string_view wanted) { return tensor.name < wanted; });
  return found == tensors_.end() || found->name != name ? nullptr : &*found;
}

void SafetensorsFile::ReadHeader(DefectList* defects) {
  const std::string_view header = HeaderText(bytes_, origin_);
  const auto data_start = static_cast<int64_t>(8 + header.size());
  for (HeaderEntry& entry : ParseHeader(header, origin_)) {
    tensors_.push_back(Describe(std::move(entry), data_start, origin_));
  }
  std::sort(tensors_.begin(), tensors_.end(),
            [](const StoredTensor& a, const StoredTensor& b) { return a.name < b.name; });
  for (size_t i = 1; i < tensors_.size(); ++i) {
    if (tensors_[i].name == tensors_[i - 1].name) {
      throw Error(ErrorCode::kCorruptFile,
                  fmt::format("{}: tensor '{}' stands twice in the header; download the file again",
                              origin_, Printable(tensors_[i].name)));
    }
  }
  PlaceTensors(data_start, defects);
}

void SafetensorsFile::PlaceTensors(int64_t data_start, DefectList* defects) {
  std::vector<StoredTensor*> order;
  order.reserve(tensors_.size());
  for (StoredTensor& tensor : tensors_) order.push_back(&tensor);
  std::sort(order.begin(), order.end(), [](const StoredTensor* a, const StoredTensor* b) {
    return a->offset != b->offset ? a->offset < b->offset : a->bytes < b->bytes;
  });
  const auto size = static_cast<int64_t>(bytes_.size());
  const auto note = [&](const std::string& message) {
    if (defects != nullptr) defects->push_back(message);
  };
  int64_t end = data_start;
  const StoredTensor* before = nullptr;
  for (StoredTensor* tensor : order) {
    if (tensor->offset + tensor->bytes > size) {
      ReportDefect(
          defects, ErrorCode::kCorruptFile,
          fmt::format("{}: tensor '{}' ends at byte {}, but the file has {}; it is cut "
                      "short, download it again",
                      origin_, Printable(tensor->name), tensor->offset + tensor->bytes, size));
      end = size;
      continue;
    }
    if (tensor->offset < end && tensor->bytes > 0) {
      ReportDefect(defects, ErrorCode::kCorruptFile,
                   fmt::format("{}: tensors '{}' and '{}' overlap; download the file again",
                               origin_, Printable(before->name), Printable(tensor->name)));
      continue;
    }
    if (tensor->offset > end) {
      note(
          fmt::format("{}: {} bytes in front of tensor '{}' belong to no tensor; download the "
                      "file again",
                      origin_, tensor->offset - end, Printable(tensor->name)));
    }
    tensor->data = reinterpret_cast<const uint8_t*>(bytes_.data()) + tensor->offset;
    end = std::max(end, tensor->offset + tensor->bytes);
    before = tensor;
  }
  if (end < size) {
    note(fmt::format("{}: the last {} bytes belong to no tensor; download the file again", origin_,
                     size - end));
  }
  const auto broken = [](const StoredTensor& tensor) { return tensor.data == nullptr; };
  for (const StoredTensor& tensor : tensors_) {
    if (broken(tensor)) broken_names_.push_back(tensor.name);
  }
  std::erase_if(tensors_, broken);
}

}  // namespace toaster
