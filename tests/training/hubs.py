"""Small trainings of a hub: three models in a folder, rows, a module, a data module."""

from pathlib import Path
from typing import Any

from torch.optim import SGD, AdamW

from c2c_lightning.data.hub_datamodule import HubDataModule
from c2c_lightning.data.sources import Messages
from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.model.lm_spec import LMSpec
from c2c_lightning.training.hub_module import HubModule
from c2c_lightning.training.optim import Schedule
from tests.tiny import tiny_pair
from tests.training.runs import write_rows

NAMES = {"qwen": "qwen3", "llama": "llama", "mistral": "mistral"}

FUSER: dict[str, Any] = {
    "kind": "hub",
    "hidden_dim": 8,
    "intermediate_dim": 8,
    "dropout": 0.0,
    "gate_init": 1.0,
    "token_alignment": "span",
    "layer_alignment": "depth",
    "options": {"latent_layers": 4, "latent_dim": 8},
}


def save_models(folder: Path) -> Path:
    """Three models of different families as directories."""
    for number, (name, family) in enumerate(NAMES.items()):
        model, tokenizer = tiny_pair(family, number)
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    return folder


def specs(models: Path, *names: str) -> dict[str, LMSpec]:
    """The models of `save_models` by name; default all."""
    return {name: LMSpec(str(models / name)) for name in names or NAMES}


def module(models: Path, *names: str, plain: bool = False, **settings: Any) -> HubModule:
    """A module over the models of `save_models`; `plain` takes gradients as steps."""
    fuser = FuserConfig(**{**FUSER, **settings.pop("fuser", {})})

    def optimizer(parameters: Any) -> Any:
        return SGD(parameters, lr=1.0) if plain else AdamW(parameters, lr=0.01)

    schedule = Schedule("constant_with_warmup", 0.0)
    return HubModule(specs(models, *names), fuser=fuser, optimizer=optimizer, schedule=schedule, **settings)


def data(folder: Path, **settings: Any) -> HubDataModule:
    """Rows of different number for each sharer; a part of them is held out."""
    rows: Any = {
        name: Messages(write_rows(folder / f"{name}.jsonl", count))
        for name, count in zip(NAMES, (20, 14, 24), strict=True)
    }
    return HubDataModule(
        rows, validation_share=0.2, **{"batch_size": 4, "cache_dir": str(folder / "cache"), **settings}
    )
