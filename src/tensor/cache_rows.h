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

/// A page of rows that is read when it is first needed, and then stays. Shared by the copies of a
/// list. One thread at a time.
class LazyPage {
 public:
  virtual ~LazyPage() = default;
  /// The rows. Throws what Load() throws, and from then on is failed().
  const std::shared_ptr<uint8_t[]>& Get();
  /// Null while nothing needed them.
  const std::shared_ptr<uint8_t[]>& loaded() const { return rows_; }
  bool failed() const { return failed_; }

 protected:
  virtual std::shared_ptr<uint8_t[]> Load() = 0;

 private:
  std::shared_ptr<uint8_t[]> rows_;
  bool failed_ = false;
};

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
  /// Reads the page of `row`, or every page, if that has not happened. Throws what LazyPage throws.
  void Need(int64_t row) const {
    if (!lazy_.empty()) NeedPage(static_cast<size_t>(row / rows_per_page_));
  }
  void NeedAll() const;
  bool lazy() const { return !lazy_.empty(); }
  /// Whether a lazy page could not be read.
  bool failed() const;
  /// Rows that follow `row` without a gap in memory, itself included; at most size() - row.
  int64_t RunLength(int64_t row) const;
  /// Adds a row and returns its bytes to be filled.
  uint8_t* Append();
  /// Adds a page of rows that is whole. The list has to end with a whole page.
  void AppendPage(std::shared_ptr<uint8_t[]> page);
  void AppendPage(std::shared_ptr<LazyPage> page);
  /// Forgets all rows from `size` on, which is at most size(), and the pages that held nothing
  /// else.
  void Truncate(int64_t size);
  int64_t page_bytes() const { return rows_per_page_ * row_bytes_; }
  int64_t rows_per_page() const { return rows_per_page_; }
  /// Of pages that are in memory.
  int64_t allocated_bytes() const;
  /// The pages themselves, to count those that copies share; null where one is not in memory.
  std::vector<const uint8_t*> pages() const;

 private:
  void NeedPage(size_t page) const;

  int64_t row_bytes_ = 0;
  int64_t rows_per_page_ = 1;
  int64_t size_ = 0;
  mutable std::vector<std::shared_ptr<uint8_t[]>> pages_;  // null: lazy_ has it
  std::vector<std::shared_ptr<LazyPage>> lazy_;  // empty, or of the first pages; null: not lazy
};

}  // namespace toaster
