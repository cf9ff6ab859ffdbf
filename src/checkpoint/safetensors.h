#pragma once

// One file in the safetensors format: eight bytes of header length (little-endian), a JSON header
// {name: {"dtype", "shape", "data_offsets": [begin, end]}}, then the data the offsets count from.
// docs/formats/checkpoint.md describes the format as this project reads and writes it.

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/mapped_file.h"
#include "checkpoint/defects.h"

namespace toaster {

/// The element types of the format.
enum class StoredType {
  kBool,
  kU8,
  kI8,
  kF8E4m3,
  kF8E5m2,
  kF8E8m0,
  kU16,
  kI16,
  kF16,
  kBf16,
  kU32,
  kI32,
  kF32,
  kU64,
  kI64,
  kF64,
};

/// As the header spells it: "BF16", "F8_E4M3", ...
std::string_view StoredTypeName(StoredType type);
/// Bytes of one element.
int64_t StoredTypeSize(StoredType type);

/// A tensor of a file, seen in place. Owns its description, not its data.
struct StoredTensor {
  std::string name;
  StoredType type = StoredType::kU8;
  std::vector<int64_t> shape;
  int64_t offset = 0;             ///< of the first byte, from the start of the file
  int64_t bytes = 0;              ///< shape product times element size
  const uint8_t* data = nullptr;  ///< any alignment; `bytes` of it lie inside the file

  /// "F8_E4M3 [1024, 4096]".
  std::string Description() const;
};

/// A safetensors file, mapped or in memory. Owns the mapping; the tensors point into it. Opening
/// reads the header alone. Safe to read from any thread.
class SafetensorsFile {
 public:
  /// Maps the file. Throws Error(kNotFound), Error(kIo) or what the other constructor throws.
  explicit SafetensorsFile(const std::filesystem::path& path, DefectList* defects = nullptr);

  /// Reads the header of `bytes`, which have to outlive this object. `origin` names them in
  /// messages.
  ///
  /// Throws Error(kCorruptFile) if the header is cut, is no such JSON, names a tensor twice or
  /// describes one whose shape, type and range disagree, and Error(kUnsupported) for an unknown
  /// type. Tensors that reach beyond the file or overlap are errors too; with `defects` they are
  /// listed there and left out, and so are bytes that belong to no tensor, which are otherwise
  /// tolerated.
  SafetensorsFile(std::span<const std::byte> bytes, const std::string& origin,
                  DefectList* defects = nullptr);

  /// Sorted by name.
  const std::vector<StoredTensor>& tensors() const { return tensors_; }
  /// Null if there is none of that name.
  const StoredTensor* Find(std::string_view name) const;
  /// Tensors of the header that were left out because of a defect.
  const std::vector<std::string>& broken_names() const { return broken_names_; }
  /// The whole file.
  std::span<const std::byte> bytes() const { return bytes_; }
  const std::string& origin() const { return origin_; }

 private:
  void ReadHeader(DefectList* defects);
  void PlaceTensors(int64_t data_start, DefectList* defects);

  MappedFile mapping_;
  std::span<const std::byte> bytes_;
  std::string origin_;
  std::vector<StoredTensor> tensors_;
  std::vector<std::string> broken_names_;
};

}  // namespace toaster
