"""Accuracy of a fuser by the precision in which the sharers' entries reach it, with controls.

    python -m benchmarks.channel_bits --fuser runs/quickstart/fuser --config configs/eval/quickstart.yaml

The same questions are answered with 32, 16, 8 and 4 bits per entry by `lightning test`. The table shows accuracy with
its interval, accuracy with another question's cache, bytes per prompt before compression, and the share of the bytes
of the sharer's whole cache in float32 that is sent in the end (`SharerCache.to_bytes`, compressed).
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console
from rich.table import Table

from c2c_lightning import C2CModel
from c2c_lightning.channel.channel import PRECISIONS
from c2c_lightning.cli import main as lightning
from c2c_lightning.fuser.channel_config import ChannelConfig
from c2c_lightning.model.cache_exchange import sharer_caches

MESSAGE = [{"role": "user", "content": "What is the capital of the country that the letter of last Tuesday names?"}]


def main(args: Sequence[str] | None = None) -> int:
    """Run the benchmark; `args` default to those of the process. Returns the exit code."""
    options = _options(args)
    model = C2CModel.from_pretrained(options.fuser)
    results = [_measure(model, bits, options) for bits in options.bits]
    _show(results)
    if options.output:
        Path(options.output).write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    return 0


def _options(args: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fuser", default="runs/quickstart/fuser", help="fuser directory")
    parser.add_argument("--config", default="configs/eval/quickstart.yaml", help="configuration of `lightning test`")
    parser.add_argument("--bits", type=int, nargs="+", default=list(PRECISIONS), help="bits per entry")
    parser.add_argument("--group", type=int, default=64, help="channels that share a scale")
    parser.add_argument("--output", help="file for the results as JSON")
    return parser.parse_args(args)


def _measure(model: C2CModel, bits: int, options: argparse.Namespace) -> dict[str, Any]:
    model.fuser.config = replace(model.fuser.config, channel=ChannelConfig(bits, options.group))
    with TemporaryDirectory() as folder:
        model.save_pretrained(Path(folder) / "fuser")
        lightning(
            [
                "test",
                f"--config={options.config}",
                f"--model.fuser={folder}/fuser",
                "--model.responders=[receiver,c2c]",
                "--model.controls=[mismatched,zero,gates_closed]",
                f"--trainer.default_root_dir={folder}/run",
            ]
        )
        report = json.loads((Path(folder) / "run" / "report.json").read_text(encoding="utf-8"))
    (benchmark,) = report["benchmarks"].values()
    return {"bits": bits, "sent_share": _sent_share(model), **benchmark["responders"]}


def _sent_share(model: C2CModel) -> float:
    """Bytes that are sent for one prompt, relative to the sharer's whole cache over it in float32."""
    prompt = model.encode([MESSAGE])
    caches = [cache for cache in sharer_caches(model, prompt) if cache is not None]
    sent = sum(len(cache.to_bytes(model.fuser.config.channel.channel)) for cache in caches)
    layers = zip(model.sharers, prompt.sharers, strict=True)
    whole = sum(
        4 * tokens.input_ids.shape[1] * sum(g.kv_heads * (g.key_dim + g.value_dim) for g in lm.geometry.layers)
        for lm, tokens in layers
    )
    return sent / whole


def _show(results: Sequence[dict[str, Any]]) -> None:
    table = Table("bits", "C2C [95 %]", "mismatched", "zero", "bytes per prompt", "sent / float32 cache")
    for result in results:
        c2c = result["c2c"]
        low, high = c2c["ci95"]
        table.add_row(
            str(result["bits"]),
            f"{100 * c2c['accuracy']:.1f} [{100 * low:.1f}, {100 * high:.1f}]",
            f"{100 * result['c2c:mismatched']['accuracy']:.1f}",
            f"{100 * result['c2c:zero']['accuracy']:.1f}",
            f"{c2c['bytes_per_prompt']:,.0f}",
            f"{result['sent_share']:.3f}",
        )
    Console().print(table)


if __name__ == "__main__":
    raise SystemExit(main())
