"""Several fusers on one server: language models are loaded once, every fused pair has a name."""

from pathlib import Path

import pytest
import torch

from c2c_lightning.errors import ConfigurationError, PromptError
from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.model.load_lm import load_frozen
from c2c_lightning.serving.gate_choices import with_gates
from c2c_lightning.serving.model_catalogue import ModelCatalogue, UnknownModelError, load_fusers, named_fuser
from c2c_lightning.serving.model_list import model_list
from c2c_lightning.serving.prefix_cache import PrefixCache
from c2c_lightning.serving.prepared_prompt import C2CChoices
from tests.serving.served import ask, fused_model


def save(folder: Path, *sharers: str, seed: int = 0) -> str:
    """A fuser of embedded models, not trained."""
    torch.manual_seed(seed)
    config = FuserConfig(hidden_dim=16, intermediate_dim=16, dropout=0.0, token_alignment="span")
    models = [load_frozen(f"embedded:{name}") for name in ("receiver", *sharers)]
    return str(C2CModel(models[0], models[1:], config).save_pretrained(folder / "fuser"))


def test_language_models_are_loaded_once_and_named_once(tmp_path: Path) -> None:
    first = save(tmp_path / "first", "sharer")
    second = save(tmp_path / "second", "sharer", "sharer_naive", seed=1)
    fused = load_fusers([first, f"pair={second}"])
    assert list(fused) == ["first", "pair"]
    one, other = fused.values()
    assert one.receiver is other.receiver
    assert one.sharers[0] is other.sharers[0]
    catalogue = ModelCatalogue(fused, PrefixCache(0))
    assert list(catalogue.models) == ["receiver", "sharer", "sharer:1", "t2t", "c2c:first", "c2c:pair"]
    listed = {entry["id"]: entry["c2c"] for entry in model_list(catalogue, 0)["data"]}
    assert listed["c2c:pair"]["sharers"] == ["embedded:sharer", "embedded:sharer_naive"]
    assert listed["c2c:pair"]["baselines"] == {"receiver": "receiver", "t2t": "t2t"}
    assert str(tmp_path) not in str(listed)
    with pytest.raises(UnknownModelError, match="c2c:first, c2c:pair"):
        catalogue.get("c2c")


def test_two_fusers_of_one_name_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="Two fusers have the name 'a'"):
        load_fusers(["a=x", "a=y"])  # before anything is loaded: neither exists


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("runs/quickstart/fuser", "quickstart"), ("runs/quickstart/fuser/", "quickstart"), ("a=/b/c", "a"),
        ("owner/name", "name"), ("runs/x/checkpoints/last.ckpt", "last"), ("/x=y/fuser", "x=y"), ("fuser", "fuser"),
    ],
)  # fmt: skip
def test_the_name_of_a_fuser(given: str, name: str) -> None:
    assert named_fuser(given)[0] == name


def test_open_and_closed_gates_share_all_other_tensors() -> None:
    fuser = fused_model().fuser
    before = {name: tensor.clone() for name, tensor in fuser.state_dict().items()}
    closed = with_gates(fuser, is_open=False)
    assert not any(gate.is_open.any() for _, _, *gates in closed.gates() for gate in gates)
    for name, tensor in fuser.state_dict().items():
        assert torch.equal(tensor, before[name])
        is_gate = name.endswith("gate.logit")
        assert (closed.state_dict()[name].data_ptr() == tensor.data_ptr()) != is_gate, name


def test_each_sharer_reads_its_own_private_messages() -> None:
    catalogue = ModelCatalogue({"pair": fused_model(2)}, PrefixCache(0))
    shared, private, both = ask("Hi"), ask("Arlen"), ask("Velmora")
    for name, given, read in (
        ("receiver", [private, both], shared),
        ("sharer", [private, both], private),
        ("sharer:1", [private, both], both),
        ("sharer:1", [private, None], shared),
        ("sharer:1", private, private),
        ("t2t", [None, both], shared),
    ):
        served = catalogue.get(name)
        expected = served.prepare(read, C2CChoices()).encoded.receiver_ids
        assert served.prepare(shared, C2CChoices(sharer_messages=given)).encoded.receiver_ids == expected
    with pytest.raises(PromptError, match="none for sharer 1"):
        catalogue.get("sharer:1").prepare(shared, C2CChoices(sharer_messages=[private]))
