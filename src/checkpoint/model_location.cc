#include "checkpoint/model_location.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <fstream>
#include <optional>
#include <string_view>

#include "base/error.h"
#include "base/printable.h"

namespace toaster {
namespace {

namespace fs = std::filesystem;

// A variable's value with a leading ~ replaced; nothing if it is unset or empty.
std::optional<fs::path> PathVariable(const char* name) {
  const char* value = std::getenv(name);
  if (value == nullptr || *value == '\0') return std::nullopt;
  const std::string_view text = value;
  const char* home = std::getenv("HOME");
  if (home != nullptr && (text == "~" || text.starts_with("~/"))) {
    return fs::path(home + std::string(text.substr(1)));
  }
  return fs::path(text);
}

struct Repository {
  std::string organisation;
  std::string name;
  std::string revision;
};

bool IsPlainName(std::string_view name) {
  return !name.empty() && name != "." && name != ".." &&
         std::all_of(name.begin(), name.end(), [](unsigned char c) {
           return std::isalnum(c) != 0 || c == '-' || c == '_' || c == '.';
         });
}

// A revision may be a path ("refs/pr/1"), but leads nowhere outside.
bool IsRevision(const std::string& revision) {
  const fs::path path(revision);
  return !revision.empty() && path.is_relative() &&
         std::all_of(path.begin(), path.end(),
                     [](const fs::path& part) { return part != "." && part != ".."; });
}

// Nothing if `model` has not the form org/name[@revision].
std::optional<Repository> ParseRepository(const std::string& model) {
  Repository repository;
  const size_t at = model.find('@');
  repository.revision = at == std::string::npos ? "main" : model.substr(at + 1);
  const std::string full = model.substr(0, at);
  const size_t slash = full.find('/');
  if (slash == std::string::npos) return std::nullopt;
  repository.organisation = full.substr(0, slash);
  repository.name = full.substr(slash + 1);
  if (!IsPlainName(repository.organisation) || !IsPlainName(repository.name) ||
      !IsRevision(repository.revision)) {
    return std::nullopt;
  }
  return repository;
}

// The snapshot of a revision below models--org--name; nothing if there is none.
std::optional<fs::path> FindSnapshot(const fs::path& models, const std::string& revision) {
  std::error_code ignored;
  std::ifstream reference(models / "refs" / revision);
  std::string commit;
  if (!(reference >> commit) || !IsPlainName(commit)) commit = revision;
  const fs::path snapshot = models / "snapshots" / commit;
  if (!fs::is_directory(snapshot, ignored)) return std::nullopt;
  return snapshot;
}

}  // namespace

std::vector<fs::path> HuggingFaceCaches() {
  std::vector<fs::path> caches;
  if (const auto cache = PathVariable("HF_HUB_CACHE")) caches.push_back(*cache);
  if (const auto home = PathVariable("HF_HOME")) caches.push_back(*home / "hub");
  if (const auto cache = PathVariable("XDG_CACHE_HOME")) {
    caches.push_back(*cache / "huggingface" / "hub");
  }
  if (const auto home = PathVariable("HOME")) {
    caches.push_back(*home / ".cache" / "huggingface" / "hub");
  }
  return caches;
}

fs::path FindModel(const std::string& model) {
  std::error_code ignored;
  fs::path path(model);
  if (fs::is_directory(path, ignored)) return path;
  if (fs::exists(path, ignored)) {
    if (path.extension() == ".safetensors" || path.extension() == ".json") {
      return path.has_parent_path() ? path.parent_path() : fs::path(".");
    }
    throw Error(ErrorCode::kNotFound,
                fmt::format("{}: not a model; name its directory", Printable(model)));
  }
  const std::optional<Repository> repository = ParseRepository(model);
  if (!repository) {
    throw Error(ErrorCode::kNotFound,
                fmt::format("{}: no such directory; name a model's directory or org/name in the "
                            "Hugging Face cache",
                            Printable(model)));
  }
  std::vector<std::string> looked;
  for (const fs::path& cache : HuggingFaceCaches()) {
    const fs::path models =
        cache / fmt::format("models--{}--{}", repository->organisation, repository->name);
    if (const auto snapshot = FindSnapshot(models, repository->revision)) return *snapshot;
    looked.push_back((models / "snapshots").string());
  }
  throw Error(ErrorCode::kNotFound,
              fmt::format("{}: no such directory, and no revision '{}' of it in the Hugging Face "
                          "cache (looked in {}); download it there or name a directory",
                          Printable(model), repository->revision, fmt::join(looked, ", ")));
}

}  // namespace toaster
