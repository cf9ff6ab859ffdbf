#pragma once

// Rows of a KV cache: the compact, lossless forms (docs/formats/cache_entry.md) and the paged store
// that holds them.

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

namespace toaster {

/// Shape of one attention entry: `plain` numbers that are quantised, then `rotary` numbers that are
/// not.
struct EntryShape {
  int64_t plain = 0;   ///< a multiple of 64
  int64_t rotary = 0;  ///< even
  int64_t width() const { return plain + rotary; }
};

/// Bytes of a compact entry: a code per plain number, two bytes per rotary number, the scale bytes
/// padded to 8.
int64_t EntryBytes(EntryShape shape);
/// Bytes of a compact indexer key of `width` numbers: half a byte each and a scale byte per 32.
int64_t KeyBytes(int64_t width);

/// Quantises `values` (BF16 values): E4M3 in blocks of 64 on the plain part (section 11.4),
/// BF16 on the rest.
void EncodeEntry(const float* values, EntryShape shape, uint8_t* entry);
/// The exact values that EncodeEntry stored.
void DecodeEntry(const uint8_t* entry, EntryShape shape, float* values);

/// Quantises `values` to E2M1 in blocks of 32; low nibble first, then the scale bytes.
void EncodeKey(const float* values, int64_t width, uint8_t* key);
void DecodeKey(const uint8_t* key, int64_t width, float* values);

/// A growing list of rows of equal size, in pages, so that growth moves nothing and costs at most
/// one page more than is used. A copy shares the pages; whoever adds to a shared page first makes
/// it its own. One thread may append while none reads; copies belong to the same thread.
class PagedRows {
 public:
  PagedRows() = default;
  PagedRows(int64_t row_bytes, int64_t rows_per_page)
      : row_bytes_(row_bytes), rows_per_page_(rows_per_page) {}

  int64_t row_bytes() const { return row_bytes_; }
  int64_t size() const { return size_; }
  const uint8_t* Row(int64_t row) const {
    return pages_[static_cast<size_t>(row / rows_per_page_)].get() +
           row % rows_per_page_ * row_bytes_;
  }
  /// Rows that follow `row` without a gap in memory, itself included; at most size() - row.
  int64_t RunLength(int64_t row) const;
  /// Adds a row and returns its bytes to be filled.
  uint8_t* Append();
  /// Forgets all rows from `size` on, which is at most size(), and the pages that held nothing
  /// else.
  void Truncate(int64_t size);
  int64_t page_bytes() const { return rows_per_page_ * row_bytes_; }
  int64_t allocated_bytes() const { return static_cast<int64_t>(pages_.size()) * page_bytes(); }
  /// The pages themselves, to count those that copies share.
  std::span<const std::shared_ptr<uint8_t[]>> pages() const { return pages_; }

 private:
  int64_t row_bytes_ = 0;
  int64_t rows_per_page_ = 1;
  int64_t size_ = 0;
  std::vector<std::shared_ptr<uint8_t[]>> pages_;
};

}  // namespace toaster
