#include "base/mirrored_read.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <cstring>
#include <fstream>
#include <mutex>
#include <string>

#include "base/error.h"
#include "base/random.h"
#include "base/temporary_directory.h"

namespace toaster {
namespace {

TEST(EndsFirstTest, CountsWhatWaitsAndHowFastEachIs) {
  EXPECT_EQ(EndsFirst({0, 0}, {1, 1}, 10), 0u);
  EXPECT_EQ(EndsFirst({10, 0}, {1, 1}, 10), 1u);
  EXPECT_EQ(EndsFirst({0, 0}, {1, 3}, 10), 1u);
  EXPECT_EQ(EndsFirst({0, 15}, {1, 3}, 10), 1u) << "25 / 3 before 10";
  EXPECT_EQ(EndsFirst({0, 21}, {1, 3}, 10), 0u);
  // Many jobs at once: in proportion to the speeds.
  std::vector<double> waiting(2), rates = {1, 3};
  for (int i = 0; i < 400; ++i) waiting[EndsFirst(waiting, rates, 1)] += 1;
  EXPECT_EQ(waiting, (std::vector<double>{100, 300}));
}

constexpr int64_t kBytes = 50'000;
constexpr int64_t kRanges = 40;

class MirroredReadTest : public testing::Test {
 protected:
  MirroredReadTest() {
    std::string bytes(kBytes * kRanges, '\0');
    for (size_t i = 0; i < bytes.size(); ++i)
      bytes[i] = static_cast<char>(Philox(1, i / 4, 0)[i % 4]);
    contents_ = bytes;
    for (const char* name : {"first", "second"}) {
      copies_.push_back({directory_.path() / name});
      std::ofstream(copies_.back()[0], std::ios::binary) << bytes;
    }
  }

  // Reads every range, and says how many came as they should.
  int64_t ReadAll(MirroredReader& reader) {
    const int64_t room = DirectReader::BufferBytes(4095, kBytes);
    const ReadMemory memory(room * kRanges);
    int64_t ended = 0, good = 0;
    for (int64_t i = 0; i < kRanges; ++i) {
      std::byte* buffer = memory.data() + i * room;
      reader.Start({{0, i * kBytes, kBytes, buffer}}, i % 2 == 0,
                   [&, i, buffer](const std::exception_ptr& failure) {
                     const bool same =
                         !failure && std::memcmp(buffer + DirectReader::Shift(i * kBytes),
                                                 contents_.data() + i * kBytes, kBytes) == 0;
                     const std::lock_guard lock(mutex_);
                     good += same;
                     ++ended;
                     wake_.notify_all();
                   });
    }
    std::unique_lock lock(mutex_);
    wake_.wait(lock, [&] { return ended == kRanges; });
    return good;
  }

  test::TemporaryDirectory directory_;
  std::string contents_;
  std::vector<std::vector<std::filesystem::path>> copies_;
  std::mutex mutex_;
  std::condition_variable wake_;
};

TEST_F(MirroredReadTest, BothCopiesAreRead) {
  MirroredReader reader(copies_);
  ASSERT_EQ(reader.copies(), 2u);
  EXPECT_EQ(ReadAll(reader), kRanges);
  EXPECT_GT(reader.figures(0).bytes, 0);
  EXPECT_GT(reader.figures(1).bytes, 0);
  EXPECT_EQ(reader.figures().bytes, reader.figures(0).bytes + reader.figures(1).bytes);
}

TEST_F(MirroredReadTest, WhatOneCopyCannotGiveComesFromTheOther) {
  // The second is cut in the middle.
  std::filesystem::resize_file(copies_[1][0], kBytes * kRanges / 2);
  MirroredReader reader(copies_);
  EXPECT_EQ(ReadAll(reader), kRanges);
}

TEST_F(MirroredReadTest, WhatNoCopyCanGiveFails) {
  for (const auto& copy : copies_) std::filesystem::resize_file(copy[0], kBytes * kRanges / 2);
  MirroredReader reader(copies_);
  EXPECT_EQ(ReadAll(reader), kRanges / 2);
}

TEST_F(MirroredReadTest, EndsWithReadsUnderWay) {
  const ReadMemory memory(DirectReader::BufferBytes(4095, kBytes) * kRanges);
  std::atomic<int64_t> told = 0, dropped = 0;
  {
    DirectReadOptions options;
    options.in_flight = 1;
    options.piece_bytes = DirectReader::kAlignment;
    options.fault = [](int64_t, bool) { return EIO; };  // the other copy is tried meanwhile
    MirroredReader reader(copies_, options);
    for (int64_t i = 0; i < kRanges; ++i) {
      const int64_t job = reader.Start(
          {{0, i * kBytes, kBytes, memory.data() + i * DirectReader::BufferBytes(4095, kBytes)}},
          false, [&](const std::exception_ptr&) { ++told; });
      if (i % 3 == 0) dropped += reader.Cancel(job);
      if (i % 3 == 1) reader.Hurry(job);
    }
  }
  EXPECT_EQ(told + dropped, kRanges) << "each job is told of once, or was dropped";
}

}  // namespace
}  // namespace toaster
