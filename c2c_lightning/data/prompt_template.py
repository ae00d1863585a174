"""Plain-text templates for base models without a chat template."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from c2c_lightning.errors import PromptError

# The text ends with the end token after a response, so that stopping is supervised as a chat template's closing is.
_QUESTION_ANSWER = """\
{{ bos_token }}{% for message in messages %}\
{% if message['role'] == 'assistant' %}Answer: {{ message['content'] }}{{ eos_token if loop.last else '\\n\\n' }}\
{% elif message['role'] == 'user' %}Question: {{ message['content'] }}{{ '\\n' }}\
{% else %}{{ message['content'] }}{{ '\\n\\n' }}{% endif %}\
{% endfor %}{% if add_generation_prompt %}Answer:{% endif %}"""

_DIALOGUE = """\
{{ bos_token }}{% for message in messages %}\
{% if message['role'] == 'assistant' %}Assistant: {{ message['content'] }}{{ eos_token if loop.last else '\\n' }}\
{% elif message['role'] == 'user' %}User: {{ message['content'] }}{{ '\\n' }}\
{% else %}{{ message['content'] }}{{ '\\n' }}{% endif %}\
{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"""

_PLAIN = """\
{{ bos_token }}{% for message in messages %}\
{{ message['content'] }}{{ eos_token if loop.last and message['role'] == 'assistant' else '\\n' }}\
{% endfor %}"""

# The prompt is the beginning of a text, and the answer continues it.
_TEXT = "{{ bos_token }}{% for message in messages %}{{ message['content'] }}{% endfor %}"

_NAMED = {"question_answer": _QUESTION_ANSWER, "dialogue": _DIALOGUE, "plain": _PLAIN, "text": _TEXT}


@dataclass(frozen=True)
class PromptTemplate:
    """The chat template of a base model.

    Attributes:
        name: for messages; only the text counts.
        jinja: the Jinja template, with `messages`, `add_generation_prompt`, `bos_token` (empty for a tokenizer that
            never adds one by itself) and `eos_token`.
    """

    name: str
    jinja: str

    @classmethod
    def from_text(cls, text: str) -> Self:
        """A template from its Jinja text, which is never taken for a name or a path: for text from fuser directories.

        Example:
            >>> PromptTemplate.from_text("/etc/hostname").jinja
            '/etc/hostname'
        """
        return cls(next((known for known, jinja in _NAMED.items() if jinja == text), "inline"), text)

    @classmethod
    def from_name_or_file(cls, name_or_path: str | Path) -> Self:
        """A template that a user names: a shipped one, a `.jinja` file, or Jinja text (which has `{{` or `{%`).

        Example:
            >>> PromptTemplate.from_name_or_file("text").name
            'text'
        """
        name = str(name_or_path)
        if name in _NAMED:
            return cls(name, _NAMED[name])
        if "{{" in name or "{%" in name:
            return cls.from_text(name)
        path = Path(name_or_path).expanduser()
        if not path.is_file():
            known = ", ".join(sorted(_NAMED))
            raise PromptError(f"There is no prompt template {name!r}: name one of {known}, or a .jinja file.")
        return cls(path.stem, path.read_text(encoding="utf-8"))

    load = from_name_or_file
    """The name of version 0.1."""
