"""Launches and memory traffic of the fuser at the paper's sizes, counted without a GPU.

    python -m benchmarks.fuser_launches --tokens 170 2048

One prompt is fused in inference, on tensors without values (`meta`): Qwen3-0.6B as receiver, Qwen2.5-0.5B as sharer,
caches in bfloat16, the paper's fuser in float32. Counted are PyTorch's operations except views and allocations: on a
GPU each is at least one launch. The traffic is what they read and write, matrix products apart. The root-mean-square
norm is one kernel on CUDA; without a GPU, PyTorch's layer norm is counted in its place. JSON on stdout.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from c2c_lightning.data.batch import PromptBatch
from c2c_lightning.fuser.config import FuserConfig
from c2c_lightning.fuser.fuser import Fuser
from c2c_lightning.kv.geometry import KVGeometry, LayerGeometry
from c2c_lightning.kv.layer import LayerKV, LayerStack

RECEIVER = KVGeometry((LayerGeometry(8, 128, 128),) * 28)
SHARER = KVGeometry((LayerGeometry(2, 64, 64),) * 24)
PRODUCTS = ("bmm", "baddbmm", "baddbmm_", "mm", "addmm")
ALLOCATIONS = ("empty", "new_empty", "empty_like", "new_empty_strided")


class Traffic(TorchDispatchMode):
    """Counts operations and the bytes that they read and write.

    Attributes:
        operations: how often each was run, without views and allocations.
        product_bytes: read and written by matrix products.
        other_bytes: read and written by all others.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations, self.product_bytes, self.other_bytes = Counter[str](), 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count one operation."""
        result, name = func(*args, **(kwargs or {})), func.overloadpacket.__name__
        if func.is_view or name in ALLOCATIONS:
            return result
        self.operations[name] += 1
        size = sum(moved_bytes(leaf) for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, Tensor))
        if name in PRODUCTS:
            self.product_bytes += size
        else:
            self.other_bytes += size
        return result


def moved_bytes(tensor: Tensor) -> int:
    """Bytes of a tensor in memory; a number that is repeated by broadcasting counts once."""
    count = 1
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        count *= size if stride else 1
    return count * tensor.element_size()


def cache(geometry: KVGeometry, tokens: int) -> LayerStack:
    """A cache without values, batch of one."""

    def entries(heads: int, width: int) -> Tensor:
        return torch.empty(1, heads, tokens, width, dtype=torch.bfloat16, device="meta")

    return [LayerKV(entries(g.kv_heads, g.key_dim), entries(g.kv_heads, g.value_dim)) for g in geometry.layers]


@torch.no_grad()
def measure(tokens: int, dtype: torch.dtype = torch.float32, **fuser: Any) -> dict[str, Any]:
    """Launches and traffic of fusing one prompt of some tokens.

    Args:
        tokens: length of the prompt; its last token is not fused.
        dtype: of the fuser.
        fuser: settings of `FuserConfig`.
    """
    with torch.device("meta"):
        made = Fuser(RECEIVER, [SHARER], FuserConfig(**fuser)).to(dtype).eval()
    prompt = PromptBatch.shared(torch.arange(3, 3 + tokens)[None])
    (step,) = (step.to("meta") for step in prompt.plan.one_pass)
    with mock.patch.object(F, "rms_norm", F.layer_norm), Traffic() as traffic:
        made(cache(RECEIVER, tokens - 1), [cache(SHARER, tokens - 1)], step)
    return {
        "launches": traffic.operations.total(),
        "gigabytes": traffic.other_bytes / 1e9,
        "gigabytes_of_products": traffic.product_bytes / 1e9,
        "operations": dict(traffic.operations.most_common()),
    }


def main(args: Sequence[str] | None = None) -> int:
    """Measure each length with a float32 and a bfloat16 fuser."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, nargs="+", default=[170, 2048])
    options = parser.parse_args(args)
    results = {
        f"{tokens} tokens, {str(dtype).removeprefix('torch.')}": measure(tokens, dtype)
        for tokens in options.tokens
        for dtype in (torch.float32, torch.bfloat16)
    }
    print(json.dumps(results, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
