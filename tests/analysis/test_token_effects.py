"""Which fused tokens decide an answer."""

import pytest
import torch

from c2c_lightning.analysis.row_scores import score_batch
from c2c_lightning.analysis.token_effects import _batch, share_of_gain, token_effects
from c2c_lightning.analysis.token_page import html_page, terminal_text
from c2c_lightning.data.messages import with_context
from c2c_lightning.errors import PromptError
from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.model.load_lm import load_frozen

QUESTION = [{"role": "user", "content": "What is the <capital> of Nepi?"}]


@pytest.fixture(scope="module", params=["prefill", "prompt"])
def model(request: pytest.FixtureRequest) -> C2CModel:
    torch.manual_seed(0)
    config = FuserConfig(
        hidden_dim=16, intermediate_dim=16, gate_init=1.0, token_alignment="span", fusion_mode=request.param
    )
    return C2CModel(load_frozen("embedded:receiver"), [load_frozen("embedded:sharer")], config).eval()


def test_effects_of_all_fused_tokens_and_messages(model: C2CModel) -> None:
    counts: list[int] = []
    effects = token_effects(model, QUESTION, answer="Arden.", batch_size=4, done=counts.append)
    batch = _batch(model, QUESTION, None, "Arden.")
    assert effects.log_likelihood == pytest.approx(score_batch(model, batch).log_likelihood[0], rel=1e-4)
    assert effects.unfused == pytest.approx(score_batch(model, batch, None, ()).log_likelihood[0], rel=1e-4)
    fused = [part for part in effects.tokens if part.effect is not None]
    assert len(fused) == int((batch.prompt.sharers[0].index >= 0).sum()) + (model.mode.fuses_last_prompt_token)
    assert sum(counts) == 2 + len(fused) + len(effects.messages)
    (message,) = effects.messages
    assert message.text == "user 1"
    if not model.mode.fuses_last_prompt_token:
        # Nothing but the one message is fused, so its effect is that of the whole fusion.
        assert share_of_gain(effects, message) == pytest.approx(1.0, rel=1e-3)


def test_pages_show_every_token_escaped(model: C2CModel) -> None:
    effects = token_effects(model, QUESTION, with_context("The capital of Nepi is Derna.", QUESTION))
    page = html_page(effects, "asked & answered")
    assert "asked &amp; answered" in page
    assert page.count("<span") == len(effects.tokens)
    assert "<capital" not in page.split("</style>")[1]
    assert "capital" in terminal_text(effects).plain
    assert effects.to_json()["version"] == 1


def test_without_fused_tokens_there_is_nothing_to_leave_out(model: C2CModel) -> None:
    if model.mode.fuses_last_prompt_token:
        pytest.skip("the last prompt token is always fused in this mode")
    with pytest.raises(PromptError, match="no token of this prompt is fused"):
        token_effects(model, [{"role": "user", "content": ""}], answer="Arden.")
    with pytest.raises(PromptError, match="answer is empty"):
        token_effects(model, QUESTION, answer=" ")
