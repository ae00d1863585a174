"""Prompt templates of benchmarks: the paper's, and any other."""

from collections.abc import Sequence
from dataclasses import dataclass

from c2c_lightning.errors import BenchmarkError
from c2c_lightning.responders.prompt_texts import fill

_TASK = """Accurately answer the following question:

{question}

Choices:
{choices}

Instructions:
- Carefully read the question and all options.
"""

#: Text 1 of the paper (zero-shot, no reasoning). `{letters}` is A/B/C/D for four choices, the paper's only case.
TEXT_1 = f"""{_TASK}- Select the single most correct answer.
- Respond ONLY in the following format: "The correct answer is {{letters}}".
- Do not include any explanations, additional text, or punctuation besides the answer.

The correct answer is"""

#: Text 2 of the paper: as Text 1, but with reasoning first.
TEXT_2 = f"""{_TASK}- Let's think step by step and explain your reasoning briefly.
- Then give the final answer starting with The correct answer is"""

#: GSM8K and MATH-500, as in the released code.
MATHS = (
    "Solve the following math problem step by step. The last line of your response should be of the form Answer: "
    "$ANSWER (without quotes) where $ANSWER is the answer to the problem.\n\n{question}\n\nPlease think step by step "
    'and explain your reasoning. Remember to put your answer on its own line after "Answer:", and you do not need to '
    "use a \\boxed command."
)

_FIELDS = ("question", "choices", "letters", "subject")


def letter(index: int) -> str:
    """The letter of a choice: A for 0."""
    return chr(ord("A") + index)


@dataclass(frozen=True)
class Wording:
    """The prompt template of a benchmark, with `{question}`, `{choices}`, `{letters}` (A/B/C/D) and `{subject}`."""

    prompt: str = TEXT_1

    def __post_init__(self) -> None:
        """Check the placeholders."""
        fill(self.prompt, **dict.fromkeys(_FIELDS, ""))

    @property
    def shows_choices(self) -> bool:
        """Whether the prompt contains the choices."""
        return "{choices}" in self.prompt

    def render(self, question: str, choices: Sequence[str] = (), subject: str = "") -> str:
        """The user's message about a question without its choices, whose texts follow."""
        # As in the paper, a line break also after the last choice.
        lines = (f"{letter(n)}. {text}\n" for n, text in enumerate(choices))
        letters = "/".join(letter(n) for n in range(len(choices)))
        return fill(self.prompt, question=question, choices="".join(lines), letters=letters, subject=subject)


#: Wordings by name, for YAML.
WORDINGS = {
    "paper": Wording(TEXT_1),
    "paper_cot": Wording(TEXT_2),
    "maths": Wording(MATHS),
    "question": Wording("{question}"),
}


def wording_of(name_or_template: str) -> Wording:
    """The wording of a name, or of a template."""
    if name_or_template in WORDINGS:
        return WORDINGS[name_or_template]
    if "{" not in name_or_template:
        raise BenchmarkError(
            f"unknown wording {name_or_template!r}. Known are {', '.join(WORDINGS)}; "
            f"or give a template with {{question}} in it."
        )
    return Wording(name_or_template)
