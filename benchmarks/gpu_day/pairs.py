"""The pairs of models: small ones for the checks, and the paper's sizes."""

from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
import yaml

from benchmarks.gpu_day.day import Day
from c2c_lightning.data.batch import TrainingBatch
from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.model.c2c import C2CModel
from c2c_lightning.profiling.benchmark import BenchContext
from c2c_lightning.profiling.model_pair import RandomPair
from c2c_lightning.profiling.workload import Workload

PAPER = Path(__file__).parents[2] / "configs" / "bench" / "pair" / "paper.yaml"

# The range of the weights makes logits differ by far more than rounding.
_SMALL: dict[str, Any] = {"vocab_size": 512, "initializer_range": 0.2, "max_position_embeddings": 4096}
RECEIVER = {
    "model_type": "qwen3",
    "num_hidden_layers": 4,
    "hidden_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "intermediate_size": 96,
    **_SMALL,
}
SHARER = {
    "model_type": "qwen2",
    "num_hidden_layers": 3,
    "hidden_size": 48,
    "num_attention_heads": 3,
    "num_key_value_heads": 1,
    "intermediate_size": 64,
    **_SMALL,
}


#: Settings of fuser kinds whose default sizes do not fit the small pair.
SMALL_OPTIONS: dict[str, dict[str, Any]] = {
    "low_rank": {"rank": 16, "num_blocks": 1},
    "ridge": {"trainable": True},
    "ridge_start": {"rank": 16, "num_blocks": 1},
}


def small_pair(attention: str = "sdpa", dtype: Any = "float32", **fuser: Any) -> RandomPair:
    """A pair for checks; gates are open and without noise, so that results can be compared."""
    chosen: dict[str, Any] = {
        "hidden_dim": 32,
        "intermediate_dim": 32,
        "dropout": 0.0,
        "gate_init": 0.5,
        "gate_noise": "none",
    }
    chosen |= {"options": SMALL_OPTIONS.get(str(fuser.get("kind")), {}), **fuser}
    return RandomPair(RECEIVER, [SHARER], FuserConfig(**chosen), dtype, attention)


def small_model(device: str, **choices: Any) -> C2CModel:
    """A small pair with the same weights on every device, in evaluation mode."""
    return small_pair(**choices).build("cpu").to(device).eval()


def small_batches(device: str, rows: int = 4, size: int = 4) -> list[TrainingBatch]:
    """Batches for a small pair; rows of very different lengths."""
    workload = Workload(rows, size, "as_drawn", 20.0, prompt_range=(4, 60), response_mean=6.0, response_range=(2, 9))
    return [batch.to(device) for batch in workload.batches(512)]


def paper_pair(day: Day, dtype: Any = "bfloat16", **fuser: Any) -> RandomPair:
    """Qwen3-0.6B as receiver, Qwen2.5-0.5B as sharer, the paper's fuser; a small pair if the run is tiny."""
    if day.is_tiny:
        return small_pair(dtype=dtype, gate_noise="gumbel", **fuser)
    sizes = yaml.safe_load(PAPER.read_text(encoding="utf-8"))["init_args"]
    # A ridge map that is only fitted has nothing to train.
    options = {"trainable": True} if fuser.get("kind") == "ridge" else {}
    return RandomPair(sizes["receiver"], sizes["sharers"], FuserConfig(**{"options": options, **fuser}), dtype)


def build(day: Day, pair: RandomPair) -> C2CModel:
    """Build a pair on the device at once: on a CPU, random weights of a billion parameters take a minute."""
    with torch.device(day.device) if day.is_cuda else nullcontext():
        return pair.build(day.device).eval()


@dataclass(frozen=True)
class BuiltPair:
    """A pair that is built already, for benchmarks that build theirs."""

    model: C2CModel

    def build(self, device: str) -> C2CModel:
        """The model."""
        return self.model


def context(day: Day, model: C2CModel) -> BenchContext:
    """What a benchmark of `c2c_lightning.profiling` runs on."""
    return BenchContext(BuiltPair(model), torch.device(day.device), day.out)


@cache
def recipe_workload(is_tiny: bool) -> Workload:
    """One optimizer step of the paper's recipe on one GPU: 32 rows in batches of 4; lengths as those of chats.

    The lengths are assumptions (median 240 and mean 160 tokens), no statistics of OpenHermes.
    """
    if is_tiny:
        return Workload(4, 2, prompt_median=20.0, prompt_range=(4, 40), response_mean=6.0, response_range=(2, 9))
    lengths = {"prompt_median": 240.0, "prompt_range": (32, 1536), "response_range": (16, 512)}
    return Workload(32, 4, response_mean=160.0, response_sigma=80.0, **lengths)  # type: ignore[arg-type]


def with_mode(model: C2CModel, mode: Any) -> C2CModel:
    """The same model in another fusion mode."""
    model.fuser.config = replace(model.fuser.config, fusion_mode=mode)
    return model


def free(day: Day) -> None:
    """Return unused memory of the GPU."""
    if day.is_cuda:
        torch.cuda.empty_cache()
