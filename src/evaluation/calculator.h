#pragma once

#include <string>
#include <string_view>

namespace toaster {

/// What a calculator tool answers: the value of an expression of whole numbers with + - * / and
/// parentheses, blanks anywhere between. Numbers are 64 bits wide and divisions have to come out
/// even; for everything else the answer is one line that begins with "error: ", as a tool would
/// give it to a model.
std::string Calculate(std::string_view expression);

}  // namespace toaster
