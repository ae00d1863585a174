"""Tiny models in training with and without kept caches, and batches of rows of different lengths."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from c2c_lightning.data.batch import TrainingBatch
from c2c_lightning.data.collate import collate_examples
from c2c_lightning.data.encode import Encoder
from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.model.load_lm import load_frozen
from c2c_lightning.training.frozen_cache.frozen_prefills import FrozenPrefills
from c2c_lightning.training.frozen_cache.kept_model import kept_models
from c2c_lightning.training.frozen_cache.model_prefills import ModelPrefills
from c2c_lightning.training.frozen_cache.prefill_store import MemoryStore, PrefillStore
from c2c_lightning.training.train_model import TrainModel
from tests.tiny import tiny_pair

BATCHES = [[0, 1, 2], [3], [4, 0], [2, 3, 4]]
"""Rows of each batch: later ones mix rows of earlier ones in another order and number."""

PRIVATE = "Two notes. The river of Arlen is the Vel. The city of Bor is Tam.\n"


def build(
    mode: str = "prefill",
    sharers: Sequence[str] = ("llama",),
    receiver: str = "qwen3",
    sizes: Mapping[str, Any] | None = None,
    **choices: object,
) -> TrainModel:
    """A model in training mode, with dropout and gate noise; sharers read other tokens than the receiver."""
    config = FuserConfig(
        **{"hidden_dim": 8, "intermediate_dim": 12, "token_alignment": "span", "fusion_mode": mode, **choices}
    )
    lms = [load_frozen(tiny_pair(family, seed, "header", **(sizes or {}))) for seed, family in enumerate(sharers, 1)]
    torch.manual_seed(3)
    model = TrainModel(load_frozen(tiny_pair(receiver, 0, **(sizes or {}))), lms, config)
    model.fuser.force_gates(is_open=True)
    return model.train()


def batch(encoder: Encoder, rows: Sequence[int], turns: int = 1) -> TrainingBatch:
    """A batch of numbered rows with private context; questions and answers have very different lengths."""
    examples = []
    for number in rows:
        messages = []
        for turn in range(turns):
            messages += [
                {"role": "user", "content": f"What is the {'river ' * (number % 5)}of {number + turn}?"},
                {"role": "assistant", "content": f"{number}" + " answer" * (number * 7 % 4)},
            ]
        private = [{"role": "user", "content": PRIVATE + messages[0]["content"]}, *messages[1:-1]]
        examples.append(encoder.encode_example(messages, [private] * len(encoder.strategies)))
    return collate_examples(examples, encoder.receiver_pad_id, encoder.sharer_pad_ids)


def keep(
    model: TrainModel,
    stores: Sequence[PrefillStore] | None = None,
    max_bytes: int = 10**9,
    keeps_training_rows: bool = True,
) -> FrozenPrefills:
    """Let a model use kept caches."""
    models = kept_models(model)
    stores = stores or [MemoryStore(max_bytes) for _ in models]
    pairs = zip(models, stores, strict=True)
    model.frozen_prefills = FrozenPrefills([ModelPrefills(kept, store) for kept, store in pairs], keeps_training_rows)
    return model.frozen_prefills


def losses(model: TrainModel, batches: Sequence[TrainingBatch]) -> list[Tensor]:
    """The loss of each batch and the gradients of all weights, with the same random numbers each time."""
    result = []
    for number, rows in enumerate(batches):
        torch.manual_seed(number)
        model.zero_grad()
        loss = model.batch_loss(rows)
        loss.backward()
        result += [loss.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)]
    return result
