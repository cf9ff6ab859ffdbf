#include "train/training_log.h"

#include <fmt/format.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/new_file.h"

namespace toaster {

namespace {

namespace fs = std::filesystem;

[[noreturn]] void Refused(const fs::path& path, const char* what) {
  throw Error(ErrorCode::kIo, fmt::format("{}: {}: {}", path.string(), what, std::strerror(errno)));
}

}  // namespace

std::vector<std::string> TrainingLog::Lines(const fs::path& path) {
  std::ifstream stream(path, std::ios::binary);
  if (!stream) {
    throw Error(ErrorCode::kNotFound,
                fmt::format("{}: is not there; give the output folder of a run", path.string()));
  }
  std::vector<std::string> lines;
  std::string line;
  while (std::getline(stream, line)) {
    if (nlohmann::json::accept(line)) lines.push_back(line);
  }
  return lines;
}

TrainingLog::TrainingLog(const fs::path& path, int64_t step) : path_(path) { Rewind(step); }

void TrainingLog::Rewind(int64_t step) {
  std::string kept;
  if (fs::exists(path_)) {
    for (const std::string& line : Lines(path_)) {
      const auto json = nlohmann::json::parse(line);
      if (json.is_object() && json.value("step", int64_t{0}) <= step) kept += line + "\n";
    }
  }
  WriteWholeFile(path_, kept);
  file_.reset(std::fopen(path_.c_str(), "a"));
  if (!file_) Refused(path_, "cannot be written");
  last_step_ = step;
}

void TrainingLog::Append(const StepReport& report) {
  if (report.step <= last_step_) Rewind(report.step - 1);
  last_step_ = report.step;
  const LossValues& losses = report.losses;
  nlohmann::ordered_json json = {{"step", report.step},
                                 {"stage", report.stage + 1},
                                 {"loss", losses.total},
                                 {"ce", losses.ce},
                                 {"mtp", losses.mtp},
                                 {"balance", losses.balance},
                                 {"index", losses.index},
                                 {"learning_rate", report.rate},
                                 {"gradient_norm", report.gradient_norm},
                                 {"busiest_expert", report.busiest_expert},
                                 {"tokens", report.tokens},
                                 {"seconds", report.seconds}};
  if (report.validation) json["validation"] = *report.validation;
  const std::string line = json.dump() + "\n";
  if (std::fwrite(line.data(), 1, line.size(), file_.get()) != line.size() ||
      std::fflush(file_.get()) != 0) {
    Refused(path_, "cannot be written");
  }
}

}  // namespace toaster
