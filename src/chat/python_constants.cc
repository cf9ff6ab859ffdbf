#include "chat/python_constants.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <optional>
#include <vector>

#include "base/error.h"
#include "tokenizer/utf8.h"

namespace toaster {
namespace {

constexpr size_t kMaxBrackets = 200;

struct Lexeme {
  enum class Kind { kName, kString, kFormatted, kSign, kLineEnd, kEnd };
  Kind kind = Kind::kEnd;
  std::string text;       ///< of a string its value, of a name or sign its spelling
  bool indented = false;  ///< does not begin in the first column
};

/// Cuts Python source into names, strings and single signs. Comments are left out, and so are line
/// ends inside brackets; numbers count as names.
class Lexer {
 public:
  Lexer(std::string_view source, const std::string& origin) : source_(source), origin_(origin) {}

  Lexeme Next() {
    for (;;) {
      if (position_ >= source_.size()) {
        if (!brackets_.empty()) Fail(fmt::format("'{}' is never closed", brackets_.back()));
        return {};
      }
      const char c = source_[position_];
      if (c == '\n') return LineEnd();
      if (c == '#') {
        position_ = std::min(source_.find('\n', position_), source_.size());
      } else if (c == '\\' && At(1) == '\n') {
        position_ += 2;
        ++line_;
      } else if (c == '\\' && At(1) == '\r' && At(2) == '\n') {
        position_ += 3;
        ++line_;
      } else if (c == ' ' || c == '\t' || c == '\r' || c == '\f') {
        ++position_;
      } else {
        break;
      }
    }
    const bool indented = position_ != line_begin_;
    Lexeme lexeme = IsNameCharacter(source_[position_]) ? NameOrString() : StringOrSign();
    lexeme.indented = indented;
    return lexeme;
  }

 private:
  [[noreturn]] void Fail(const std::string& what) const {
    throw Error(ErrorCode::kCorruptFile,
                fmt::format("{}: line {}: {}; get the file again", origin_, line_, what));
  }
  char At(size_t ahead) const {
    return position_ + ahead < source_.size() ? source_[position_ + ahead] : '\0';
  }
  static bool IsNameCharacter(char c) {
    return std::isalnum(static_cast<unsigned char>(c)) || c == '_' ||
           static_cast<unsigned char>(c) >= 0x80;
  }

  Lexeme LineEnd() {
    ++position_;
    ++line_;
    line_begin_ = position_;
    if (!brackets_.empty()) return Next();
    return {Lexeme::Kind::kLineEnd, "\n", false};
  }

  Lexeme NameOrString() {
    const size_t begin = position_;
    while (IsNameCharacter(At(0))) ++position_;
    const std::string name(source_.substr(begin, position_ - begin));
    if ((At(0) != '"' && At(0) != '\'') || name.size() > 2)
      return {Lexeme::Kind::kName, name, false};
    std::string prefix = name;
    for (char& c : prefix) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    if (prefix.find_first_not_of("rbuf") != prefix.npos) return {Lexeme::Kind::kName, name, false};
    const bool plain = prefix.empty() || prefix == "u" || prefix == "r";
    std::string text = String(/*raw=*/prefix.find('r') != prefix.npos);
    return {plain ? Lexeme::Kind::kString : Lexeme::Kind::kFormatted, std::move(text), false};
  }

  Lexeme StringOrSign() {
    const char c = source_[position_];
    if (c == '"' || c == '\'') return {Lexeme::Kind::kString, String(false), false};
    ++position_;
    if (c == '(' || c == '[' || c == '{') {
      if (brackets_.size() >= kMaxBrackets) Fail("too many brackets inside each other");
      brackets_.push_back(c);
    } else if (c == ')' || c == ']' || c == '}') {
      const char open = c == ')' ? '(' : c == ']' ? '[' : '{';
      if (brackets_.empty() || brackets_.back() != open)
        Fail(fmt::format("'{}' closes nothing", c));
      brackets_.pop_back();
    }
    return {Lexeme::Kind::kSign, std::string(1, c), false};
  }

  /// The value of the literal whose first quote is at position_.
  std::string String(bool raw) {
    const int begin_line = line_;
    const char quote = At(0);
    const bool triple = At(1) == quote && At(2) == quote;
    position_ += triple ? 3 : 1;
    std::string value;
    for (;;) {
      if (position_ >= source_.size() || (!triple && At(0) == '\n')) {
        line_ = begin_line;
        Fail("a string that never ends");
      }
      const char c = source_[position_];
      if (c == quote && (!triple || (At(1) == quote && At(2) == quote))) break;
      if (c == '\n') ++line_;
      if (c == '\r' && At(1) == '\n') {  // Python reads every line end as \n
        ++position_;
        continue;
      }
      if (c == '\\' && raw) {
        value += c;
        ++position_;
        if (At(0) == '\n') ++line_;
        value += At(0);
        ++position_;
      } else if (c == '\\') {
        Escape(value);
      } else {
        value += c;
        ++position_;
      }
    }
    position_ += triple ? 3 : 1;
    return value;
  }

  void Escape(std::string& value) {
    constexpr std::string_view kNames = "\\'\"abfnrtv";
    constexpr std::string_view kValues = "\\'\"\a\b\f\n\r\t\v";
    const char c = At(1);
    position_ += 2;
    if (const size_t known = kNames.find(c); known != kNames.npos && c != '\0') {
      value += kValues[known];
    } else if (c == '\n' || (c == '\r' && At(0) == '\n')) {
      position_ += c == '\r' ? 1 : 0;
      ++line_;
    } else if (c == 'x') {
      AppendUtf8(Number(2, 16), value);
    } else if (c == 'u') {
      AppendCharacter(Number(4, 16), value);
    } else if (c == 'U') {
      AppendCharacter(Number(8, 16), value);
    } else if (c >= '0' && c <= '7') {
      --position_;
      size_t digits = 1;
      while (digits < 3 && At(digits) >= '0' && At(digits) <= '7') ++digits;
      AppendUtf8(Number(digits, 8), value);
    } else if (c == 'N') {
      Fail("characters by name (\\N{...}) are not supported");
    } else {  // an unknown escape is no escape
      value += '\\';
      --position_;
    }
  }

  uint32_t Number(size_t digits, int base) {
    uint32_t number = 0;
    for (size_t i = 0; i < digits; ++i) {
      const char c = At(0);
      if (!std::isxdigit(static_cast<unsigned char>(c))) Fail("an escape without its digits");
      number = number * static_cast<uint32_t>(base) +
               static_cast<uint32_t>(c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10);
      ++position_;
    }
    return number;
  }

  void AppendCharacter(uint32_t code_point, std::string& value) const {
    if (code_point > 0x10FFFF || (code_point >= 0xD800 && code_point < 0xE000))
      Fail("an escape that names no character");
    AppendUtf8(code_point, value);
  }

  std::string_view source_;
  const std::string& origin_;
  size_t position_ = 0;
  size_t line_begin_ = 0;
  int line_ = 1;
  std::vector<char> brackets_;
};

/// Reads assignments from the lexemes of one logical line.
class Line {
 public:
  explicit Line(std::vector<Lexeme> lexemes) : lexemes_(std::move(lexemes)) {}

  void AddTo(PythonConstants& constants) {
    if (Peek().kind != Lexeme::Kind::kName || Peek().indented) return;
    const std::string name = lexemes_[position_++].text;
    if (Accept(":")) {  // an annotation, up to the sign of assignment
      while (position_ < lexemes_.size() && !IsSign("=")) ++position_;
    }
    if (!Accept("=")) return;
    const size_t begin = position_;
    if (auto text = Strings(); text && AtEnd()) {
      constants.strings[name] = std::move(*text);
      constants.tables.erase(name);
      return;
    }
    position_ = begin;
    if (auto table = Table(); table && AtEnd()) {
      constants.tables[name] = std::move(*table);
      constants.strings.erase(name);
      return;
    }
    // Some other value: the name is no constant any more.
    constants.strings.erase(name);
    constants.tables.erase(name);
  }

 private:
  const Lexeme& Peek() const {
    static const Lexeme end;
    return position_ < lexemes_.size() ? lexemes_[position_] : end;
  }
  bool IsSign(std::string_view sign) const {
    return Peek().kind == Lexeme::Kind::kSign && Peek().text == sign;
  }
  bool Accept(std::string_view sign) {
    if (!IsSign(sign)) return false;
    ++position_;
    return true;
  }
  bool AtEnd() const { return position_ >= lexemes_.size(); }

  /// One or more literals side by side, in any number of parentheses.
  std::optional<std::string> Strings() {
    size_t open = 0;
    while (Accept("(")) ++open;
    if (Peek().kind != Lexeme::Kind::kString) return std::nullopt;
    std::string text;
    while (Peek().kind == Lexeme::Kind::kString) text += lexemes_[position_++].text;
    for (; open > 0; --open) {
      if (!Accept(")")) return std::nullopt;
    }
    return text;
  }

  std::optional<std::map<std::string, std::string>> Table() {
    if (!Accept("{")) return std::nullopt;
    std::map<std::string, std::string> table;
    while (!Accept("}")) {
      auto key = Strings();
      if (!key || !Accept(":")) return std::nullopt;
      auto value = Strings();
      if (!value) return std::nullopt;
      table[*key] = std::move(*value);
      if (!Accept(",") && !IsSign("}")) return std::nullopt;
    }
    return table;
  }

  std::vector<Lexeme> lexemes_;
  size_t position_ = 0;
};

}  // namespace

PythonConstants ReadPythonConstants(std::string_view source, const std::string& origin) {
  if (source.substr(0, 3) == "\xEF\xBB\xBF") source.remove_prefix(3);
  Lexer lexer(source, origin);
  PythonConstants constants;
  std::vector<Lexeme> line;
  for (;;) {
    Lexeme lexeme = lexer.Next();
    if (lexeme.kind != Lexeme::Kind::kLineEnd && lexeme.kind != Lexeme::Kind::kEnd) {
      line.push_back(std::move(lexeme));
      continue;
    }
    Line(std::move(line)).AddTo(constants);
    line.clear();
    if (lexeme.kind == Lexeme::Kind::kEnd) return constants;
  }
}

}  // namespace toaster
