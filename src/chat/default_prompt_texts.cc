#include "chat/prompt_texts.h"

namespace toaster {

std::string_view DefaultPromptTexts() {
  return R"json({
 "note": "fixed texts of the prompt format; changing one changes what the model sees",
 "effort": {"low": "", "high": "Think it through.\n\n", "max": "Think it through, then check every step.\n\n"},
 "tools_before": "## Tools\n\nTo call tools, end with:\n\n<｜DSML｜tool_calls>\n<｜DSML｜invoke name=\"$TOOL\">\n<｜DSML｜parameter name=\"$KEY\" string=\"true\">$TEXT</｜DSML｜parameter>\n<｜DSML｜parameter name=\"$KEY\" string=\"false\">$JSON</｜DSML｜parameter>\n</｜DSML｜invoke>\n</｜DSML｜tool_calls>\n\nThinking comes first, between <think> and </think>. The tools:\n\n",
 "tools_after": "\n\nUse no other names.\n",
 "response_format_before": "## Response format\n\nAnswer with JSON of this schema and nothing else:\n"
}
)json";
}

}  // namespace toaster
