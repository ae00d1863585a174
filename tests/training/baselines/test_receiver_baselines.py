"""Baselines that train the receiver: what moves, what is saved, and how much there is of it."""

import warnings
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
import torch.nn.functional as F

from c2c_lightning.data.batch import TrainingBatch
from c2c_lightning.errors import CheckpointError, ConfigurationError
from c2c_lightning.export.from_checkpoint import export_checkpoint
from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.model.lm_spec import LMSpec
from c2c_lightning.training.baselines import FullFineTuning, LoraBaseline, PartialFineTuning
from c2c_lightning.training.baselines.receiver_baseline import ReceiverBaseline
from c2c_lightning.training.baselines.tuned_receiver import TunedReceiver
from c2c_lightning.training.callbacks.export_fuser import ExportFuser
from c2c_lightning.training.module import C2CModule
from tests.training.runs import SMALL, batch, loader, module, trainer

ALL = [LoraBaseline(rank=2), PartialFineTuning(layers=1), FullFineTuning()]


def made(models: Path, baseline: ReceiverBaseline, **settings: Any) -> C2CModule:
    L.seed_everything(1, verbose=False)
    return module(models, settings={"baseline": baseline, **settings})


def tuned(module: C2CModule) -> TunedReceiver:
    module.configure_model()
    assert isinstance(module.model, TunedReceiver)
    return module.model


def weights(module: C2CModule) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in tuned(module).receiver.model.named_parameters()}


def fitted(module: C2CModule, folder: Path, steps: int, *callbacks: Any, **settings: Any) -> L.Trainer:
    run = trainer(folder, steps, callbacks, **settings)
    run.fit(module, loader(module, [[1, 2], [3, 4, 5], [6], [8, 9]]))
    return run


def is_adapter(name: str) -> bool:
    return "lora_" in name


def in_last_layer(name: str) -> bool:
    return ".layers.3." in name


@pytest.mark.parametrize(
    ("baseline", "moves", "is_recomputed"),
    [
        (LoraBaseline(rank=2), is_adapter, False),
        (LoraBaseline(rank=2), is_adapter, True),
        (PartialFineTuning(layers=1), in_last_layer, False),
        (FullFineTuning(), lambda name: True, True),
    ],
    ids=["lora", "lora recomputed", "partial", "full recomputed"],
)
def test_the_chosen_weights_move_and_no_others(
    models: Path, tmp_path: Path, baseline: ReceiverBaseline, moves: Any, is_recomputed: bool
) -> None:
    trained = made(models, baseline, activation_checkpointing=is_recomputed)
    before = weights(trained)
    fitted(trained, tmp_path, 3)
    after = weights(trained)
    assert {name for name, value in after.items() if not torch.equal(value, before[name])} == set(filter(moves, after))


def reference_loss(model: Any, batch: TrainingBatch) -> torch.Tensor:
    """Each row alone, without padding, by the model's own code."""
    total = torch.zeros(())
    for row in range(len(batch)):
        prompt = batch.prompt.receiver.input_ids[row][batch.prompt.receiver.mask[row].bool()]
        response = batch.response_ids[row][batch.response_mask[row]]
        logits = model(input_ids=torch.cat([prompt, response])[None]).logits[0, len(prompt) - 1 : -1]
        total = total + F.cross_entropy(logits, response, reduction="sum")
    return total


@pytest.mark.parametrize("baseline", ALL, ids=["lora", "partial", "full"])
def test_loss_and_gradients_are_those_of_the_model_itself(models: Path, baseline: ReceiverBaseline) -> None:
    trained = made(models, baseline)
    model = tuned(trained)
    with torch.no_grad():  # fresh adapters change nothing
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    rows = batch(trained, [3, 14, 7])
    names, parameters = zip(*model.trained.items(), strict=True)
    expected = reference_loss(model.receiver.model, rows)
    loss = model.batch_loss(rows)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-4)
    pairs = zip(torch.autograd.grad(loss, parameters), torch.autograd.grad(expected, parameters), strict=True)
    for name, (mine, theirs) in zip(names, pairs, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4, msg=name)


def test_adapters_of_a_bfloat16_receiver_are_float32(models: Path, tmp_path: Path) -> None:
    specs = [LMSpec(str(models / name), dtype="bfloat16") for name in ("receiver", "sharer")]
    trained = C2CModule(specs[0], specs[1:], FuserConfig(**SMALL), baseline=LoraBaseline(rank=2))
    fitted(trained, tmp_path, 2)
    assert {parameter.dtype for parameter in trained.parameters()} == {torch.float32}
    frozen = [p.dtype for n, p in tuned(trained).receiver.model.named_parameters() if not is_adapter(n)]
    assert set(frozen) == {torch.bfloat16}


def test_without_adapters_the_loss_is_the_receivers(models: Path, tmp_path: Path) -> None:
    trained = made(models, LoraBaseline(rank=2))
    rows = batch(trained, [1, 2, 3])
    before = tuned(trained).batch_loss(rows).detach()
    fitted(trained, tmp_path, 3)
    with torch.no_grad():
        after, bare = (trained.model.batch_loss(rows, active_sharers=active) for active in (None, ()))
    assert torch.equal(bare, before)
    assert not torch.allclose(after, before)
    assert all(parameter.requires_grad for parameter in trained.parameters())


@pytest.mark.parametrize(
    ("baseline", "names"),
    [(LoraBaseline(rank=2), {"val/loss", "val/loss_receiver"}), (FullFineTuning(), {"val/loss"})],
    ids=["lora", "full"],
)
def test_validation_losses(models: Path, tmp_path: Path, baseline: ReceiverBaseline, names: set[str]) -> None:
    trained = made(models, baseline)
    rows = loader(trained, [[1, 2], [3, 4]])
    run = trainer(tmp_path, 2)
    run.fit(trained, rows, rows)
    assert {name for name in run.callback_metrics if name.startswith("val/")} == names


@pytest.mark.parametrize("baseline", ALL, ids=["lora", "partial", "full"])
def test_a_checkpoint_holds_the_trained_weights_alone_and_resumes(
    models: Path, tmp_path: Path, baseline: ReceiverBaseline
) -> None:
    half = made(models, baseline)
    run = fitted(half, tmp_path / "half", 2)
    path = tmp_path / "half.ckpt"
    run.save_checkpoint(path)
    saved = torch.load(path, weights_only=True)
    assert set(saved["state_dict"]) == {f"model.trained.{name}" for name in tuned(half).trained}
    again = made(models, baseline)
    trainer(tmp_path / "again", 3).fit(again, loader(again, [[1, 2], [3, 4, 5], [6]]), ckpt_path=path)
    assert not torch.equal(*(next(iter(tuned(run).trained.values())) for run in (half, again)))
    loaded = C2CModule.load_from_checkpoint(path)
    assert loaded.baseline == baseline
    for name, value in weights(half).items():
        assert torch.equal(value, weights(loaded)[name]), name
    with pytest.raises(CheckpointError, match="holds a trained receiver"):
        export_checkpoint(path, tmp_path / "fuser")


def test_adapters_are_written_in_the_format_of_peft(models: Path, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    trained = made(models, LoraBaseline(rank=2))
    fitted(trained, tmp_path, 3, ExportFuser())
    files = {path.name for path in (tmp_path / "receiver").iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors"} <= files
    assert not any(name.startswith("model") for name in files)
    base = AutoModelForCausalLM.from_pretrained(models / "receiver")
    with warnings.catch_warnings():  # of PEFT 0.21 with transformers 5.23
        warnings.simplefilter("ignore", FutureWarning)
        read = PeftModel.from_pretrained(base, tmp_path / "receiver")
    ids = torch.tensor([[5, 6, 7]])
    torch.testing.assert_close(read(input_ids=ids).logits, tuned(trained).receiver.model(input_ids=ids).logits)


def test_a_tuned_receiver_is_written_as_a_model(models: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    trained = made(models, FullFineTuning())
    fitted(trained, tmp_path, 2, ExportFuser())
    read = AutoModelForCausalLM.from_pretrained(tmp_path / "receiver")
    assert AutoTokenizer.from_pretrained(tmp_path / "receiver").chat_template
    for name, value in read.named_parameters():
        assert torch.equal(value, weights(trained)[name]), name


def test_as_many_parameters_as_the_fuser(models: Path) -> None:
    fuser = module(models)
    fuser.configure_model()
    budget = sum(p.numel() for p in fuser.parameters())
    for whole, least in ((LoraBaseline(), LoraBaseline(rank=1)), (PartialFineTuning(), PartialFineTuning(layers=1))):
        smallest = tuned(made(models, least)).num_trained
        assert abs(tuned(made(models, whole)).num_trained - budget) <= smallest / 2


def test_private_rows_with_and_without_the_document(models: Path) -> None:
    question = [{"role": "user", "content": "Who is it?"}, {"role": "assistant", "content": "Ada."}]
    private = [{"role": "system", "content": "It is Ada."}, question[0]]
    by_name = {}
    for reads in ("question", "document"):
        trained = made(models, LoraBaseline(rank=1, reads=reads))  # type: ignore[arg-type]
        example = trained.encoder.encode_example(question, private)
        tokenizer = trained.encoder.receiver_tokenizer.tokenizer
        by_name[reads] = tokenizer.decode(example.prompt.receiver_ids), tokenizer.decode(example.response_ids)
    assert "It is Ada" not in by_name["question"][0]
    assert "It is Ada" in by_name["document"][0]
    assert by_name["question"][1] == by_name["document"][1]


@pytest.mark.parametrize(
    ("baseline", "message"),
    [
        (LoraBaseline(target_modules=["q_proj", "nope"]), "no module 'nope'.*k_proj"),
        (LoraBaseline(target_modules="nope"), "no module 'nope'"),
        (LoraBaseline(rank=25), "a rank of 25 is higher than .*_proj can have"),
        (LoraBaseline(parameters=10**9), "higher than"),
        (PartialFineTuning(layers=5), "has 4 layers"),
        (PartialFineTuning(layers=0), "has 4 layers"),
    ],
)
def test_impossible_baselines_are_refused(models: Path, baseline: ReceiverBaseline, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        made(models, baseline).configure_model()


def test_sharding_and_compiling_are_refused(models: Path) -> None:
    with pytest.raises(ConfigurationError, match="neither sharded nor compiled"):
        made(models, LoraBaseline(rank=1), compile_fuser=True).configure_model()


def test_rank_or_parameters() -> None:
    with pytest.raises(ConfigurationError, match="not both"):
        LoraBaseline(rank=1, parameters=8)


def test_no_cache_of_a_trained_receiver_is_kept(models: Path, tmp_path: Path) -> None:
    plain, kept = (made(models, LoraBaseline(rank=2), cache_frozen=where) for where in (None, "memory"))
    for trained in (plain, kept):
        L.seed_everything(1, verbose=False)
        fitted(trained, tmp_path, 3)
    for name, value in weights(plain).items():
        assert torch.equal(value, weights(kept)[name]), name
