// The calculator answers anything a model may call it with: with an error, or with a number that it
// reads as itself.

#include <cstdint>
#include <cstdlib>
#include <string>

#include "evaluation/calculator.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using toaster::Calculate;
  const std::string answer = Calculate({reinterpret_cast<const char*>(data), size});
  if (answer.starts_with("error: ")) return 0;
  // The lowest number has no positive twin to be the negative of.
  if (answer != "-9223372036854775808" && Calculate(answer) != answer) std::abort();
  return 0;
}
