# The shape of a released encoder of the second kind (a table of effort texts), with texts of our own.
response_format_template = "## Response shape:\n\nAnswer as this schema says:\n{schema}"
DEFAULT_REASONING_EFFORT = "low"
REASONING_EFFORT_PROMPTS = {
    "low": "",
    "high": ("Effort: as much as it takes.\n"
             "Check every step.\n\n"),
    "max": "Effort: more than that — twice.\n\n",
}
TOOLS_TEMPLATE = "## Tools\n\n<{dsml_token}tool_calls>: think {thinking_start_token}first{thinking_end_token}\n\n{tool_schemas}\n\nOnly these.\n"
