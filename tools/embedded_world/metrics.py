"""Metrics of the embedded models."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tools.embedded_world.training import IGNORED, ExampleBatch, encode_examples
from tools.embedded_world.training_examples import Example
from tools.embedded_world.world import VALUES, Fact

_BATCH = 128
_RIDGE = 1e-2


@torch.inference_mode()
def exact_replies(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example]) -> float:
    """Fraction of examples whose whole reply, end of turn included, equals greedy decoding."""
    model.eval()
    right = 0
    for start in range(0, len(examples), _BATCH):
        batch = encode_examples(tokenizer, examples[start : start + _BATCH])
        logits = model(input_ids=batch.input_ids, use_cache=False).logits
        targets = batch.labels[:, 1:]
        agrees = (logits[:, :-1].argmax(-1) == targets) | (targets == IGNORED)
        right += int(agrees.all(dim=1).sum())
    return right / len(examples)


@torch.inference_mode()
def value_probabilities(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example], relation: str
) -> Tensor:
    """Probability that the reply starts with each value of a relation, float (examples, 8)."""
    model.eval()
    words = list(VALUES[relation])
    word_ids = [ids[0] for ids in tokenizer(words, add_special_tokens=False)["input_ids"]]
    batch = encode_examples(tokenizer, examples)
    logits = model(input_ids=batch.input_ids, use_cache=False).logits
    is_reply = batch.labels != IGNORED
    last_prompt_token = is_reply.int().argmax(dim=1) - 1
    probabilities: Tensor = logits[torch.arange(len(examples)), last_prompt_token].softmax(-1)
    return probabilities[:, word_ids]


def probe_accuracy(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    known: Sequence[tuple[Fact, Example]],
    unknown: Sequence[tuple[Fact, Example]],
) -> float:
    """Accuracy of a linear probe for the value on the cache at the last token of the user's message.

    A ridge regression onto one-hot values, fitted on some facts and tested on others. It measures whether the cache
    encodes the value by then (early lookup), in the same form for all entities.

    Args:
        model: the sharer.
        tokenizer: of the sharer.
        known: facts to fit on, each with its question as an example.
        unknown: facts to test on.
    """
    words = [word for vocabulary in VALUES.values() for word in vocabulary]
    labels = torch.tensor([words.index(fact.value) for fact, _ in [*known, *unknown]])
    features = _cache_features(model, tokenizer, [example for _, example in [*known, *unknown]])
    fitted = features[: len(known)]
    mean, scale = fitted.mean(0), fitted.std(0) + 1e-6
    design = functional.pad((features - mean) / scale, (0, 1), value=1.0).double()
    train, test = design[: len(known)], design[len(known) :]
    gram = train.T @ train + _RIDGE * len(known) * torch.eye(design.shape[1], dtype=torch.float64)
    weights = torch.linalg.solve(gram, train.T @ functional.one_hot(labels[: len(known)], len(words)).double())
    is_right = (test @ weights).argmax(-1) == labels[len(known) :]
    return float(is_right.double().mean())


@torch.inference_mode()
def _cache_features(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example]) -> Tensor:
    """Keys and values of all layers at the last message token, float (examples, features)."""
    model.eval()
    rows = []
    for start in range(0, len(examples), _BATCH):
        batch = encode_examples(tokenizer, examples[start : start + _BATCH])
        rows.append(_last_message_kv(model, batch))
    return torch.cat(rows)


def _last_message_kv(model: PreTrainedModel, batch: ExampleBatch) -> Tensor:
    cache = model(input_ids=batch.input_ids, use_cache=True).past_key_values
    index = torch.arange(len(batch.input_ids))
    tensors = [tensor for layer in cache.layers for tensor in (layer.keys, layer.values)]
    # Each tensor is (batch, kv_heads, tokens, head_dim).
    return torch.cat([tensor[index, :, batch.last_message_token].flatten(1) for tensor in tensors], dim=1)
