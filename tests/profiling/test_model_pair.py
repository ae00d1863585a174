"""Random pairs are as large as they say and read numbers; real ones come from their files."""

import pytest
import torch

from c2c_lightning.errors import ConfigurationError
from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.model.lm_spec import LMSpec
from c2c_lightning.profiling.model_pair import FIRST_WORD, LoadedPair, RandomPair, number_tokenizer
from tests.profiling.pairs import RECEIVER, SHARER, tiny


def test_a_token_is_its_number() -> None:
    tokenizer, ids = number_tokenizer(32000), [10, 31999, 100, FIRST_WORD]
    assert tokenizer.decode(ids) == "10 31999 100 4"
    assert tokenizer(tokenizer.decode(ids))["input_ids"] == ids
    messages = [{"role": "user", "content": "10 20"}, {"role": "assistant", "content": "30"}]
    assert tokenizer.apply_chat_template(messages)["input_ids"] == [2, 10, 20, 3, 1, 30, 3]
    opened = tokenizer.apply_chat_template(messages[:1], add_generation_prompt=True)["input_ids"]
    assert opened == [2, 10, 20, 3, 1]


def test_a_random_pair_is_the_same_each_time_and_leaves_random_numbers_alone() -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    first, second = tiny().build("cpu"), tiny().build("cpu")
    assert torch.equal(torch.rand(3), expected)
    weights = [list(model.fuser.parameters()) + list(model.receiver.model.parameters()) for model in (first, second)]
    assert all(torch.equal(a, b) for a, b in zip(*weights, strict=True))
    assert [(g.kv_heads, g.key_dim) for g in first.receiver.geometry.layers] == [(2, 12)] * 3


def test_its_type_is_that_of_the_frozen_models_alone() -> None:
    model = RandomPair(RECEIVER, [SHARER], FuserConfig(hidden_dim=8, intermediate_dim=8), dtype="bfloat16").build("cpu")
    assert {weight.dtype for weight in model.receiver.model.parameters()} == {torch.bfloat16}
    assert {weight.dtype for weight in model.fuser.parameters()} == {torch.float32}


def test_an_impossible_model_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="no model can be made of"):
        RandomPair({"model_type": "nonsense"}, [SHARER]).build("cpu")


def test_real_models() -> None:
    config = FuserConfig(hidden_dim=8, intermediate_dim=8, token_alignment="span")
    model = LoadedPair(LMSpec("embedded:receiver"), [LMSpec("embedded:sharer")], config).build("cpu")
    assert (model.receiver.geometry.num_layers, model.sharers[0].geometry.num_layers) == (4, 6)
