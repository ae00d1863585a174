"""The message of served text-to-text."""

from c2c_lightning.serving.answer_row import AnswerRow, AnswerSettings
from c2c_lightning.serving.model_catalogue import ModelCatalogue
from c2c_lightning.serving.prepared_prompt import C2CChoices
from c2c_lightning.serving.request_control import RequestControl
from c2c_lightning.serving.text_to_text_served import TextToTextServed
from tests.serving.served import ask, catalogue


def message(models: ModelCatalogue) -> str:
    row = AnswerRow(
        models.get("t2t").prepare(ask("Name a city."), C2CChoices()), AnswerSettings(2), RequestControl(60.0)
    )
    models.get("t2t").answer([row])
    return str(row.facts["message"])


def test_a_message_ends_where_a_base_model_begins_the_next_turn() -> None:
    models = catalogue()
    served = models.get("t2t")
    assert isinstance(served, TextToTextServed)
    whole = message(models)
    next_turn = whole[len(whole) // 2 :]
    assert next_turn
    # As a plain prompt template would have it.
    served.sharer_alone.encoder.receiver_tokenizer.__dict__["next_turn"] = next_turn
    assert message(models) == whole.split(next_turn, 1)[0]
