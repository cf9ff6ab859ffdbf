// The kernel files are compiled for other instruction sets than the rest of the program. Whatever
// they shared with it, the linker could take from them, and the program would then crash on older
// processors: so each may define its table's accessor and nothing else that others can see, and it
// may need no C++ function of others.

#include <gtest/gtest.h>

#include <array>
#include <cctype>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

namespace toaster {
namespace {

struct Symbol {
  char type;         ///< nm's letter
  std::string name;  ///< mangled
};

std::vector<Symbol> SymbolsOf(const std::filesystem::path& object) {
  const std::string command = "nm '" + object.string() + "'";
  const std::unique_ptr<FILE, int (*)(FILE*)> pipe(popen(command.c_str(), "r"), pclose);
  std::string text;
  std::array<char, 4096> buffer;
  while (const size_t count = std::fread(buffer.data(), 1, buffer.size(), pipe.get())) {
    text.append(buffer.data(), count);
  }
  std::vector<Symbol> symbols;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    // "<address or blanks> <letter> <name>"
    const size_t name = line.rfind(' ');
    symbols.push_back({line.at(name - 1), line.substr(name + 1)});
  }
  return symbols;
}

std::filesystem::path ObjectFile(const std::string& source) {
  for (const auto& entry :
       std::filesystem::recursive_directory_iterator(TOASTER_BINARY_DIR "/CMakeFiles")) {
    if (entry.path().filename() == source + ".o" &&
        entry.path().parent_path().filename() == "kernels") {
      return entry.path();
    }
  }
  return {};
}

class KernelSymbolsTest : public testing::TestWithParam<std::pair<const char*, const char*>> {};

TEST_P(KernelSymbolsTest, OnlyTheAccessorIsShared) {
  const auto [source, accessor] = GetParam();
  const std::filesystem::path object = ObjectFile(source);
  ASSERT_FALSE(object.empty()) << source << ".o not found";
  bool found = false;
  for (const Symbol& symbol : SymbolsOf(object)) {
    if (symbol.name == accessor) {
      EXPECT_EQ(symbol.type, 'T');
      found = true;
    } else if (symbol.type == 'U') {
      EXPECT_FALSE(symbol.name.starts_with("_Z")) << source << " needs " << symbol.name;
    } else {
      // Small letters are local; w, v and u are weak or unique all the same.
      EXPECT_TRUE(std::islower(static_cast<unsigned char>(symbol.type)) && symbol.type != 'w' &&
                  symbol.type != 'v' && symbol.type != 'u')
          << source << " defines " << symbol.type << " " << symbol.name;
    }
  }
  EXPECT_TRUE(found) << accessor;
}

std::vector<std::pair<const char*, const char*>> KernelFiles() {
  return {
    {"portable.cc", "_ZN7toaster7kernels8PortableEv"},
#if defined(__x86_64__)
        {"avx2.cc", "_ZN7toaster7kernels4Avx2Ev"},
        {"avx512_bf16.cc", "_ZN7toaster7kernels10Avx512Bf16Ev"},
        {"avx512_fma.cc", "_ZN7toaster7kernels9Avx512FmaEv"},
        {"avx512_amx.cc", "_ZN7toaster7kernels9Avx512AmxEv"},
#endif
  };
}

INSTANTIATE_TEST_SUITE_P(Files, KernelSymbolsTest, testing::ValuesIn(KernelFiles()));

}  // namespace
}  // namespace toaster
