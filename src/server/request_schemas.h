#pragma once

#include "server/api_error.h"

namespace toaster {

/// What a path takes: a JSON Schema (draft 2020-12) of the request body, and examples by name that
/// together show every member. A member that may be missing may also be null. Fields that the
/// server leaves alone are not in it; one that it knows but can't honour allows only what changes
/// nothing.
struct RequestSchema {
  OrderedJson schema;
  OrderedJson examples;
};

RequestSchema ChatSchema();
RequestSchema CompletionSchema();
RequestSchema MessagesSchema();
RequestSchema CountTokensSchema();
RequestSchema ResponsesSchema();
RequestSchema TokenizeSchema();
RequestSchema DetokenizeSchema();

}  // namespace toaster
