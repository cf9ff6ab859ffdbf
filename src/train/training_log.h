#pragma once

#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "train/trainer.h"

namespace toaster {

/// The log of a run, a JSON object per step and line (docs/formats/training.md). Lines are written
/// whole and reach the system at once; a half one at the end of the file, which a kill may leave,
/// is dropped.
class TrainingLog {
 public:
  /// Opens or makes the file and drops what it has beyond `step`, since those steps are done again.
  /// Throws Error(kIo) naming the file.
  TrainingLog(const std::filesystem::path& file, int64_t step);
  /// A step that was written before replaces what has been since. Throws Error(kIo) if the disk is
  /// full.
  void Append(const StepReport& report);

  /// The lines of a log that are whole. Throws Error(kNotFound).
  static std::vector<std::string> Lines(const std::filesystem::path& file);

 private:
  void Rewind(int64_t step);

  struct Close {
    void operator()(FILE* file) const { std::fclose(file); }
  };
  std::filesystem::path path_;
  std::unique_ptr<FILE, Close> file_;
  int64_t last_step_ = 0;
};

}  // namespace toaster
