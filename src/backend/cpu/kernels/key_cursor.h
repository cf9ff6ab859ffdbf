#pragma once

// Walking over indexer keys in pages. Included by kernel files: everything here is local to them.

#include <cstdint>

#include "backend/cpu/kernels/fetch_ahead.h"
#include "backend/cpu/kernels/kernels.h"

namespace toaster::kernels {

namespace {

/// The keys one after the other, and the last one again and again. Fetches them a page before they
/// are needed.
class KeyCursor {
 public:
  /// `count` is at least 1.
  KeyCursor(const KeyPages& keys, int64_t count, int64_t key_bytes)
      : page_(keys.pages),
        page_keys_(keys.page_keys),
        key_bytes_(key_bytes),
        left_(count - 1),
        left_in_page_(page_keys_),
        key_(*page_) {}

  const uint8_t* Next() {
    const uint8_t* key = key_;
    if (left_ > 0) Advance(1);
    return key;
  }

  /// The next ones at once.
  template <int kCount>
  void Next(const uint8_t* (&keys)[kCount]) {
    if (left_ < kCount || left_in_page_ < kCount) {
      for (const uint8_t*& key : keys) key = Next();
      return;
    }
    for (int i = 0; i < kCount; ++i) keys[i] = key_ + i * key_bytes_;
    Advance(kCount);
  }

 private:
  // At most to the first key of the next page, and not past the last key.
  void Advance(int64_t count) {
    const int64_t bytes = count * key_bytes_;
    if (left_ > page_keys_) {  // there is a key a page further on
      const uint8_t* ahead = page_[1] + (key_ - *page_);
      for (int64_t at = 0; at < bytes; at += 64) __builtin_prefetch(ahead + at, 0, kSecondLevel);
    }
    left_ -= count;
    left_in_page_ -= count;
    key_ += bytes;
    if (left_in_page_ == 0) {
      key_ = *++page_;
      left_in_page_ = page_keys_;
    }
  }

  const uint8_t* const* page_;
  int64_t page_keys_, key_bytes_;
  int64_t left_;  // keys behind this one
  int64_t left_in_page_;
  const uint8_t* key_;
};

}  // namespace

}  // namespace toaster::kernels
