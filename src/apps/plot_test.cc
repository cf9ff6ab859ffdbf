#include <gmock/gmock.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "apps/draw_chart.h"
#include "apps/program_output.h"
#include "base/error.h"
#include "base/temporary_directory.h"

namespace toaster {
namespace {

using test::RunProgram;
using testing::HasSubstr;
using testing::Not;

constexpr char kReport[] = R"({"runs": [
  {"kind": "prefill", "tokens": 512, "batch": 1, "tokens_per_s": 90, "share_of_limit": 0.7},
  {"kind": "prefill", "tokens": 4096, "batch": 1, "tokens_per_s": 80, "share_of_limit": null},
  {"kind": "decode", "tokens": 16, "depth": 0, "batch": 1, "tokens_per_s": 10, "share_of_limit": 0.8},
  {"kind": "decode", "tokens": 128, "depth": 0, "batch": 8, "tokens_per_s": 40, "share_of_limit": 0.6}
]})";

class Plot : public testing::Test {
 protected:
  std::string Path(const std::string& name) const { return (directory_.path() / name).string(); }
  std::string Write(const std::string& name, const std::string& text) const {
    std::ofstream(Path(name)) << text;
    return Path(name);
  }
  static std::string Read(const std::string& path) {
    std::stringstream text;
    text << std::ifstream(path, std::ios::binary).rdbuf();
    return text.str();
  }

  test::TemporaryDirectory directory_;
};

TEST_F(Plot, DrawsSpeedAndShareOfABenchmark) {
  const std::string report = Write("report.json", kReport), chart = Path("chart.svg");
  const auto output = RunProgram("plot " + report + " -o " + chart);
  EXPECT_EQ(output.exit_code, 0) << output.text;
  EXPECT_EQ(output.text, "");
  const std::string svg = Read(chart);
  EXPECT_THAT(svg, HasSubstr("<svg"));
  EXPECT_THAT(svg, HasSubstr("</svg>"));
  EXPECT_THAT(svg, HasSubstr("Prefill, share of what the machine allows"));
  EXPECT_THAT(svg, HasSubstr("batch 8"));
  EXPECT_FALSE(std::filesystem::exists(chart + ".part"));

  EXPECT_EQ(RunProgram("plot - -o " + Path("chart.png") + " < " + report).exit_code, 0);
  EXPECT_EQ(Read(Path("chart.png")).substr(1, 3), "PNG");
}

TEST_F(Plot, NamesWhatIsWrong) {
  const std::string chart = " -o " + Path("chart.svg");
  EXPECT_THAT(RunProgram("plot " + Write("a", "{}") + chart).text, HasSubstr("has no \"runs\""));
  EXPECT_THAT(
      RunProgram("plot " + Write("b", R"({"runs": [{"kind": "decode", "batch": 1}]})") + chart)
          .text,
      HasSubstr("no number \"depth\""));
  EXPECT_THAT(RunProgram("plot " + Write("c", R"({"runs": [3]})") + chart).text,
              HasSubstr("a run is no object"));
  EXPECT_THAT(RunProgram("plot " + Write("d", "nonsense") + chart).text, HasSubstr("d: "));
  const std::string report = Write("report.json", kReport);
  EXPECT_THAT(RunProgram("plot " + report + " -o " + Path("chart.pdf")).text,
              HasSubstr("charts are .svg or .png files"));
  EXPECT_THAT(RunProgram("plot " + report + " -o " + Path("missing/chart.svg")).text,
              HasSubstr("its folder exists"));
  EXPECT_THAT(RunProgram("plot " + report + chart + " 2>&1; true").text,
              Not(HasSubstr("toaster:")));
}

TEST_F(Plot, KeepsAnEarlierChartWhenDrawingFails) {
  const std::string chart = Write("chart.svg", "earlier");
  // A line without points is more than gnuplot draws.
  EXPECT_THROW(DrawChart({{"empty", "x", "y", false, false, true, {{"none", {}}}}}, chart), Error);
  EXPECT_EQ(Read(chart), "earlier");
  EXPECT_FALSE(std::filesystem::exists(chart + ".part"));
}

TEST_F(Plot, TakesAnyTextAsNames) {
  const std::string name = "it's $HOME `ls` \"quoted\" {/Bold x}\nnext";
  DrawChart({{name, name, name, false, false, true, {{name, {{0, 1}, {1, 2}}}}}}, Path("a.svg"));
  EXPECT_THAT(Read(Path("a.svg")), HasSubstr("$HOME `ls`"));
}

}  // namespace
}  // namespace toaster
