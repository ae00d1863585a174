from c2c_lightning.alignment.chat_renderer import RenderedChat
from c2c_lightning.alignment.common_context import SharedText, content_ranges, shared_runs, shared_texts
from c2c_lightning.alignment.content_spans import MessageSpan
from c2c_lightning.alignment.span_alignment import SharedRun


def user(content: str) -> dict[str, str]:
    return {"role": "user", "content": content}


def system(content: str) -> dict[str, str]:
    return {"role": "system", "content": content}


def assistant(content: str) -> dict[str, str]:
    return {"role": "assistant", "content": content}


def test_equal_conversations_share_everything() -> None:
    messages = [system("Be terse."), user("Hi"), assistant(""), user("Hi")]
    expected = [SharedText(n, n, 0, 0, len(m["content"])) for n, m in enumerate(messages)]
    assert shared_texts(messages, messages) == expected


def test_messages_are_counted_from_the_last_one() -> None:
    receiver = [user("Where?")]
    sharer = [system("A document."), user("What?"), assistant("This."), user("Where?")]
    assert shared_texts(receiver, sharer) == [SharedText(0, 3, 0, 0, 6)]


def test_nothing_before_a_difference_is_shared() -> None:
    receiver = [user("a"), assistant("b"), user("c")]
    sharer = [user("a"), assistant("B"), user("c")]
    assert shared_texts(receiver, sharer) == [SharedText(2, 2, 0, 0, 1)]
    assert shared_texts(receiver, [user("other")]) == []


def test_the_same_text_in_another_role_is_not_shared() -> None:
    assert shared_texts([user("a")], [assistant("a")]) == []


def test_a_common_end_of_the_content_is_shared_and_nothing_before_it() -> None:
    question = "What is the capital of X?"
    longer = [assistant("ok"), user("The capital of X is V. " + question)]
    shorter = [assistant("ok"), user(question)]
    assert shared_texts(shorter, longer) == [SharedText(1, 1, 0, 23, len(question))]
    assert shared_texts(longer, shorter) == [SharedText(1, 1, 23, 0, len(question))]


def test_what_a_template_cut_off_is_left_out() -> None:
    # The receiver shows " abc " in full, the sharer "abc" at another place.
    receiver = RenderedChat("[ abc ]", (MessageSpan(0, 0, 1, 6),))
    sharer = RenderedChat("<<abc>>", (MessageSpan(0, 1, 2, 5),))
    assert shared_runs(receiver, sharer, [SharedText(0, 0, 0, 0, 5)]) == [SharedRun(2, 2, 3)]
    assert shared_runs(sharer, receiver, [SharedText(0, 0, 0, 0, 5)]) == [SharedRun(2, 2, 3)]
    assert content_ranges(sharer, [(0, 0, 5), (0, 0, 1), (1, 0, 5)]) == [(2, 5), None, None]


def test_a_shared_end_in_two_texts() -> None:
    receiver = RenderedChat("[why?]", (MessageSpan(0, 0, 1, 5),))
    sharer = RenderedChat("<So. why?>", (MessageSpan(0, 0, 1, 9),))
    assert shared_runs(receiver, sharer, [SharedText(0, 0, 0, 4, 4)]) == [SharedRun(1, 5, 4)]


def test_a_message_that_one_side_does_not_show_has_no_run() -> None:
    receiver = RenderedChat("[a]", (MessageSpan(0, 0, 1, 2),))
    assert shared_runs(receiver, RenderedChat("[]", ()), [SharedText(0, 0, 0, 0, 1)]) == []
