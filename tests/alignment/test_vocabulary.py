import pytest

from c2c_lightning.errors import ModelLoadError
from c2c_lightning.model.load_lm import load_frozen
from tests.tiny import tiny_model, tiny_tokenizer


def test_added_tokens_without_an_embedding_are_a_named_error() -> None:
    tokenizer = tiny_tokenizer("plain")
    model = tiny_model("llama", vocab_size=len(tokenizer))
    load_frozen((model, tokenizer))
    tokenizer.add_tokens(["<extra>"])
    with pytest.raises(ModelLoadError, match=r"1 added tokens.*<extra>.*embeddings"):
        load_frozen((model, tokenizer))
