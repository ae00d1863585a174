"""What a receiver with latent attention should read of an ordinary sharer: three fusers of the quickstart facts.

    python -m benchmarks.latent_views --out runs/latent_views

The receiver is a random, untrained DeepSeek-V3 without experts, which can answer only by what the fuser writes into its
latents; the sharer is the embedded one. Each fuser is trained like the quickstart's and differs in one choice: which of
the sharer's tensors the latent and the rotated part of the key read. Prints each validation loss in nats per token.
"""

import argparse
import csv
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from transformers import DeepseekV3Config, DeepseekV3ForCausalLM

from c2c_lightning.cli import main as run_command
from c2c_lightning.kv.latent import SharerView
from c2c_lightning.model.lm_spec import LMSpec
from c2c_lightning.model.load_lm import load_tokenizer
from tools.embedded_world.models import save_model

Join = Callable[..., Any]

VIEWS: dict[str, Callable[[SharerView, Any, Any, Join], tuple[Any, Any]]] = {
    "latent: key, rotated: value (as stored)": lambda self, key, value, join: (key, value),
    "latent: value, rotated: key": lambda self, key, value, join: (value, key),
    "latent: key and value, rotated: key": lambda self, key, value, join: (join(key, value), key),
}
"""For each choice the tensors that the latent and the rotated part read, of the sharer's key and value."""


def main(args: Sequence[str] | None = None) -> None:
    """Train the fusers one after the other, each in a process of its own, and print their losses."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the receiver and the runs")
    parser.add_argument("--steps", type=int, default=300, help="optimizer steps of each fuser")
    parser.add_argument("--view", type=int, help="train only this one, within this process")
    options = parser.parse_args(args)
    if options.view is not None:
        return train(list(VIEWS.values())[options.view], options.out, options.view, options.steps)
    save_receiver(options.out / "receiver")
    for number, name in enumerate(VIEWS):
        own = ["--out", str(options.out), "--steps", str(options.steps), "--view", str(number)]
        subprocess.run([sys.executable, "-m", "benchmarks.latent_views", *own], check=True)
        print(f"{name}: {validation_loss(options.out / str(number)):.3f}", flush=True)


def train(view: Callable[..., Any], out: Path, number: int, steps: int) -> None:
    """Train one fuser."""
    settings = {
        "--model.receiver.path": out / "receiver",
        "--model.fuser.anneal_steps": steps,
        "--trainer.max_steps": steps,
        "--trainer.default_root_dir": out / str(number),
        "--trainer.callbacks": "[]",
    }
    arguments = [str(part) for setting in settings.items() for part in setting]
    with patch.object(SharerView, "_sides", view):
        run_command(["fit", "--config", "configs/fit/quickstart.yaml", *arguments])


def validation_loss(run: Path) -> float:
    """The last validation loss of a run."""
    with next(run.rglob("metrics.csv")).open() as file:
        losses = [row["val/loss"] for row in csv.DictReader(file) if row.get("val/loss")]
    return float(losses[-1])


def save_receiver(folder: Path) -> None:
    """Write the random receiver, with the tokenizer of the embedded one."""
    tokenizer: Any = load_tokenizer(LMSpec("embedded:receiver"))
    config = DeepseekV3Config(
        vocab_size=len(tokenizer), hidden_size=96, intermediate_size=224, num_hidden_layers=4, first_k_dense_replace=4,
        num_attention_heads=4, num_key_value_heads=4, q_lora_rank=None, kv_lora_rank=48, qk_rope_head_dim=16,
        qk_nope_head_dim=16, v_head_dim=24, n_routed_experts=4, num_experts_per_tok=2, n_group=1, topk_group=1,
        max_position_embeddings=512, tie_word_embeddings=True, pad_token_id=tokenizer.pad_token_id, bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id, rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
    )  # fmt: skip
    torch.manual_seed(0)
    model = DeepseekV3ForCausalLM(config)
    for name, weight in model.named_parameters():
        if weight.ndim == 2:  # as the embedded models are initialised: wide, so that attention differs between tokens
            torch.nn.init.normal_(
                weight, std=0.08 / 3 if name.endswith(("o_proj.weight", "down_proj.weight")) else 0.08
            )
    save_model(model, tokenizer, folder)


if __name__ == "__main__":
    main()
