#include "server/web_page.h"

#include <gtest/gtest.h>
#include <openssl/evp.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

namespace toaster {
namespace {

const std::filesystem::path kWeb = std::filesystem::path(TOASTER_SOURCE_DIR) / "web";

std::string ReadFile(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  EXPECT_TRUE(file) << path;
  return {std::istreambuf_iterator<char>(file), {}};
}

// What web/sources_digest.mjs prints.
std::string SourcesDigest() {
  std::vector<std::string> files = {"index.html", "package-lock.json", "package.json",
                                    "tsconfig.json", "vite.config.js"};
  for (const auto& entry : std::filesystem::directory_iterator(kWeb / "src"))
    files.push_back("src/" + entry.path().filename().string());
  std::sort(files.begin(), files.end());
  std::string text;
  for (const std::string& file : files) text += file + '\0' + ReadFile(kWeb / file) + '\0';
  unsigned char hash[EVP_MAX_MD_SIZE];
  unsigned int size = 0;
  EVP_Digest(text.data(), text.size(), hash, &size, EVP_sha256(), nullptr);
  std::string hex;
  for (unsigned int i = 0; i < size; ++i) {
    hex += "0123456789abcdef"[hash[i] >> 4];
    hex += "0123456789abcdef"[hash[i] & 15];
  }
  return hex;
}

TEST(WebPage, HoldsTheBuiltFiles) {
  for (const auto& [path, file] : {std::pair{"/", "index.html"},
                                   {"/index.html", "index.html"},
                                   {"/app.js", "app.js"},
                                   {"/app.css", "app.css"}}) {
    const auto found = FindWebFile(path);
    ASSERT_TRUE(found) << path;
    EXPECT_TRUE(found->bytes == ReadFile(kWeb / "dist" / file)) << path;
    EXPECT_EQ(found->etag.size(), 34u);
  }
  EXPECT_EQ(FindWebFile("/")->content_type, "text/html; charset=utf-8");
  EXPECT_EQ(FindWebFile("/app.js")->content_type, "text/javascript; charset=utf-8");
  EXPECT_EQ(FindWebFile("/app.css")->content_type, "text/css; charset=utf-8");
  EXPECT_NE(FindWebFile("/app.js")->etag, FindWebFile("/app.css")->etag);
}

TEST(WebPage, KnowsNoOtherPath) {
  for (const char* path : {"", "index.html", "/../index.html", "/app.js/", "/v1/models"})
    EXPECT_FALSE(FindWebFile(path)) << path;
}

TEST(WebPage, IsSmall) {
  size_t size = 0;
  for (const char* path : {"/", "/app.js", "/app.css"}) size += FindWebFile(path)->bytes.size();
  EXPECT_LT(size, 1'000'000u);
}

TEST(WebPage, IsBuiltFromTheseSources) {
  EXPECT_EQ(ReadFile(kWeb / "dist/sources.digest"), SourcesDigest() + "\n")
      << "web/ changed; run make web and commit web/dist";
}

}  // namespace
}  // namespace toaster
