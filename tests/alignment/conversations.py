"""Random conversations for the property tests."""

from hypothesis import strategies as st

_SNIPPETS = [
    "",
    " ",
    "\n",
    "  lead",
    "tail\n\n",
    "user",
    "assistant\n",
    "<|im_end|>\n",
    "<end_of_turn>",
    "[/INST]",
    "Answer: ",
    "What is the capital of Arlen?",
    "e\u0301",
    "안녕 你好",
    "😀👍🏽\u200d",
    "\u00a0",
    "\r\n",
    "ﬁ",
    "</s>",
]

contents = st.one_of(
    st.text(max_size=12),
    st.lists(st.one_of(st.sampled_from(_SNIPPETS), st.text(max_size=3)), max_size=4).map("".join),
)


@st.composite
def conversations(draw: st.DrawFn, min_messages: int = 1, max_messages: int = 5) -> list[dict[str, str]]:
    """An optional system turn, then user and assistant in turn, the user first."""
    turns = draw(st.lists(contents, min_size=min_messages, max_size=max_messages))
    messages = [
        {"role": "assistant" if number % 2 else "user", "content": content} for number, content in enumerate(turns)
    ]
    if draw(st.booleans()):
        messages.insert(0, {"role": "system", "content": draw(contents)})
    return messages
