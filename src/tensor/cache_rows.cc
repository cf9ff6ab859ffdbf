#include "tensor/cache_rows.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "tensor/number_formats.h"

namespace toaster {

namespace {

constexpr int64_t kEntryBlock = 64;
constexpr int64_t kKeyBlock = 32;

float MaxMagnitude(const float* values, int64_t n, float floor) {
  float amax = floor;
  for (int64_t i = 0; i < n; ++i) amax = std::max(amax, std::fabs(values[i]));
  return amax;
}

// x / 2^(byte-127), exact: the quotient's power of two stays in float's range for every scale the
// quantiser makes.
float Unscale(float x, uint8_t byte) { return x / E8m0ToFloat(byte); }

}  // namespace

int64_t EntryBytes(EntryShape shape) {
  return shape.plain + 2 * shape.rotary + (shape.plain / kEntryBlock + 7) / 8 * 8;
}

int64_t KeyBytes(int64_t width) { return width / 2 + width / kKeyBlock; }

void EncodeEntry(const float* values, EntryShape shape, uint8_t* entry) {
  uint8_t* rotary = entry + shape.plain;
  uint8_t* scales = rotary + 2 * shape.rotary;
  std::fill(scales, entry + EntryBytes(shape), uint8_t{0});
  for (int64_t block = 0; block < shape.plain / kEntryBlock; ++block) {
    const float* x = values + block * kEntryBlock;
    const uint8_t scale =
        BlockScaleByte(MaxMagnitude(x, kEntryBlock, kE4m3AmaxFloor), kE4m3InverseMax);
    scales[block] = scale;
    for (int64_t i = 0; i < kEntryBlock; ++i) {
      entry[block * kEntryBlock + i] = FloatToE4m3(Unscale(x[i], scale));
    }
  }
  for (int64_t i = 0; i < shape.rotary; ++i) {
    const uint16_t bits = FloatToBf16(values[shape.plain + i]);
    std::memcpy(rotary + 2 * i, &bits, 2);
  }
}

void DecodeEntry(const uint8_t* entry, EntryShape shape, float* values) {
  const uint8_t* rotary = entry + shape.plain;
  const uint8_t* scales = rotary + 2 * shape.rotary;
  for (int64_t i = 0; i < shape.plain; ++i) {
    values[i] = E4m3ToFloat(entry[i]) * E8m0ToFloat(scales[i / kEntryBlock]);
  }
  for (int64_t i = 0; i < shape.rotary; ++i) {
    values[shape.plain + i] = Bf16ToFloat(LoadUnaligned<uint16_t>(rotary + 2 * i));
  }
}

void EncodeKey(const float* values, int64_t width, uint8_t* key) {
  uint8_t* scales = key + width / 2;
  for (int64_t block = 0; block < width / kKeyBlock; ++block) {
    const float* x = values + block * kKeyBlock;
    const uint8_t scale =
        BlockScaleByte(MaxMagnitude(x, kKeyBlock, kE2m1AmaxFloor), kE2m1InverseMax);
    scales[block] = scale;
    for (int64_t i = 0; i < kKeyBlock; i += 2) {
      key[(block * kKeyBlock + i) / 2] = static_cast<uint8_t>(
          FloatToE2m1(Unscale(x[i], scale)) | FloatToE2m1(Unscale(x[i + 1], scale)) << 4);
    }
  }
}

void DecodeKey(const uint8_t* key, int64_t width, float* values) {
  const uint8_t* scales = key + width / 2;
  for (int64_t i = 0; i < width; ++i) {
    const uint8_t code = i % 2 ? key[i / 2] >> 4 : key[i / 2] & 15;
    values[i] = E2m1ToFloat(code) * E8m0ToFloat(scales[i / kKeyBlock]);
  }
}

const std::shared_ptr<uint8_t[]>& LazyPage::Get() {
  if (rows_ != nullptr) return rows_;
  failed_ = true;  // unless it succeeds
  rows_ = Load();
  failed_ = false;
  return rows_;
}

int64_t PagedRows::RunLength(int64_t row) const {
  return std::min(size_ - row, rows_per_page_ - row % rows_per_page_);
}

void PagedRows::Truncate(int64_t size) {
  CHECK(size >= 0 && size <= size_, "{} of {}", size, size_);
  size_ = size;
  pages_.resize(static_cast<size_t>((size + rows_per_page_ - 1) / rows_per_page_));
  if (lazy_.size() > pages_.size()) lazy_.resize(pages_.size());
}

void PagedRows::NeedPage(size_t page) const {
  if (pages_[page] == nullptr) pages_[page] = lazy_[page]->Get();
}

void PagedRows::NeedAll() const {
  for (size_t page = 0; page < lazy_.size(); ++page) NeedPage(page);
}

bool PagedRows::failed() const {
  return std::any_of(lazy_.begin(), lazy_.end(),
                     [](const auto& page) { return page != nullptr && page->failed(); });
}

void PagedRows::AppendPage(std::shared_ptr<uint8_t[]> page) {
  CHECK(size_ == static_cast<int64_t>(pages_.size()) * rows_per_page_, "{} rows", size_);
  pages_.push_back(std::move(page));
  size_ += rows_per_page_;
}

void PagedRows::AppendPage(std::shared_ptr<LazyPage> page) {
  lazy_.resize(pages_.size());
  lazy_.push_back(std::move(page));
  AppendPage(std::shared_ptr<uint8_t[]>());
}

int64_t PagedRows::allocated_bytes() const {
  int64_t bytes = 0;
  for (const uint8_t* page : pages()) bytes += page == nullptr ? 0 : page_bytes();
  return bytes;
}

std::vector<const uint8_t*> PagedRows::pages() const {
  std::vector<const uint8_t*> pages(pages_.size());
  for (size_t i = 0; i < pages.size(); ++i) {
    pages[i] = pages_[i].get();
    if (pages[i] == nullptr) pages[i] = lazy_[i]->loaded().get();
  }
  return pages;
}

uint8_t* PagedRows::Append() {
  if (size_ % rows_per_page_ != 0) Need(size_ - 1);  // a page that is gone on with
  if (size_ == static_cast<int64_t>(pages_.size()) * rows_per_page_) {
    pages_.push_back(std::make_shared<uint8_t[]>(static_cast<size_t>(page_bytes())));
  } else if (pages_.back().use_count() > 1) {
    auto own = std::make_shared<uint8_t[]>(static_cast<size_t>(page_bytes()));
    std::copy_n(pages_.back().get(), size_ % rows_per_page_ * row_bytes_, own.get());
    pages_.back() = std::move(own);
  }
  const int64_t row = size_++;
  return pages_.back().get() + row % rows_per_page_ * row_bytes_;
}

}  // namespace toaster
