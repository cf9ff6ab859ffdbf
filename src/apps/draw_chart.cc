#include "apps/draw_chart.h"

#include <fmt/format.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <string_view>

#include "base/error.h"

namespace toaster {

namespace {

// Text between single quotes, in which gnuplot expands nothing. The terminals' markup is off.
std::string Quoted(std::string_view text) {
  std::string quoted = "'";
  for (const char c : text) {
    if (c == '\'') quoted += '\'';
    quoted += c == '\n' ? ' ' : c;
  }
  return quoted + "'";
}

// A range for an axis whose numbers are all equal: gnuplot complains before it makes up its own.
std::string RangeOf(const Panel& panel, const char* axis,
                    double std::pair<double, double>::*number) {
  double least = INFINITY, most = -INFINITY;
  for (const Series& series : panel.series) {
    for (const auto& point : series.points) {
      least = std::min(least, point.*number);
      most = std::max(most, point.*number);
    }
  }
  if (least != most) return "";
  const double margin = least == 0 ? 1 : std::abs(least) / 2;
  return fmt::format("set {}range [{}:{}]\n", axis, least - margin, most + margin);
}

std::string Script(const std::vector<Panel>& panels, const std::string& terminal,
                   const std::string& output) {
  constexpr int kWidth = 560, kHeight = 380;
  const size_t columns = std::min<size_t>(panels.size(), 2), rows = (panels.size() + 1) / 2;
  std::string script = fmt::format(
      "set terminal {} noenhanced size {},{} background '#ffffff'\n"
      "set output {}\n"
      "set multiplot layout {},{}\n"
      "set grid\nset border 3\nset tics nomirror\nset key outside bottom center horizontal\n",
      terminal, kWidth * columns, kHeight * rows, Quoted(output), rows, columns);
  size_t block = 0;
  for (const Panel& panel : panels) {
    std::string plots;
    for (const Series& series : panel.series) {
      script += fmt::format("$data{} << END_OF_DATA\n", block);
      for (const auto& [x, y] : series.points) script += fmt::format("{} {}\n", x, y);
      script += "END_OF_DATA\n";
      // Many points would hide the line.
      const bool many = series.points.size() > 100;
      plots += fmt::format(
          "{}$data{} using 1:2 with {} linewidth {} title {}", plots.empty() ? "plot " : ", ",
          block++, many ? "lines" : "linespoints pointtype 7", many ? 1 : 2, Quoted(series.name));
    }
    script += fmt::format(
        "set title {}\nset xlabel {}\nset ylabel {}\nunset logscale\nset autoscale\n"
        "set offsets graph 0.02, graph 0.02, graph 0.05, 0\n",
        Quoted(panel.title), Quoted(panel.x_label), Quoted(panel.y_label));
    script += RangeOf(panel, "x", &std::pair<double, double>::first);
    script += RangeOf(panel, "y", &std::pair<double, double>::second);
    // Large numbers as 16k and 1M.
    script += panel.log_x ? "set logscale x 4\nset format x \"%.0s%c\"\n" : "set format x\n";
    if (panel.log_y) script += "set logscale y\n";
    if (panel.y_from_zero && !panel.log_y) script += "set yrange [0:*]\n";
    script += plots + "\n";
  }
  return script + "unset multiplot\nset output\n";
}

int RunGnuplot(const std::string& script_path) {
  const char* const arguments[] = {"gnuplot", script_path.c_str(), nullptr};
  pid_t child = 0;
  const int failure = posix_spawnp(&child, "gnuplot", nullptr, nullptr,
                                   const_cast<char* const*>(arguments), environ);
  if (failure != 0) {
    throw Error(ErrorCode::kUnsupported,
                fmt::format("charts are drawn by gnuplot, which cannot be started ({}); install "
                            "it, on Debian with apt install gnuplot-nox",
                            std::strerror(failure)));
  }
  int status = 0;
  while (waitpid(child, &status, 0) < 0) {
    if (errno != EINTR) return -1;
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

// A file that goes away with its owner.
class TemporaryFile {
 public:
  explicit TemporaryFile(const std::string& text) {
    path_ = (std::filesystem::temp_directory_path() / "toaster-chart-XXXXXX").string();
    const int file = mkstemp(path_.data());
    if (file < 0) {
      throw Error(ErrorCode::kIo, fmt::format("{}: cannot be made: {}; set TMPDIR to a folder that "
                                              "can be written to",
                                              path_, std::strerror(errno)));
    }
    FILE* const stream = fdopen(file, "w");
    const bool whole = std::fwrite(text.data(), 1, text.size(), stream) == text.size();
    if (std::fclose(stream) != 0 || !whole) {
      unlink(path_.c_str());
      throw Error(ErrorCode::kIo, fmt::format("{}: cannot be written: {}; make room there", path_,
                                              std::strerror(errno)));
    }
  }
  ~TemporaryFile() { unlink(path_.c_str()); }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

}  // namespace

void DrawChart(const std::vector<Panel>& panels, const std::filesystem::path& path) {
  const std::string ending = path.extension().string();
  if (ending != ".svg" && ending != ".png") {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("{}: charts are .svg or .png files; name it so", path.string()));
  }
  // Beside its place, then renamed: a chart that was there stays until the new one is whole.
  const std::string part = path.string() + ".part";
  const TemporaryFile script(Script(panels, ending == ".svg" ? "svg" : "pngcairo", part));
  const int exit_code = RunGnuplot(script.path());
  std::error_code failure;
  if (exit_code == 0) std::filesystem::rename(part, path, failure);
  if (exit_code != 0 || failure) {
    std::error_code ignored;
    std::filesystem::remove(part, ignored);
    throw Error(ErrorCode::kIo,
                fmt::format("{}: cannot be written; see that its folder exists and has room",
                            path.string()));
  }
}

}  // namespace toaster
