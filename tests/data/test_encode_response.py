import pytest

from c2c_lightning.data.encode import Encoder, TokenizerSpec
from c2c_lightning.data.prompt_template import PromptTemplate
from c2c_lightning.errors import DataError
from tests.alignment.styles import STYLES, rendered, tokenizer_of
from tests.data.encoders import EXAMPLE, QUESTION, encoder, text_of


@pytest.mark.parametrize("name", STYLES)
def test_response_ids_continue_the_prompt(name: str) -> None:
    example = encoder(name, "chatml", alignment="span").encode_example(EXAMPLE)
    full = rendered(name, EXAMPLE, False)[0]
    opened = rendered(name, QUESTION, True)[0]
    if full.startswith(opened):
        # The plain template closes a turn with text only, so the end token is added.
        end = "<|finish|>" if name == "plain" else ""
        assert text_of(name, example.prompt.receiver_ids + example.response_ids) == full + end
    assert "Velmora." in text_of(name, example.response_ids)


def test_the_closing_of_the_turn_is_learnt_too() -> None:
    example = encoder("chatml", "chatml").encode_example(EXAMPLE)
    assert text_of("chatml", example.response_ids) == "Velmora.<|im_end|>\n"


def test_a_token_across_the_border_of_the_response_is_cut_there() -> None:
    # "\n\n" is one token of this tokenizer, the prompt ends with the first half of it.
    tokenizer = tokenizer_of("chatml")
    assert len(tokenizer("\n\n")["input_ids"]) == 1
    messages = [*QUESTION, {"role": "assistant", "content": "\nVelmora."}]
    example = encoder("chatml", "chatml").encode_example(messages)
    assert example.prompt == encoder("chatml", "chatml").encode(QUESTION)
    assert text_of("chatml", example.response_ids) == "\nVelmora.<|im_end|>\n"


def test_a_template_that_writes_finished_turns_otherwise() -> None:
    template = PromptTemplate(
        "odd",
        "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] | trim }}</>{% endfor %}"
        "{% if add_generation_prompt %}<now>{% endif %}",
    )
    spec = TokenizerSpec(tokenizer_of("chatml"), template)
    example = Encoder(spec, [spec]).encode_example([*QUESTION, {"role": "assistant", "content": " Velmora. "}])
    assert text_of("chatml", example.response_ids) == "Velmora.</><|im_end|>"


def test_a_template_that_hides_the_response_is_a_named_error() -> None:
    template = PromptTemplate("mute", "{% for m in messages if m['role'] == 'user' %}{{ m['content'] }};{% endfor %}")
    spec = TokenizerSpec(tokenizer_of("chatml"), template)
    with pytest.raises(DataError, match="nothing to learn"):
        Encoder(spec, [spec]).encode_example(EXAMPLE)
