"""Identifies a language model by its content, not by its name: for caches that come from another process."""

import hashlib
import json
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from c2c_lightning.alignment.fingerprint import tokenizer_fingerprint
from c2c_lightning.model.frozen_lm import FrozenLM

_SAMPLE = 8
"""Number of values that are read of each weight."""

_known: "WeakKeyDictionary[nn.Module, str]" = WeakKeyDictionary()


def model_fingerprint(lm: FrozenLM) -> str:
    """SHA-256 of cache shapes, tokenizer and a sample of every weight: 64 hexadecimal digits.

    Equal for a model loaded in float32 and in bfloat16; other in almost every case after fine-tuning.
    """
    if lm.model not in _known:
        parts = [lm.geometry.to_json(), tokenizer_fingerprint(lm.tokenizer)]
        digest = hashlib.sha256(json.dumps(parts).encode())
        for name, weight in lm.model.named_parameters():
            digest.update(name.encode() + _sample(weight))
        _known[lm.model] = digest.hexdigest()
    return _known[lm.model]


def _sample(weight: Tensor) -> bytes:
    # Quantised weights are subclasses of tensors with other storage: only their names count.
    if type(weight.data) is not Tensor or not weight.is_floating_point():
        return b""
    values = weight.data.flatten()[:_SAMPLE].to(torch.bfloat16)
    return values.view(torch.int16).cpu().numpy().tobytes()
