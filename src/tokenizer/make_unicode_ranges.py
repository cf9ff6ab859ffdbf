#!/usr/bin/env python3
"""Writes unicode_ranges.cc: the classes of all code points that the word splitter tells apart.

    python3 src/tokenizer/make_unicode_ranges.py > src/tokenizer/unicode_ranges.cc

Unicode 14 (Python 3.11) is the version of the regular expressions the models' tokenizer was made
with; another version of Python is refused, because a newly assigned letter would be split
differently.
"""
import sys
import unicodedata

VERSION = "14.0.0"
CLASSES = {"L": "L", "M": "M", "N": "N", "P": "P", "S": "S"}
WHITE_SPACE = {*range(0x09, 0x0E), 0x20, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F,
               0x205F, 0x3000}


def class_of(code_point):
    if code_point in WHITE_SPACE:
        return "W"
    return CLASSES.get(unicodedata.category(chr(code_point))[0], "O")


def main():
    if unicodedata.unidata_version != VERSION:
        sys.exit(f"this Python knows Unicode {unicodedata.unidata_version}; {VERSION} is needed")
    starts, previous = [], None
    for code_point in range(0x110000):
        kind = class_of(code_point)
        if kind != previous:
            starts.append(f"{{0x{code_point:X}, {kind}}},")
            previous = kind
    print("// Written by make_unicode_ranges.py; do not edit.\n// clang-format off")
    print('#include "tokenizer/unicode_classes.h"\n\nnamespace toaster {\nnamespace {\n')
    print("constexpr auto L = kLetter, M = kMark, N = kNumber, P = kPunctuation, S = kSymbol, W = kWhiteSpace, O = kOther;\n")
    print(f"/// Unicode {VERSION}: a range begins at its first code point and ends where the next begins.")
    print("constexpr UnicodeRange kRanges[] = {")
    line = "   "
    for start in starts:
        if len(line) + len(start) + 1 > 150:
            print(line)
            line = "   "
        line += " " + start
    print(line)
    print("};\n\n}  // namespace\n\nstd::span<const UnicodeRange> UnicodeRanges() { return kRanges; }\n\n}  // namespace toaster")


main()
