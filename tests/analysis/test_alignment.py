import json
from pathlib import Path

import pytest

from c2c_lightning.analysis.alignment_report import AlignmentReport, alignment_report
from c2c_lightning.data.encode import Encoder, TokenAlignment, TokenizerSpec
from c2c_lightning.errors import PromptError
from tests.alignment.styles import tokenizer_of

CHATS = [
    [{"role": "user", "content": "What is the capital of Arlen?"}],
    [{"role": "system", "content": "Sei höflich."}, {"role": "user", "content": "你好, 한국! <b>&</b>"}],
]


def report(alignment: TokenAlignment, *sharers: str) -> AlignmentReport:
    specs = [TokenizerSpec(tokenizer_of(name)) for name in sharers]
    return alignment_report(Encoder(TokenizerSpec(tokenizer_of("chatml")), specs, alignment), CHATS)


def test_span_covers_all_messages_and_damages_none() -> None:
    (sharer,) = report("span", "gemma").sharers
    counts = sharer.counts
    assert sharer.strategy == "span"
    assert counts.conversations == 2
    assert counts.messages == 3
    assert counts.coverage == 1.0
    assert counts.fused_tokens == counts.fused_message_tokens == counts.message_tokens
    assert counts.message_tokens < counts.receiver_tokens
    assert counts.damaged_messages == counts.replacement_marks == 0


def test_retokenisation_damages_characters_of_several_tokens() -> None:
    (sharer,) = report("longest", "gemma").sharers
    assert sharer.counts.coverage == 1.0
    assert sharer.counts.damaged_messages >= 1
    assert sharer.counts.replacement_marks > 0


def test_identity_fuses_the_template_too() -> None:
    counts = report("auto", "chatml").sharers[0].counts
    assert counts.fused_tokens == counts.receiver_tokens - counts.conversations
    assert counts.damaged_messages == 0


def test_template_tokens_by_option() -> None:
    (own,), (sharer,) = report("span", "gemma").sharers, report("span_template", "gemma").sharers
    assert sharer.strategy == "span_template"
    assert sharer.counts.fused_tokens == sharer.counts.receiver_tokens - sharer.counts.conversations
    assert sharer.counts.fused_message_tokens == own.counts.fused_message_tokens
    assert sharer.counts.damaged_messages == 0


def test_private_context_counts_shared_messages_only() -> None:
    encoder = Encoder(TokenizerSpec(tokenizer_of("chatml")), [TokenizerSpec(tokenizer_of("gemma"))], "span")
    private = [{"role": "user", "content": "The capital of Arlen is Velmora. " + CHATS[0][0]["content"]}]
    counts = alignment_report(encoder, CHATS[:1], [private]).sharers[0].counts
    assert counts.coverage == 1.0
    assert counts.damaged_messages == 0
    assert counts.sharer_tokens > alignment_report(encoder, CHATS[:1]).sharers[0].counts.sharer_tokens


def test_text_and_page_show_every_token(tmp_path: Path) -> None:
    both = report("span", "gemma", "phi")
    text = both.to_text()
    assert text.count("Sharer ") == 2
    for picture in (sharer.picture for sharer in both.sharers):
        assert all(token in text for token in (*picture.receiver, *picture.sharer))
    page = both.to_html(tmp_path / "alignment.html").read_text(encoding="utf-8")
    assert page.count("<section>") == 2
    assert page.count("<span class") == sum(len(s.picture.receiver) + len(s.picture.sharer) for s in both.sharers)
    assert "<|im_start|>" not in page  # tokens are escaped


def test_report_is_plain_json(tmp_path: Path) -> None:
    numbers = json.loads(report("span", "gemma").save(tmp_path / "alignment.json").read_text())
    assert numbers["sharers"][0]["coverage"] == 1.0
    assert numbers["sharers"][0]["strategy"] == "span"


def test_no_conversation_is_a_named_error() -> None:
    with pytest.raises(PromptError, match="no conversation"):
        alignment_report(Encoder(TokenizerSpec(tokenizer_of("chatml")), []), [])
