"""Prompts of messages between models, and the substitution of values in a template."""

import re

from c2c_lightning.errors import BenchmarkError

#: Text 3 of the paper: prompt of the sharer in text-to-text communication. The question is without its choices.
TEXT_3 = (
    "In one clear sentence, describe the most essential background knowledge needed to answer the question: {question} "
    "Do NOT directly solve or give answer to the question."
)

_PLACEHOLDER = re.compile(r"\{(\w+)\}")


def fill(template: str, **values: str) -> str:
    """Substitute values for placeholders such as `{question}`; BenchmarkError for a placeholder without a value.

    One pass, so that braces in a value (LaTeX, code) are kept.
    """

    def value_of(match: re.Match[str]) -> str:
        if match[1] not in values:
            known = ", ".join(f"{{{name}}}" for name in values)
            raise BenchmarkError(f"the template {template[:60]!r} has the placeholder {match[0]}; known are {known}.")
        return values[match[1]]

    return _PLACEHOLDER.sub(value_of, template)
