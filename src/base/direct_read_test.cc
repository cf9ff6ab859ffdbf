#include "base/direct_read.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <cstring>
#include <fstream>
#include <mutex>
#include <vector>

#include "base/error.h"
#include "base/random.h"
#include "base/temporary_directory.h"

namespace toaster {
namespace {

constexpr int64_t kPiece = 16384;

// A file of bytes that differ from place to place; its length is no multiple of a block.
std::vector<char> WriteFile(const std::filesystem::path& path, int64_t size, uint64_t seed) {
  std::vector<char> bytes(static_cast<size_t>(size));
  for (int64_t i = 0; i < size; ++i) {
    bytes[static_cast<size_t>(i)] = static_cast<char>(
        Philox(seed, static_cast<uint64_t>(i / 16), 0)[static_cast<size_t>(i / 4 % 4)] >>
        (8 * (i % 4)));
  }
  std::ofstream(path, std::ios::binary).write(bytes.data(), size);
  return bytes;
}

class DirectReadTest : public testing::TestWithParam<DirectReadMethod> {
 protected:
  DirectReadTest() {
    for (int file = 0; file < 2; ++file) {
      paths_.push_back(directory_.path() / ("shard" + std::to_string(file)));
      contents_.push_back(WriteFile(paths_.back(), 300'001 + file, static_cast<uint64_t>(file)));
    }
  }
  DirectReadOptions Options(int in_flight = 4) const {
    DirectReadOptions options;
    options.method = GetParam();
    options.in_flight = in_flight;
    options.piece_bytes = kPiece;
    return options;
  }
  void ExpectBytes(const DirectReader::Range& range) const {
    EXPECT_EQ(std::memcmp(range.buffer + DirectReader::Shift(range.offset),
                          contents_[static_cast<size_t>(range.file)].data() + range.offset,
                          static_cast<size_t>(range.bytes)),
              0)
        << range.bytes << " bytes at " << range.offset;
  }

  test::TemporaryDirectory directory_;
  std::vector<std::filesystem::path> paths_;
  std::vector<std::vector<char>> contents_;
};

// What went wrong in a job, "" if nothing did.
class Outcome {
 public:
  DirectReader::Done Hook() {
    return [this](const std::exception_ptr& failure) {
      std::string text;
      try {
        if (failure) std::rethrow_exception(failure);
      } catch (const Error& error) {
        text = error.what();
        code_ = error.code();
      }
      const std::lock_guard lock(mutex_);
      texts_.push_back(text);
      wake_.notify_all();
    };
  }
  std::string Wait() {
    std::unique_lock lock(mutex_);
    wake_.wait(lock, [&] { return !texts_.empty(); });
    EXPECT_EQ(texts_.size(), 1u);
    return texts_.front();
  }
  bool told() {
    const std::lock_guard lock(mutex_);
    return !texts_.empty();
  }
  ErrorCode code() const { return code_; }

 private:
  std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<std::string> texts_;
  ErrorCode code_ = ErrorCode::kIo;
};

TEST_P(DirectReadTest, ReadsAnyRangeOfAnyFile) {
  DirectReader reader(paths_, Options());
  EXPECT_EQ(reader.method(), GetParam());
  for (const int64_t offset : {0l, 1l, 4095l, 4096l, 4097l, 100'000l, 299'999l}) {
    for (const int64_t bytes : {1l, 4096l, 4097l, kPiece, 3 * kPiece + 5, 200'000l}) {
      std::vector<DirectReader::Range> ranges;
      ReadMemory memory(2 * DirectReader::BufferBytes(offset, bytes));
      for (int file = 0; file < 2; ++file) {
        const auto size = static_cast<int64_t>(contents_[static_cast<size_t>(file)].size());
        const int64_t count = std::min(bytes, size - offset);
        ranges.push_back(
            {file, offset, count, memory.data() + file * DirectReader::BufferBytes(offset, bytes)});
      }
      reader.Read(ranges);
      for (const DirectReader::Range& range : ranges) ExpectBytes(range);
    }
  }
  EXPECT_GT(reader.figures().bytes, 0);
  EXPECT_GT(reader.figures().busy_seconds, 0);
}

TEST_P(DirectReadTest, ManyJobsAtATime) {
  DirectReader reader(paths_, Options());
  constexpr int kJobs = 64;
  std::vector<ReadMemory> memories;
  std::vector<DirectReader::Range> ranges;
  std::vector<Outcome> outcomes(kJobs);
  for (int i = 0; i < kJobs; ++i) {
    const int64_t offset = 1234 * i, bytes = 50'000 + 700 * i;
    memories.emplace_back(DirectReader::BufferBytes(offset, bytes));
    ranges.push_back({i % 2, offset, bytes, memories.back().data()});
    reader.Start({ranges.back()}, i % 3 == 0, outcomes[static_cast<size_t>(i)].Hook());
  }
  for (int i = 0; i < kJobs; ++i) {
    EXPECT_EQ(outcomes[static_cast<size_t>(i)].Wait(), "");
    ExpectBytes(ranges[static_cast<size_t>(i)]);
  }
}

TEST_P(DirectReadTest, AFailureIsTriedAgain) {
  std::atomic<int> failures = 0;
  DirectReadOptions options = Options();
  options.fault = [&](int64_t offset, bool again) {
    if (offset != 2 * kPiece || again) return 0;
    ++failures;
    return EIO;
  };
  DirectReader reader(paths_, options);
  ReadMemory memory(200'000);
  const DirectReader::Range range{0, 10, 150'000, memory.data()};
  reader.Read({range});
  EXPECT_EQ(failures, 1);
  ExpectBytes(range);
}

TEST_P(DirectReadTest, ASecondFailureNamesFileAndOffset) {
  DirectReadOptions options = Options();
  options.fault = [&](int64_t offset, bool) { return offset == 2 * kPiece ? EIO : 0; };
  DirectReader reader(paths_, options);
  ReadMemory memory(200'000);
  try {
    reader.Read({{1, 10, 150'000, memory.data()}});
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kIo);
    EXPECT_NE(std::string(error.what()).find(paths_[1].string()), std::string::npos);
    EXPECT_NE(std::string(error.what()).find("offset 32768"), std::string::npos) << error.what();
    EXPECT_NE(std::string(error.what()).find(std::strerror(EIO)), std::string::npos);
  }
  // The reader goes on.
  const DirectReader::Range whole{1, 200'000, 50'000, memory.data()};
  reader.Read({whole});
  ExpectBytes(whole);
}

TEST_P(DirectReadTest, ACutFileIsSaid) {
  DirectReader reader(paths_, Options());
  std::filesystem::resize_file(paths_[0], 100'000);
  ReadMemory memory(200'000);
  Outcome outcome;
  reader.Start({{0, 0, 150'000, memory.data()}}, true, outcome.Hook());
  EXPECT_NE(outcome.Wait().find("was cut"), std::string::npos);
  EXPECT_EQ(outcome.code(), ErrorCode::kIo);
}

// The first read is held up; meanwhile others wait behind it, one at a time.
TEST_P(DirectReadTest, UrgentJobsGoFirstAndWaitingOnesCanBeDropped) {
  std::mutex mutex;
  std::condition_variable wake;
  bool held = false, go_on = false;
  std::vector<int64_t> order;
  DirectReadOptions options = Options(1);
  options.fault = [&](int64_t offset, bool) {
    std::unique_lock lock(mutex);
    order.push_back(offset);
    if (offset == 0) {
      held = true;
      wake.notify_all();
      wake.wait(lock, [&] { return go_on; });
    }
    return 0;
  };
  DirectReader reader(paths_, options);
  ReadMemory memory(7 * kPiece);
  std::vector<Outcome> outcomes(6);
  const auto start = [&](int place, int64_t pieces, bool urgent) {
    return reader.Start({{0, place * kPiece, pieces * kPiece, memory.data() + place * kPiece}},
                        urgent, outcomes[static_cast<size_t>(place)].Hook());
  };
  const int64_t first = start(0, 2, true);
  {
    std::unique_lock lock(mutex);
    wake.wait(lock, [&] { return held; });
  }
  const int64_t second = start(2, 1, false);
  const int64_t third = start(3, 1, false);
  start(4, 1, true);
  const int64_t fifth = start(5, 1, false);
  EXPECT_FALSE(reader.Cancel(first));  // half of it is in flight
  EXPECT_TRUE(reader.Cancel(second));
  reader.Hurry(fifth);
  {
    const std::lock_guard lock(mutex);
    go_on = true;
  }
  wake.notify_all();
  EXPECT_NE(outcomes[0].Wait(), "");
  EXPECT_EQ(outcomes[0].code(), ErrorCode::kCancelled);
  for (const size_t place : {3u, 4u, 5u}) EXPECT_EQ(outcomes[place].Wait(), "");
  EXPECT_FALSE(outcomes[2].told());
  EXPECT_FALSE(reader.Cancel(third));  // is over
  EXPECT_EQ(order, (std::vector<int64_t>{0, 4 * kPiece, 5 * kPiece, 3 * kPiece}));
}

TEST_P(DirectReadTest, EndsWithJobsWaiting) {
  ReadMemory memory(16 * kPiece);
  std::vector<Outcome> outcomes(16);
  {
    DirectReader reader(paths_, Options(1));
    for (int i = 0; i < 16; ++i) {
      reader.Start({{0, i * kPiece, kPiece, memory.data() + i * kPiece}}, false,
                   outcomes[static_cast<size_t>(i)].Hook());
    }
  }
  // Each was told once, whole or dropped.
  for (Outcome& outcome : outcomes) {
    ASSERT_TRUE(outcome.told());
    EXPECT_TRUE(outcome.Wait().empty() || outcome.code() == ErrorCode::kCancelled);
  }
}

TEST_P(DirectReadTest, AMissingFileIsNamed) {
  const std::filesystem::path missing = directory_.path() / "missing";
  try {
    DirectReader reader({paths_[0], missing}, Options());
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kNotFound);
    EXPECT_NE(std::string(error.what()).find(missing.string()), std::string::npos);
  }
}

// Where containers bar io_uring the reader falls back to threads, so its tests would say nothing.
std::vector<DirectReadMethod> TestedMethods() {
  std::vector<DirectReadMethod> methods = {DirectReadMethod::kThreads};
  if (DirectReader({}).method() == DirectReadMethod::kRing)
    methods.push_back(DirectReadMethod::kRing);
  return methods;
}

INSTANTIATE_TEST_SUITE_P(Methods, DirectReadTest, testing::ValuesIn(TestedMethods()),
                         [](const auto& parameter) {
                           return parameter.param == DirectReadMethod::kRing ? "Ring" : "Threads";
                         });

}  // namespace
}  // namespace toaster
