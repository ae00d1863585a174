"""Fixed workload: examples with long-tailed lengths, in batches."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from c2c_lightning.data.batch import TrainingBatch
from c2c_lightning.data.collate import collate_examples
from c2c_lightning.data.encode import EncodedExample, EncodedPrompt, SharerEncoding
from c2c_lightning.data.loading.length_buckets import cut_batches
from c2c_lightning.data.row_lengths import BatchLimits, Lengths
from c2c_lightning.profiling.model_pair import FIRST_WORD


@dataclass(frozen=True)
class Workload:
    """Random examples; receiver and sharers read the same tokens.

    Prompt lengths are lognormal, response lengths normal, both clipped.

    Attributes:
        num_samples: how many examples.
        batch_size: examples a step.
        batching: `by_length` puts examples of similar lengths together, as the data module does; `as_drawn` does not.
        prompt_median: of the prompt lengths, in tokens.
        prompt_sigma: standard deviation of their logarithm.
        prompt_range: shortest and longest prompt, in tokens.
        response_mean: of the response lengths, in tokens.
        response_sigma: their standard deviation, in tokens.
        response_range: shortest and longest response, in tokens.
        seed: of lengths and tokens.
    """

    num_samples: int = 24
    batch_size: int = 4
    batching: Literal["by_length", "as_drawn"] = "by_length"
    prompt_median: float = 120.0
    prompt_sigma: float = 0.8
    prompt_range: tuple[int, int] = (16, 512)
    response_mean: float = 60.0
    response_sigma: float = 20.0
    response_range: tuple[int, int] = (8, 128)
    seed: int = 0

    def lengths(self) -> Lengths:
        """Tokens of each example's prompt and response."""
        random = np.random.default_rng(self.seed)
        prompts = random.lognormal(np.log(self.prompt_median), self.prompt_sigma, self.num_samples)
        responses = random.normal(self.response_mean, self.response_sigma, self.num_samples)
        tokens = prompts.round().clip(*self.prompt_range), responses.round().clip(*self.response_range)
        return Lengths(tokens[0].astype(np.int64)[:, None], tokens[1].astype(np.int64))

    def batches(self, vocab_size: int, num_sharers: int = 1) -> list[TrainingBatch]:
        """The steps' batches, of tokens below `vocab_size`."""
        lengths, random = self.lengths(), np.random.default_rng(self.seed + 1)
        examples = [
            random_example(random, int(prompt), int(response), vocab_size, num_sharers)
            for (prompt,), response in zip(lengths.prompts, lengths.responses, strict=True)
        ]
        rows = np.arange(self.num_samples)
        if self.batching == "by_length":
            cuts = cut_batches(rows, lengths, BatchLimits(self.batch_size))
        else:
            cuts = np.array_split(rows, np.arange(self.batch_size, self.num_samples, self.batch_size))
        return [collate_examples([examples[row] for row in cut], 0, [0] * num_sharers) for cut in cuts]


def random_example(
    random: np.random.Generator, prompt: int, response: int, vocab_size: int, num_sharers: int = 1
) -> EncodedExample:
    """An example of given lengths; every prompt token but the last is fused."""
    ids = random.integers(FIRST_WORD, vocab_size, prompt + response).tolist()
    source = [*range(prompt - 1), -1]
    sharers = tuple(SharerEncoding(ids[:prompt], source) for _ in range(num_sharers))
    return EncodedExample(EncodedPrompt(ids[:prompt], sharers), ids[prompt:])


def equal_batch(batch: int, prompt: int, response: int, vocab_size: int, num_sharers: int = 1) -> TrainingBatch:
    """A batch of equally long examples, the same in every call."""
    random = np.random.default_rng(0)
    rows = [random_example(random, prompt, response, vocab_size, num_sharers) for _ in range(batch)]
    return collate_examples(rows, 0, [0] * num_sharers)


def real_tokens(batches: Sequence[TrainingBatch]) -> int:
    """Tokens of the receiver's prompts and responses, without padding."""
    return sum(int(batch.prompt.receiver.mask.sum()) + int(batch.response_mask.sum()) for batch in batches)
