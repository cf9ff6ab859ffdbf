#include "server/api_keys.h"

#include <fmt/format.h>
#include <openssl/crypto.h>
#include <openssl/rand.h>
#include <openssl/sha.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <sstream>

#include "base/error.h"

namespace toaster {
namespace {

std::string Sha256Bytes(std::string_view text) {
  unsigned char digest[SHA256_DIGEST_LENGTH];
  SHA256(reinterpret_cast<const unsigned char*>(text.data()), text.size(), digest);
  return std::string(reinterpret_cast<const char*>(digest), sizeof digest);
}

std::string Hex(std::string_view bytes) {
  std::string digits;
  for (const char byte : bytes) digits += fmt::format("{:02x}", static_cast<uint8_t>(byte));
  return digits;
}

/// The bytes of 64 hexadecimal digits; empty for anything else.
std::string FromHex(std::string_view digits) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string bytes;
  if (digits.size() != 2 * SHA256_DIGEST_LENGTH) return "";
  for (size_t i = 0; i < digits.size(); i += 2) {
    const size_t high = kDigits.find(digits[i]), low = kDigits.find(digits[i + 1]);
    if (high == kDigits.npos || low == kDigits.npos) return "";
    bytes += static_cast<char>(high * 16 + low);
  }
  return bytes;
}

}  // namespace

ApiKeys ApiKeys::Load(const std::filesystem::path& file) {
  std::ifstream stream(file);
  if (!stream) {
    throw Error(ErrorCode::kNotFound,
                fmt::format("{}: can't be read; make it with toaster key", file.string()));
  }
  ApiKeys keys;
  std::string line;
  for (int number = 1; std::getline(stream, line); ++number) {
    if (line.empty() || line[0] == '#') continue;
    std::istringstream words(line);
    Key key;
    std::string digits, rest;
    words >> key.name >> digits;
    key.digest = FromHex(digits);
    bool good = !key.digest.empty();
    if (good && words >> std::ws && !words.eof()) {
      good = static_cast<bool>(words >> key.requests_per_minute >> key.tokens_per_minute) &&
             key.requests_per_minute >= 0 && key.tokens_per_minute >= 0 && !(words >> rest);
    }
    if (!good) {
      // The line may hold a secret by mistake, so it is not repeated.
      throw Error(ErrorCode::kInvalidArgument,
                  fmt::format("{}:{}: is not NAME SHA256 [REQUESTS-PER-MINUTE TOKENS-PER-MINUTE]; "
                              "make the line with toaster key",
                              file.string(), number));
    }
    keys.keys_.push_back(std::move(key));
  }
  if (keys.empty())
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("{}: has no keys; add one with toaster key", file.string()));
  return keys;
}

const ApiKeys::Key* ApiKeys::Find(std::string_view secret) const {
  const std::string digest = Sha256Bytes(secret);
  const Key* found = nullptr;
  for (const Key& key : keys_) {
    if (CRYPTO_memcmp(key.digest.data(), digest.data(), digest.size()) == 0) found = &key;
  }
  return found;
}

std::pair<std::string, std::string> ApiKeys::Make(const std::string& name,
                                                  int64_t requests_per_minute,
                                                  int64_t tokens_per_minute) {
  unsigned char bytes[32];
  if (RAND_bytes(bytes, sizeof bytes) != 1)
    throw Error(ErrorCode::kIo, "the system has no random bytes; try again");
  const std::string secret =
      "tk-" + Hex(std::string_view(reinterpret_cast<const char*>(bytes), sizeof bytes));
  return {secret, fmt::format("{} {} {} {}\n", name, Hex(Sha256Bytes(secret)), requests_per_minute,
                              tokens_per_minute)};
}

int RateLimits::Admit(const ApiKeys::Key& key) {
  const std::lock_guard lock(mutex_);
  Use& use = uses_[key.name];
  const auto now = SteadyClock::now();
  const double minutes = std::chrono::duration<double>(now - use.seen).count() / 60;
  use.seen = now;
  const auto requests = static_cast<double>(key.requests_per_minute);
  const auto tokens = static_cast<double>(key.tokens_per_minute);
  use.requests = std::max(0.0, use.requests - minutes * requests);
  use.tokens = std::max(0.0, use.tokens - minutes * tokens);
  double wait = 0;  // minutes until there is room for one more
  if (requests > 0 && use.requests + 1 > requests) wait = (use.requests + 1 - requests) / requests;
  if (tokens > 0 && use.tokens > tokens) wait = std::max(wait, (use.tokens - tokens) / tokens);
  if (wait > 0) return std::max(1, static_cast<int>(std::ceil(wait * 60)));
  use.requests += 1;
  return 0;
}

void RateLimits::AddTokens(const std::string& name, int64_t tokens) {
  const std::lock_guard lock(mutex_);
  uses_[name].tokens += static_cast<double>(tokens);
}

}  // namespace toaster
