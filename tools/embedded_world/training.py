"""The training loop of one model, until it meets its acceptance bounds."""

import logging
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tools.embedded_world.training_examples import Example, ExampleMixture

logger = logging.getLogger(__name__)

Report = dict[str, float]

_POOL_BATCHES = 16
IGNORED = -100
"""Label of a token without loss."""


@dataclass(frozen=True)
class Recipe:
    """Hyperparameters: a constant learning rate until the bounds are nearly met, then a linear decay to zero."""

    learning_rate: float = 3e-3
    weight_decay: float = 0.02
    batch_size: int = 64
    """Conversations per step."""
    warmup_steps: int = 100
    max_steps: int = 4000
    """Steps at the constant rate, at most."""
    cooldown_steps: int = 800
    check_every: int = 250
    """Steps between two evaluations."""
    slack: float = 0.08
    """Distance from the bounds at which the decay starts; the decay makes up for it."""
    lookup_weight: float = 0.0
    """Weight of the loss on the value at the last token of the user's message (early lookup)."""
    lookup_layers: tuple[int, ...] = ()
    """Hidden states (0 = embeddings) that this loss applies the final norm and the head to."""


@dataclass(frozen=True)
class AcceptanceBounds:
    """Bounds on the metrics of a model."""

    at_least: dict[str, float]
    at_most: dict[str, float]

    def is_met(self, report: Report, slack: float = 0.0) -> bool:
        """Whether all metrics are within the bounds, each of them relaxed by `slack`."""
        return all(report[name] >= bound - slack for name, bound in self.at_least.items()) and all(
            report[name] <= bound + slack for name, bound in self.at_most.items()
        )


@dataclass(frozen=True)
class ExampleBatch:
    """Tokenized examples, right padded; causal attention needs no mask for that."""

    input_ids: Tensor
    """Long (batch, tokens)."""
    labels: Tensor
    """Long (batch, tokens): the reply and the end of its turn, `IGNORED` elsewhere."""
    last_message_token: Tensor
    """Long (batch,): position of the last token of the user's last message."""
    value_ids: Tensor
    """Long (batch,): token of the value that the reply says."""


def encode_examples(tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example]) -> ExampleBatch:
    """Render examples with the chat template and tokenize them."""
    prompts = [example.messages[:-1] for example in examples]
    prompt_texts = tokenizer.apply_chat_template(prompts, tokenize=False, add_generation_prompt=True)
    texts = tokenizer.apply_chat_template([example.messages for example in examples], tokenize=False)
    encoded = tokenizer(texts, padding=True, padding_side="right", return_tensors="pt", add_special_tokens=False)
    prompt_lengths = torch.tensor([len(ids) for ids in tokenizer(prompt_texts, add_special_tokens=False)["input_ids"]])
    mask = encoded["attention_mask"]
    is_reply = (torch.arange(mask.shape[1]) >= prompt_lengths[:, None]) & (mask == 1)
    value_ids = torch.tensor(
        [ids[0] for ids in tokenizer([example.value for example in examples], add_special_tokens=False)["input_ids"]]
    )
    tail = _template_tail(tokenizer)
    labels = encoded["input_ids"].masked_fill(~is_reply, IGNORED)
    return ExampleBatch(encoded["input_ids"], labels, prompt_lengths - tail - 1, value_ids)


def _template_tail(tokenizer: PreTrainedTokenizerBase) -> int:
    """Count the template tokens between the user's message and the reply."""
    question = [{"role": "user", "content": "?"}]
    text = str(tokenizer.apply_chat_template(question, tokenize=False, add_generation_prompt=True))
    tail = text.rsplit("?", 1)[1]
    return len(tokenizer(tail, add_special_tokens=False)["input_ids"])


def example_loss(model: PreTrainedModel, batch: ExampleBatch, recipe: Recipe) -> Tensor:
    """Cross-entropy of the reply, plus the early-lookup loss where its weight is above 0."""
    wants_lookup = recipe.lookup_weight > 0
    out = model.model(
        input_ids=batch.input_ids,
        output_hidden_states=wants_lookup,
        use_cache=False,
    )
    targets = batch.labels[:, 1:]
    is_target = targets != IGNORED
    logits = model.lm_head(out.last_hidden_state[:, :-1][is_target])
    loss = functional.cross_entropy(logits, targets[is_target])
    if not wants_lookup:
        return loss
    rows = torch.arange(len(batch.input_ids))
    lookup_losses = [
        functional.cross_entropy(
            model.lm_head(model.model.norm(out.hidden_states[layer][rows, batch.last_message_token])), batch.value_ids
        )
        for layer in recipe.lookup_layers
    ]
    return loss + recipe.lookup_weight * torch.stack(lookup_losses).mean()


def train_until_accepted(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    mixture: ExampleMixture,
    recipe: Recipe,
    evaluate: Callable[[], Report],
    bounds: AcceptanceBounds,
    seed: int,
) -> int:
    """Train a model until it nearly meets its bounds, then decay the learning rate.

    Args:
        model: causal LM; trained in place and left in evaluation mode.
        tokenizer: of the model, with its chat template.
        mixture: source of the examples.
        recipe: hyperparameters.
        evaluate: returns the model's metrics.
        bounds: bounds on these metrics.
        seed: seed of the examples.

    Returns:
        Number of steps taken.
    """
    rng = random.Random(f"lessons {seed}")
    optimizers = _optimizers(model, recipe)
    stop = recipe.max_steps + recipe.cooldown_steps
    started = time.monotonic()
    step = 0
    batches = _similar_lengths(mixture, rng, recipe.batch_size)
    with tqdm(total=stop, unit="step", mininterval=5.0) as bar:
        while step < stop:
            _set_rate(optimizers, recipe, step, stop)
            loss = example_loss(model.train(), encode_examples(tokenizer, next(batches)), recipe)
            model.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for optimizer in optimizers:
                optimizer.step()
            step += 1
            bar.update()
            if step % recipe.check_every == 0 or step == stop:
                report = evaluate()
                logger.info("step %d, %.0f s, loss %.3f, %s", step, time.monotonic() - started, loss.item(), report)
                if step < recipe.max_steps and bounds.is_met(report, recipe.slack):
                    stop = min(stop, step + recipe.cooldown_steps)
    model.eval()
    return step


def _similar_lengths(mixture: ExampleMixture, rng: random.Random, batch_size: int) -> Iterator[list[Example]]:
    """Endless batches of examples of similar length, which halves the padding."""
    while True:
        examples = mixture.draw(rng, _POOL_BATCHES * batch_size)
        examples.sort(key=lambda example: sum(len(message["content"]) for message in example.messages))
        batches = [examples[start : start + batch_size] for start in range(0, len(examples), batch_size)]
        rng.shuffle(batches)
        yield from batches


def _optimizers(model: PreTrainedModel, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers, with a fraction of AdamW's steps; AdamW for the rest."""
    embedding = model.get_input_embeddings().weight
    matrices = [weight for weight in model.parameters() if weight.ndim == 2 and weight is not embedding]
    others = [weight for weight in model.parameters() if weight.ndim != 2 or weight is embedding]
    rate, decay = recipe.learning_rate, recipe.weight_decay
    return [
        torch.optim.Muon(matrices, lr=rate, weight_decay=decay, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=rate, weight_decay=decay, betas=(0.9, 0.98)),
    ]


def _set_rate(optimizers: Sequence[torch.optim.Optimizer], recipe: Recipe, step: int, stop: int) -> None:
    warmup = (step + 1) / recipe.warmup_steps
    cooldown = (stop - step) / recipe.cooldown_steps
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * min(1.0, warmup, cooldown)
