#pragma once

// Charts as files, drawn by the program gnuplot.

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

namespace toaster {

/// One line of a panel: points (x, y), joined in their order.
struct Series {
  std::string name;
  std::vector<std::pair<double, double>> points;
};

/// One system of axes. An axis with `log` needs positive numbers on it.
struct Panel {
  std::string title;
  std::string x_label, y_label;
  bool log_x = false, log_y = false;
  bool y_from_zero = true;
  std::vector<Series> series;
};

/// Draws the panels, two in a row, to `path`, an .svg or .png file. Throws Error(kInvalidArgument)
/// for another ending, Error(kUnsupported) if gnuplot is not installed, and Error(kIo) if
/// the file cannot be written; no file is left then.
void DrawChart(const std::vector<Panel>& panels, const std::filesystem::path& path);

}  // namespace toaster
