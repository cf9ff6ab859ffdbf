#pragma once

#include <stdexcept>
#include <string>
#include <utility>

namespace toaster {

/// What kind of trouble an Error reports; the server maps it to a status, the program to an exit
/// code.
enum class ErrorCode {
  kInvalidArgument,  ///< the user's input: a flag, a request field, a token id
  kNotFound,         ///< a file, model or tensor that should exist
  kCorruptFile,      ///< a file that breaks its own format
  kUnsupported,      ///< well formed, but nothing this program can run
  kIo,               ///< the operating system refused or failed
  kOutOfMemory,      ///< the memory budget or the machine is exhausted
  kCancelled,        ///< the user or the client asked to stop
};

/// Bad input, a bad file or a bad machine. The message is one line that names the thing and the
/// remedy. Thrown where the trouble is seen, caught once per request and once per program. Expected
/// outcomes (a miss, the end, a full queue) are return values instead; bugs fail CHECK.
class Error : public std::runtime_error {
 public:
  Error(ErrorCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
  ErrorCode code() const { return code_; }

 private:
  ErrorCode code_;
};

}  // namespace toaster
