#include "tokenizer/split_words.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <fmt/format.h>
#include <pcre2.h>

#include <array>
#include <limits>
#include <utility>

#include "base/check.h"
#include "base/error.h"
#include "tokenizer/utf8.h"

namespace toaster {
namespace {

/// How much work PCRE2 may put into one match before it gives up; far more than any expression
/// that works through its text once needs.
constexpr uint32_t kMatchLimit = 10'000'000;
constexpr size_t kMaxExpressionBytes = 4096;

std::string Pcre2Message(int code) {
  std::array<PCRE2_UCHAR, 256> buffer{};
  pcre2_get_error_message(code, buffer.data(), buffer.size());
  return reinterpret_cast<const char*>(buffer.data());
}

/// `expression` with \s and \S written out as White_Space, which PCRE2 understands differently.
std::string WriteOutWhiteSpace(const std::string& expression, const std::string& origin) {
  constexpr std::string_view kMembers =
      "\\x{9}-\\x{d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}"
      "\\x{205f}\\x{3000}";
  std::string result;
  bool in_class = false;
  for (size_t i = 0; i < expression.size(); ++i) {
    const char c = expression[i];
    if (c == '\\' && i + 1 < expression.size()) {
      const char escaped = expression[++i];
      if (escaped == 'S' && in_class) {
        throw Error(
            ErrorCode::kUnsupported,
            fmt::format("{}: pre_tokenizer expression \"{}\" uses \\S inside a class, which "
                        "is not supported",
                        origin, expression));
      }
      if (escaped == 's') {
        result += in_class ? std::string(kMembers) : fmt::format("[{}]", kMembers);
      } else if (escaped == 'S') {
        result += fmt::format("[^{}]", kMembers);
      } else {
        result += {c, escaped};
      }
      continue;
    }
    if (c == '[') in_class = true;
    if (c == ']') in_class = false;
    result += c;
  }
  return result;
}

}  // namespace

class WordSplitter::Expression {
 public:
  Expression(const std::string& expression, const std::string& origin) : text_(expression) {
    if (expression.size() > kMaxExpressionBytes) {
      throw Error(
          ErrorCode::kUnsupported,
          fmt::format("{}: a pre_tokenizer expression of {} bytes; at most {} are supported",
                      origin, expression.size(), kMaxExpressionBytes));
    }
    const std::string pattern = WriteOutWhiteSpace(expression, origin);
    int error = 0;
    size_t offset = 0;
    code_.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                              PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &error, &offset,
                              nullptr));
    if (!code_) {
      throw Error(ErrorCode::kUnsupported,
                  fmt::format("{}: pre_tokenizer expression \"{}\" is not understood: {}", origin,
                              expression, Pcre2Message(error)));
    }
    // Without the compiler (a hardened kernel can forbid it) the interpreter does the same, slower.
    pcre2_jit_compile(code_.get(), PCRE2_JIT_COMPLETE);
  }

  /// One thread's room for matching.
  class Matcher {
   public:
    explicit Matcher(const Expression& expression)
        : expression_(expression),
          data_(pcre2_match_data_create(1, nullptr)),
          context_(pcre2_match_context_create(nullptr)) {
      CHECK(data_ && context_);
      pcre2_set_match_limit(context_.get(), kMatchLimit);
    }

    /// Appends the ends of the matches in `piece`, and of the stretches between them, plus `base`.
    void Split(std::string_view piece, uint32_t base, std::vector<uint32_t>& ends) {
      size_t start = 0, done = 0;
      while (start < piece.size()) {
        const int result = pcre2_match(
            expression_.code_.get(), reinterpret_cast<PCRE2_SPTR>(piece.data()), piece.size(),
            start, PCRE2_NO_UTF_CHECK | PCRE2_NOTEMPTY, data_.get(), context_.get());
        if (result == PCRE2_ERROR_NOMATCH) break;
        if (result < 0) {
          throw Error(ErrorCode::kInvalidArgument,
                      fmt::format("the tokenizer's expression \"{}\" gives up on this text: {}",
                                  expression_.text_, Pcre2Message(result)));
        }
        const size_t* match = pcre2_get_ovector_pointer(data_.get());
        if (match[0] > done) ends.push_back(base + static_cast<uint32_t>(match[0]));
        done = start = match[1];
        ends.push_back(base + static_cast<uint32_t>(done));
      }
      if (done < piece.size()) ends.push_back(base + static_cast<uint32_t>(piece.size()));
    }

   private:
    struct Free {
      void operator()(pcre2_match_data* data) const { pcre2_match_data_free(data); }
      void operator()(pcre2_match_context* context) const { pcre2_match_context_free(context); }
    };
    const Expression& expression_;
    std::unique_ptr<pcre2_match_data, Free> data_;
    std::unique_ptr<pcre2_match_context, Free> context_;
  };

 private:
  struct Free {
    void operator()(pcre2_code* code) const { pcre2_code_free(code); }
  };
  std::string text_;
  std::unique_ptr<pcre2_code, Free> code_;
};

WordSplitter::WordSplitter(const std::vector<std::string>& expressions, const std::string& origin,
                           Engine engine) {
  deepseek_ = engine == Engine::kBest && expressions == DeepSeekExpressions();
  if (deepseek_) return;
  for (const std::string& expression : expressions) expressions_.emplace_back(expression, origin);
}

WordSplitter::~WordSplitter() = default;
WordSplitter::WordSplitter(WordSplitter&&) noexcept = default;
WordSplitter& WordSplitter::operator=(WordSplitter&&) noexcept = default;

void WordSplitter::Split(std::string_view text, std::vector<uint32_t>& ends) const {
  CHECK(text.size() < std::numeric_limits<uint32_t>::max(), "{} bytes", text.size());
  size_t position = 0;
  while (position < text.size()) {
    const size_t good = position + WellFormedPrefix(text.substr(position));
    if (good > position)
      SplitWellFormed(text, static_cast<uint32_t>(position), static_cast<uint32_t>(good), ends);
    position = good;
    while (position < text.size() && FirstCharacter(text.substr(position)).length == 0) ++position;
    if (position > good) ends.push_back(static_cast<uint32_t>(position));
  }
}

void WordSplitter::SplitWellFormed(std::string_view text, uint32_t begin, uint32_t end,
                                   std::vector<uint32_t>& ends) const {
  if (deepseek_) {
    SplitDeepSeekWords(text, begin, end, ends);
    return;
  }
  std::vector<uint32_t> pieces = {end}, next;
  for (const Expression& expression : expressions_) {
    Expression::Matcher matcher(expression);
    uint32_t piece_begin = begin;
    next.clear();
    for (const uint32_t piece_end : pieces) {
      matcher.Split(text.substr(piece_begin, piece_end - piece_begin), piece_begin, next);
      piece_begin = piece_end;
    }
    std::swap(pieces, next);
  }
  ends.insert(ends.end(), pieces.begin(), pieces.end());
}

}  // namespace toaster
