"""A row reaches the chat template as it is, with the same result in training and in prediction."""

import json
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from c2c_lightning.data.encode import Encoder, TokenizerSpec
from c2c_lightning.data.preprocessing.row_encoder import MALFORMED, UNTRAINED, Accepted, Rejected, RowEncoder
from c2c_lightning.data.prompt_template import PromptTemplate
from c2c_lightning.data.sources import Messages, OpenHermes
from c2c_lightning.errors import DataError, PromptError
from c2c_lightning.prediction.requests import load_requests
from tests.tiny import tiny_tokenizer

ALL_KEYS = (
    "{% if enable_thinking %}(think){% endif %}{% if tools %}{{ tools | tojson }}{% endif %}"
    "{% for d in documents or [] %}[{{ d.title }}]{% endfor %}{% for m in messages %}<|im_start|>{{ m.role }}"
    "{% if m.name is defined %} {{ m.name }}{% endif %}{{ '\n' }}{{ m.reasoning_content }}{{ m.content or '' }}"
    "{% for c in m.tool_calls or [] %}<call>{{ c.function | tojson }}</call>{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
ASKED = {"role": "user", "content": "2+2?"}
CALL = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "add", "arguments": {"a": None}}}]}
RESULT = {"role": "tool", "name": "add", "content": "4"}
ANSWER = {"role": "assistant", "content": "four", "reasoning_content": "counted"}
TOOLS = [{"type": "function", "function": {"name": "add", "parameters": {"default": None}}}]
ROWS: dict[str, dict[str, Any]] = {
    "message keys": {"messages": [ASKED, CALL, RESULT, ANSWER]},
    "tools": {"messages": [ASKED, CALL, RESULT, ANSWER], "tools": TOOLS},
    "tools as JSON": {"messages": [ASKED, ANSWER], "tools": json.dumps(TOOLS)},
    "documents": {"messages": [ASKED, ANSWER], "documents": [{"title": "t", "text": "x"}]},
    "template arguments": {"messages": [ASKED, ANSWER], "chat_template_kwargs": {"enable_thinking": True}},
    "a call as the response": {"messages": [ASKED, CALL], "tools": TOOLS},
}


def encoder(template: str = ALL_KEYS, **kwargs: Any) -> Encoder:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template
    spec = TokenizerSpec(tokenizer, **kwargs)
    return Encoder(spec, [spec])


def encoded(row: dict[str, Any], path: Path, one: Encoder) -> Accepted | Rejected:
    path.write_text(json.dumps(row) + "\n", encoding="utf-8")
    source = Messages(str(path))
    return RowEncoder(source, one)(list(source.load()), 0)[0]


def expected_ids(row: dict[str, Any], one: Encoder) -> tuple[list[int], list[int]]:
    """Prompt and whole conversation, by transformers alone."""
    arguments = {**row.get("chat_template_kwargs", {}), "documents": row.get("documents")}
    tools = row.get("tools")
    arguments["tools"] = json.loads(tools) if isinstance(tools, str) else tools
    both = (
        one.receiver_tokenizer.tokenizer.apply_chat_template(
            messages, add_generation_prompt=opens, tokenize=True, return_dict=False, **arguments
        )
        for messages, opens in ((row["messages"][:-1], True), (row["messages"], False))
    )
    prompt, whole = both
    return prompt, whole


@pytest.mark.parametrize("name", ROWS)
def test_a_row_gives_the_tokens_of_apply_chat_template(name: str, tmp_path: Path) -> None:
    one, row = encoder(), ROWS[name]
    result = encoded(row, tmp_path / "rows.jsonl", one)
    assert isinstance(result, Accepted)
    prompt, whole = expected_ids(row, one)
    assert result.example.prompt.receiver_ids == prompt
    assert prompt + result.example.response_ids == whole


@pytest.mark.parametrize("name", ROWS)
def test_prediction_encodes_a_row_as_training_does(name: str, tmp_path: Path) -> None:
    one, row = encoder(), ROWS[name]
    trained = encoded(row, tmp_path / "rows.jsonl", one)
    assert isinstance(trained, Accepted)
    request = load_requests(str(tmp_path / "rows.jsonl"))[0]
    prompt = one.encode(request.messages, request.sharer_messages, request.chat_template_kwargs)
    assert prompt == trained.example.prompt
    # The line that is written is a row with the same prompt.
    encoded({**request.to_line(["x"]), "messages": [*request.messages, ANSWER]}, tmp_path / "again.jsonl", one)
    again = load_requests(str(tmp_path / "again.jsonl"))[0]
    assert (again.messages, again.chat_template_kwargs) == (request.messages, request.chat_template_kwargs)


def test_a_row_of_a_table_gives_the_tokens_of_the_same_row_in_json_lines(tmp_path: Path) -> None:
    def call(**arguments: str) -> dict[str, Any]:
        return {"role": "assistant", "content": None, "tool_calls": [{"function": {"arguments": arguments}}]}

    rows = [
        {"messages": [ASKED, call(city="Rome"), RESULT, ANSWER], "tools": [{"name": "weather"}]},
        {"messages": [ASKED, call(date="today"), ANSWER], "tools": [{"name": "clock", "zone": "UTC"}]},
        {"messages": [ASKED, {"role": "assistant", "content": "four"}], "tools": None},
    ]
    Dataset.from_list(rows).to_parquet(tmp_path / "rows.parquet")
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    results = []
    for name in ("rows.parquet", "rows.jsonl"):
        source = Messages(str(tmp_path / name))
        results.append(RowEncoder(source, encoder())(list(source.load()), 0))
    for table, lines in zip(*results, strict=True):
        assert isinstance(table, Accepted)
        assert isinstance(lines, Accepted)
        assert table.example == lines.example


def test_sharers_get_the_template_arguments_of_the_row_too() -> None:
    sharer = tiny_tokenizer("header")
    sharer.chat_template = ALL_KEYS
    one = Encoder(TokenizerSpec(tiny_tokenizer()), [TokenizerSpec(sharer)], "span")
    prompt = one.encode([ASKED], None, {"tools": TOOLS})
    assert "add" in sharer.decode(prompt.sharers[0].input_ids)


def test_an_answer_of_weight_zero_is_counted_and_not_learnt(tmp_path: Path) -> None:
    for weight in (0, 0.0, False):
        row = {"messages": [ASKED, {**ANSWER, "weight": weight}]}
        result = encoded(row, tmp_path / "rows.jsonl", encoder())
        assert isinstance(result, Rejected)
        assert result.kind == UNTRAINED
    turns = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a", "weight": 0}]
    result = RowEncoder(OpenHermes("x.jsonl"), encoder())([{"conversations": turns}], 0)[0]
    assert isinstance(result, Rejected)
    assert result.kind == UNTRAINED
    earlier = {"messages": [ASKED, {**ANSWER, "weight": 0}, ASKED, {**ANSWER, "weight": 1}]}
    assert isinstance(encoded(earlier, tmp_path / "rows.jsonl", encoder()), Accepted)


def test_template_arguments_that_do_not_fit_are_a_bad_row(tmp_path: Path) -> None:
    for row in ({"tools": "no JSON"}, {"documents": ["text"]}, {"chat_template_kwargs": 3}):
        result = encoded({"messages": [ASKED, ANSWER], **row}, tmp_path / "rows.jsonl", encoder())
        assert isinstance(result, Rejected)
        assert result.kind == MALFORMED


def test_a_row_that_the_template_cannot_render_is_a_bad_row(tmp_path: Path) -> None:
    one = encoder("{% for m in messages %}{{ m.content + (m.name or '') }}<|im_end|>{% endfor %}")
    result = encoded({"messages": [{**ASKED, "name": 3}, ANSWER]}, tmp_path / "rows.jsonl", one)
    assert isinstance(result, Rejected)
    assert "chat template" in result.why


# As Qwen3's: reasoning is shown in the last turn, in a block that is empty where there is none.
REASONING = (
    "{% for m in messages %}{% set text, thought = m.content, m.reasoning_content or '' %}"
    "{% if '</think>' in text %}{% set thought = text.split('</think>')[0].split('<think>')[-1].strip() %}"
    "{% set text = text.split('</think>')[-1].strip() %}{% endif %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' and loop.last %}<think>\n{{ thought }}\n</think>\n\n{% endif %}{{ text }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% if enable_thinking is false %}"
    "<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
# As DeepSeek-R1's: the prompt opens a reasoning block, and finished turns have none.
OPENED_REASONING = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content.split('</think>')[-1] }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
)
INSIDE = {"role": "assistant", "content": "<think>\ncounted\n</think>\n\nfour"}


@pytest.mark.parametrize("response", [INSIDE, ANSWER], ids=["in the content", "in a separate key"])
def test_reasoning_is_learnt_where_thinking_is_enabled_and_refused_elsewhere(response: dict[str, Any]) -> None:
    enabled = encoder(REASONING, chat_template_kwargs={"enable_thinking": True})
    example = enabled.encode_example([ASKED, response])
    tokenizer = enabled.receiver_tokenizer.tokenizer
    assert tokenizer.decode(example.prompt.receiver_ids + example.response_ids) == tokenizer.apply_chat_template(
        [ASKED, response], tokenize=False
    )
    with pytest.raises(DataError, match=r"enable_thinking: true"):
        encoder(REASONING).encode_example([ASKED, response])
    assert encoder(REASONING).encode_example([ASKED, response], None, {"enable_thinking": True}) == example
    plain = encoder(REASONING).encode_example([ASKED, {"role": "assistant", "content": "four"}])
    assert tokenizer.decode(plain.response_ids) == "four<|im_end|>\n"


def test_a_reasoning_block_that_is_opened_but_not_closed_is_refused() -> None:
    with pytest.raises(DataError, match="reasoning"):
        encoder(OPENED_REASONING).encode_example([ASKED, INSIDE])


def test_a_response_whose_reasoning_would_be_lost_is_refused() -> None:
    one = encoder(
        "{% for m in messages %}<{{ m.role }}>{{ m.reasoning_content }}{{ m.content }}<|im_end|>{% endfor %}"
        "{% if add_generation_prompt %}<now>{% endif %}"
    )
    with pytest.raises(DataError, match="reasoning_content"):
        one.encode_example([ASKED, ANSWER])


def test_template_arguments_are_part_of_the_fingerprint() -> None:
    assert encoder().fingerprint != encoder(chat_template_kwargs={"enable_thinking": True}).fingerprint


WITHOUT_END = {
    "like GLM-4": "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}",
    "like Vicuna": "{% for m in messages %}{{ m.role | upper }}: {{ m.content }} {% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}",
}


@pytest.mark.parametrize("name", WITHOUT_END)
def test_an_end_token_is_learnt_where_the_template_writes_none(name: str) -> None:
    one = encoder(WITHOUT_END[name])
    tokenizer = one.receiver_tokenizer.tokenizer
    response = one.encode_example([ASKED, {"role": "assistant", "content": "four"}]).response_ids
    assert response.count(tokenizer.eos_token_id) == 1
    assert response[-1] == tokenizer.eos_token_id
    tokenizer.eos_token = None
    assert one.encode_example([ASKED, {"role": "assistant", "content": "four"}]).response_ids == response[:-1]


def test_a_prompt_of_no_tokens_and_no_prompts_are_named_errors() -> None:
    empty = encoder(PromptTemplate.from_name_or_file("text").jinja.removeprefix("{{ bos_token }}"))
    with pytest.raises(PromptError, match="no tokens"):
        empty.encode([{"role": "user", "content": ""}])
    with pytest.raises(PromptError, match="no conversations"):
        empty.encode_many([])
