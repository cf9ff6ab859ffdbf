# The shape of a released encoder of the first kind (one effort text), with short texts of our own.
"""A docstring with an assignment that is none:

TOOLS_TEMPLATE = "not this one"
"""
import json

dsml_token: str = "｜DSML｜"
VALID_TASKS = {"action", "query"}

response_format_template: str = (
    "## Response shape:\n\nAnswer as this schema says:\n{schema}"
)
REASONING_EFFORT_MAX = (
    "Effort: as much as it takes.\n"
    'Check every step; don\'t \u201cguess\u201d.\n\n'  # the end of the text
)

TOOLS_TEMPLATE = """## Tools

Call a tool with a "<{dsml_token}tool_calls>" block:

<{dsml_token}tool_calls>
<{dsml_token}invoke name="$NAME">
...
</{dsml_token}invoke>
</{dsml_token}tool_calls>

Think between {thinking_start_token} and {thinking_end_token} first. A brace: {{.

{tool_schemas}

Use these tools only.
"""


def render(tools):
    TOOLS_TEMPLATE = "a local name is not read"
    return f"{TOOLS_TEMPLATE}"
