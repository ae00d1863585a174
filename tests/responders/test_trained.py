"""Trained baselines answer in evaluations: the trained weights, and an unchanged receiver beside them."""

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch

from c2c_lightning.errors import BenchmarkError, FuserFormatError, PairMismatchError
from c2c_lightning.model.frozen_lm import FrozenLM
from c2c_lightning.model.lm_spec import LMSpec
from c2c_lightning.model.load_lm import load_frozen
from c2c_lightning.responders.finetuned import with_adapters
from c2c_lightning.responders.registry import factory_of
from c2c_lightning.responders.responder_factory import ModelBundle, ResponderFactory
from c2c_lightning.responders.trained import Lora, MismatchTrained, Tuned
from c2c_lightning.training.baselines import Baseline, FullFineTuning, LoraBaseline, MismatchedCaches
from c2c_lightning.training.callbacks.export_fuser import ExportFuser
from tests.training.runs import loader, module, trainer

QUESTIONS = [[{"role": "user", "content": text}] for text in ("What is the river of 3?", "What is 12?")]


def run(models: Path, folder: Path, baseline: Baseline) -> Path:
    """The output of a short training."""
    L.seed_everything(1, verbose=False)
    made = module(models, lr=0.05, settings={"baseline": baseline})
    trainer(folder, 4, [ExportFuser()]).fit(made, loader(made, [[1, 2], [3, 4, 5], [6, 7], [8, 9]]))
    return folder / baseline.output_name


@pytest.fixture(scope="module")
def adapters(models: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(run(models, tmp_path_factory.mktemp("lora"), LoraBaseline(rank=4)))


@pytest.fixture
def bundle(models: Path) -> ModelBundle:
    receiver, sharer = (load_frozen(LMSpec(str(models / name))) for name in ("receiver", "sharer"))
    return ModelBundle(receiver, (sharer,))


def scores(factory: ResponderFactory, bundle: ModelBundle) -> torch.Tensor:
    options = [["river", "answer"], ["12", "no"]]
    return torch.tensor([s.log_probabilities for s in factory.build(bundle).score(QUESTIONS, options)])


def logits(model: Any) -> torch.Tensor:
    result: torch.Tensor = model(input_ids=torch.tensor([[4, 5, 6, 7]])).logits
    return result


def test_adapters_answer_and_the_receiver_beside_them_stays_bare(adapters: str, bundle: ModelBundle) -> None:
    bare = logits(bundle.receiver.model)
    before = scores(factory_of("receiver"), bundle)
    trained = scores(Lora(adapters), bundle)
    assert (trained - before).abs().max() > 0.01
    assert torch.equal(scores(factory_of("receiver"), bundle), before)
    assert torch.equal(logits(bundle.receiver.model), bare)
    assert Lora(adapters).name == "receiver:lora"


def test_adapters_share_the_weights_of_the_receiver(adapters: str, bundle: ModelBundle) -> None:
    storages = {p.data_ptr() for p in bundle.receiver.model.parameters()}
    adapted = with_adapters(bundle.receiver, adapters).model
    others = [name for name, p in adapted.named_parameters() if p.data_ptr() not in storages]
    assert others
    assert all("lora_" in name for name in others)


def test_a_tuned_receiver_answers(models: Path, tmp_path: Path, bundle: ModelBundle) -> None:
    folder = run(models, tmp_path, FullFineTuning())
    before = scores(factory_of("receiver"), bundle)
    assert (scores(Tuned(str(folder)), bundle) - before).abs().max() > 0.01
    assert Tuned(str(folder), "document", "all").name == "receiver:all:document"


def test_a_fuser_trained_on_mismatched_caches_answers(models: Path, tmp_path: Path, bundle: ModelBundle) -> None:
    folder = run(models, tmp_path, MismatchedCaches())
    assert "MismatchedCaches" in (folder / "README.md").read_text()
    factory = MismatchTrained(str(folder))
    factory.check()
    assert factory.name == "c2c:trained_mismatched"
    assert (scores(factory, bundle) - scores(factory_of("receiver"), bundle)).abs().max() > 1e-4


def test_adapters_of_another_model_are_refused(adapters: str, models: Path) -> None:
    other: FrozenLM = load_frozen(LMSpec(str(models / "sharer")))
    with pytest.raises(PairMismatchError, match="was not trained on"):
        with_adapters(other, adapters)


def test_a_tuned_copy_of_another_model_is_refused(models: Path, bundle: ModelBundle) -> None:
    with pytest.raises(PairMismatchError, match="shapes of their caches differ"):
        Tuned(str(models / "sharer")).build(bundle)


@pytest.mark.parametrize(
    ("factory", "error", "message"),
    [
        (Lora, BenchmarkError, "adapter_model.safetensors"),
        (Tuned, BenchmarkError, "holds no model"),
        (MismatchTrained, FuserFormatError, "fuser_config.json"),
    ],
)
def test_empty_folders_are_refused(tmp_path: Path, factory: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        factory(str(tmp_path)).check()


@pytest.mark.parametrize("name", ["receiver:lora", "receiver:tuned", "c2c:trained_mismatched"])
def test_a_name_alone_says_what_is_missing(name: str) -> None:
    with pytest.raises(BenchmarkError, match=r"needs the folder.*class_path: c2c_lightning\.responders\.trained\."):
        factory_of(name)
