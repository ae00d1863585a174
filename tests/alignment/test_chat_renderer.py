from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from c2c_lightning.alignment import chat_renderer
from c2c_lightning.alignment.chat_renderer import ChatRenderer, RenderedChat
from c2c_lightning.alignment.chat_tokenizer import ChatTokenizer
from c2c_lightning.errors import PromptError
from tests.alignment.conversations import conversations
from tests.alignment.styles import STYLES, rendered, tokenizer_of
from tests.tiny import tiny_tokenizer


def origins(chat: RenderedChat, contents: list[str]) -> list[tuple[int, int] | None]:
    """Which character of which content each character of the text is, by the code under test."""
    origin = [None] * len(chat.text)
    for span in chat.spans:
        shown = contents[span.message][span.content_start : span.content_start + span.end - span.start]
        assert chat.text[span.start : span.end] == shown
        for place in range(span.end - span.start):
            assert origin[span.start + place] is None
            origin[span.start + place] = (span.message, span.content_start + place)
    return origin


@pytest.mark.parametrize("name", STYLES)
@settings(deadline=None, max_examples=60)
@given(messages=conversations(), generate=st.booleans())
def test_every_character_of_a_rendered_chat_is_known(name: str, messages: list[dict[str, str]], generate: bool) -> None:
    chat = ChatRenderer(tokenizer_of(name)).render(messages, generate)

    text, origin = rendered(name, messages, generate)
    assert chat.text == text
    assert origins(chat, [m["content"] for m in messages]) == origin


@pytest.mark.parametrize("name", STYLES)
def test_content_that_looks_like_the_template(name: str) -> None:
    tricky = "user\n<|im_end|>\n<|im_start|>assistant\n[/INST] <end_of_turn>\n<start_of_turn>model\nAnswer: user"
    messages = [{"role": "user", "content": tricky}, {"role": "assistant", "content": "user"}]
    messages += [{"role": "user", "content": "user"}, {"role": "assistant", "content": tricky}]

    chat = ChatRenderer(tokenizer_of(name)).render(messages, False)

    assert origins(chat, [m["content"] for m in messages]) == rendered(name, messages, False)[1]


def test_one_renderer_for_many_conversations() -> None:
    renderer = ChatRenderer(tokenizer_of("gemma"))
    for content in ("a", " a ", "", "\n\n", "model\n"):
        messages = [{"role": "user", "content": content}]
        chat = renderer.render(messages, True)
        assert origins(chat, [content]) == rendered("gemma", messages, True)[1]


THINKING = (
    "{% for m in messages %}{% set c = m['content'] %}{% if '</think>' in c %}"
    "{% set c = c.split('</think>')[-1].lstrip('\n') %}{% endif %}"
    "<{{ m['role'] }}>{% if m['role'] == 'assistant' and loop.last %}<think>\n\n</think>\n\n{% endif %}{{ c }}</>"
    "{% endfor %}{% if add_generation_prompt %}<assistant>"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)


def test_a_thinking_block_that_the_template_removes() -> None:
    renderer = ChatRenderer(tokenizer_of("chatml"), THINKING)
    messages = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "<think>\nhm\n</think>\n\nSo."}]

    chat = renderer.render(messages, False)

    assert chat.text == "<user>Why?</><assistant><think>\n\n</think>\n\nSo.</>"
    assert [chat.text[span.start : span.end] for span in chat.spans] == ["Why?", "So."]
    assert chat.spans[1].content_start == messages[1]["content"].index("So.")


def test_thinking_is_switched_off() -> None:
    renderer = ChatRenderer(tokenizer_of("chatml"), THINKING)
    assert renderer.render([{"role": "user", "content": "Why?"}], True).text.endswith("<think>\n\n</think>\n\n")


def test_literals_that_depend_on_the_contents() -> None:
    template = (
        "{% for m in messages %}{% if m['content'].startswith('<tool>') %}(tool) {% else %}(talk) {% endif %}"
        "{{ m['content'] }}\n{% endfor %}"
    )
    messages = [{"role": "user", "content": "<tool>(talk) 12"}, {"role": "user", "content": "(tool) "}]

    chat = ChatRenderer(tokenizer_of("chatml"), template).render(messages, False)

    assert chat.text == "(tool) <tool>(talk) 12\n(talk) (tool) \n"
    assert [(span.message, span.start, span.end) for span in chat.spans] == [(0, 7, 22), (1, 30, 37)]


def test_a_template_with_the_current_time() -> None:
    template = "{{ strftime_now('%f') }}: {% for m in messages %}{{ m['content'] }};{% endfor %}"
    renderer = ChatRenderer(tokenizer_of("chatml"), template)
    for content in ("a", "b", "2: c"):
        chat = renderer.render([{"role": "user", "content": content}], False)
        # The time may have moved between two renderings; nothing wrong may come of it.
        assert [chat.text[span.start : span.end] for span in chat.spans] in ([content], [])


def test_a_message_that_cannot_be_located_has_no_span(caplog: pytest.LogCaptureFixture) -> None:
    renderer = ChatRenderer(tokenizer_of("chatml"), "{% for m in messages %}{{ m['content'][::-1] }}{% endfor %}")
    assert renderer.render([{"role": "user", "content": "abc"}], False).spans == ()
    assert "beyond recognition" in caplog.text


def test_a_template_that_puts_the_system_turn_last() -> None:
    template = (
        "{% for m in messages if m['role'] != 'system' %}[{{ m['content'] }}]{% endfor %}"
        "{% for m in messages if m['role'] == 'system' %}({{ m['content'] }}){% endfor %}"
    )
    messages = [{"role": "system", "content": "S"}, {"role": "user", "content": "U"}]
    chat = ChatRenderer(tokenizer_of("chatml"), template).render(messages, False)
    assert [(span.message, chat.text[span.start : span.end]) for span in chat.spans] == [(1, "U"), (0, "S")]


def test_conversations_that_a_template_refuses_are_named_errors() -> None:
    refusing = "{{ raise_exception('no tools here') }}"
    with pytest.raises(PromptError, match="no tools here"):
        ChatRenderer(tokenizer_of("chatml"), refusing).render([{"role": "user", "content": "a"}], False)
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": "a"}]
    with pytest.raises(PromptError, match="no tools here"):
        ChatRenderer(tokenizer_of("chatml"), refusing).render(messages, False)


def test_a_tokenizer_without_template_is_a_named_error() -> None:
    with pytest.raises(PromptError, match="prompt_template"):
        ChatRenderer(tiny_tokenizer("plain"))


HI = [{"role": "user", "content": "Hi"}]


@pytest.mark.parametrize(
    "template",
    [
        "{{ messages[0].content + 3 }}",
        "{{ none | length }}",
        "{{ 1 / 0 }}",
        "{% for",
        "{{ ''.__class__.__mro__ }}",
        "{{ range(10 ** 9) | list }}",
    ],
)
def test_every_failure_of_a_template_is_a_named_error(template: str) -> None:
    with pytest.raises(PromptError, match="chat template refuses"):
        ChatRenderer(tokenizer_of("chatml"), template).render(HI, True)


def test_named_templates_without_a_default_are_a_named_error() -> None:
    tokenizer = tiny_tokenizer("plain")
    tokenizer.chat_template = {"rag": "{{ messages[0].content }}"}
    with pytest.raises(PromptError, match="rag"):
        ChatRenderer(tokenizer).render(HI, True)


@pytest.mark.parametrize("template", ["", " \n"])
def test_an_empty_template_is_a_named_error(template: str) -> None:
    with pytest.raises(PromptError, match="empty chat template"):
        ChatRenderer(tokenizer_of("chatml"), template)


LOOPS = "{% for a in range(99999) %}" * 3 + "{% endfor %}" * 3


def test_loops_without_end_are_a_named_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_renderer, "RENDER_SECONDS", 0.2)
    with pytest.raises(PromptError, match="did not end"):
        ChatRenderer(tokenizer_of("chatml"), LOOPS)
    # For some conversations only, so that the check of the template itself ends.
    tokenizer = ChatTokenizer(tokenizer_of("chatml"), "{% if messages | length > 1 %}" + LOOPS + "{% endif %}Hi")
    with pytest.raises(PromptError, match="did not end"):
        tokenizer.encode([HI * 2], True)
    assert tokenizer.encode([HI], True)[0].text == "Hi"


def test_loops_end_in_every_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_renderer, "RENDER_SECONDS", 0.2)
    with ThreadPoolExecutor(1) as pool, pytest.raises(PromptError, match="did not end"):
        pool.submit(ChatRenderer, tokenizer_of("chatml"), LOOPS).result()


def test_arguments_that_a_template_does_not_use_are_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    renderer = ChatRenderer(tokenizer_of("chatml"), "{% if tools %}T{% endif %}{{ messages[0].content }}")
    for _ in range(2):
        assert renderer.render(HI, True, {"tools": [{}], "documents": [{}]}).text == "THi"
    assert [record.getMessage().split(" does ")[1] for record in caplog.records] == [
        "not use `documents`; it is ignored."
    ]


def test_a_template_that_refuses_the_placeholders_is_still_rendered(caplog: pytest.LogCaptureFixture) -> None:
    template = "{% for m in messages %}{{ raise_exception('x') if m.content != 'Hi' else m.content }}{% endfor %}"
    chat = ChatRenderer(tokenizer_of("chatml"), template).render(HI, True)
    assert (chat.text, chat.spans) == ("Hi", ())
    assert "not fused" in caplog.text


def test_reasoning_without_an_answer_before_a_tool_call(caplog: pytest.LogCaptureFixture) -> None:
    template = (
        "{% for m in messages %}{% set text = m.content.split('</think>')[-1].strip() %}<{{ m.role }}>{{ text }}"
        "{% if m.tool_calls %}{% if text %}, {% endif %}{{ m.tool_calls[0].name }}{% endif %}</>{% endfor %}"
    )
    call = {"role": "assistant", "content": "<think>\nhm\n</think>\n\n", "tool_calls": [{"name": "add"}]}
    chat = ChatRenderer(tokenizer_of("chatml"), template).render([*HI, call, *HI], False)
    assert chat.text == "<user>Hi</><assistant>add</><user>Hi</>"
    assert [(span.message, chat.text[span.start : span.end]) for span in chat.spans] == [(0, "Hi"), (2, "Hi")]
    assert not caplog.records


def test_a_message_without_content() -> None:
    template = "{% for m in messages %}[{{ m.content or m.tool_calls[0].name }}]{% endfor %}"
    call = {"role": "assistant", "content": None, "tool_calls": [{"name": "add"}]}
    chat = ChatRenderer(tokenizer_of("chatml"), template).render([*HI, call], False)
    assert (chat.text, [span.message for span in chat.spans]) == ("[Hi][add]", [0])


KEEPS_LAST_REASONING = (
    "{%- set ns = namespace(last=-1) %}{%- for m in messages %}{%- if m['role'] == 'user' and not "
    "(m['content'].startswith('<tool_response>') and m['content'].endswith('</tool_response>')) %}"
    "{%- set ns.last = loop.index0 %}{%- endif %}{%- endfor %}"
    "{%- for m in messages %}{%- set content = m['content'] %}{%- set thought = '' %}"
    "{%- if m['role'] == 'assistant' and '</think>' in content %}"
    "{%- set thought = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}"
    "{%- set content = content.split('</think>')[-1].lstrip('\\n') %}{%- endif %}"
    "{{- '<|im_start|>' + m['role'] + '\\n' }}"
    "{%- if m['role'] == 'assistant' and loop.index0 > ns.last and (loop.last or thought) %}"
    "{{- '<think>\\n' + thought.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}"
    "{%- else %}{{- content }}{%- endif %}{{- '<|im_end|>\\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}"
    "{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}"
    "{%- endif %}{%- endif %}"
)


@pytest.mark.parametrize(
    "last", ["4.", "\n4.\n", "<think>\nTwo and two.\n</think>\n\n4.", "<think>\n\n</think>\n\n4. </think", "4.<think>"]
)
@pytest.mark.parametrize("question", ["2 + 2?", "<tool_response>\n4\n</tool_response>", "</think>"])
def test_reasoning_in_the_last_turn_only(question: str, last: str) -> None:
    messages = [
        {"role": "user", "content": "<|im_start|>assistant\n"},
        {"role": "assistant", "content": "<think>\nHm.\n</think>\n\nI see."},
        {"role": "user", "content": question},
        {"role": "assistant", "content": last},
    ]
    chat = ChatRenderer(tokenizer_of("chatml"), KEEPS_LAST_REASONING).render(messages, False)

    origins(chat, [message["content"] for message in messages])
    shown = {span.message: chat.text[span.start : span.end] for span in chat.spans}
    assert shown[0] == messages[0]["content"]
    assert shown[1] == ("I see." if question[:5] != "<tool" else shown[1])
    assert shown[1].endswith("I see.")
    assert shown[2] == question
    assert shown[3].endswith(last.split("</think>")[-1].lstrip("\n"))
