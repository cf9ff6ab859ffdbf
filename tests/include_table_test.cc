// Who may include whom: reads every #include line of src/ and fails on one that ARCHITECTURE.md's
// table does not allow.

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <string>

namespace toaster {
namespace {

namespace fs = std::filesystem;

// What each folder may include besides itself; what lies below an allowed one comes along.
const std::map<std::string, std::set<std::string>> kAllowed = {
    {"base", {}},
    {"tensor", {"base"}},
    {"backend", {"tensor"}},
    {"communicator", {"tensor"}},
    {"model", {"backend", "communicator"}},
    {"checkpoint", {"model"}},
    {"tokenizer", {"base"}},
    {"chat", {"tokenizer"}},
    {"engine", {"model", "checkpoint"}},
    {"server", {"engine", "chat"}},
    {"evaluation", {"engine", "chat"}},
    {"train", {"model", "checkpoint", "tokenizer", "chat"}},
    {"apps", {"server", "evaluation", "train", "engine", "chat", "tokenizer", "checkpoint"}},
};

void AddAllowed(const std::string& folder, std::set<std::string>& allowed) {
  if (!allowed.insert(folder).second) return;
  for (const std::string& below : kAllowed.at(folder)) AddAllowed(below, allowed);
}

TEST(IncludeTableTest, FoldersIncludeOnlyWhatTheyMay) {
  const fs::path source = fs::path(TOASTER_SOURCE_DIR) / "src";
  int lines = 0;
  for (const fs::directory_entry& entry : fs::recursive_directory_iterator(source)) {
    const fs::path relative = fs::relative(entry.path(), source);
    const std::string extension = entry.path().extension().string();
    if (extension != ".cc" && extension != ".h") continue;
    const std::string folder = relative.begin()->string();
    ASSERT_TRUE(kAllowed.contains(folder))
        << folder << " is no folder of the table; add it here and in ARCHITECTURE.md";
    std::set<std::string> allowed;
    AddAllowed(folder, allowed);
    std::ifstream file(entry.path());
    for (std::string line; std::getline(file, line);) {
      if (line.rfind("#include \"", 0) != 0) continue;
      ++lines;
      const std::string path = line.substr(10, line.find('"', 10) - 10);
      const std::string included = path.substr(0, path.find('/'));
      EXPECT_TRUE(fs::exists(source / path))
          << relative << " includes " << path << "; name it from src/ on";
      EXPECT_TRUE(allowed.contains(included)) << relative << " includes " << path << ", but "
                                              << folder << " may not include " << included;
      // A backend's own files are named by nobody but itself and the registry.
      for (const std::string backend : {"backend/reference/", "backend/cpu/"}) {
        if (path.rfind(backend, 0) != 0) continue;
        const bool own = relative.string().rfind(backend, 0) == 0;
        EXPECT_TRUE(own || relative.string().rfind("backend/registry", 0) == 0)
            << relative << " includes " << path << "; only backend/registry names a backend";
      }
    }
  }
  EXPECT_GT(lines, 100) << "the test reads no files";
}

}  // namespace
}  // namespace toaster
