"""The tokenizers: byte-level BPE of unequal size, with chat templates that share no text."""

import random
from collections.abc import Iterator, Sequence

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from tools.embedded_world.world import ONSETS, VALUES, answer, random_name, sentence_request, statement

RECEIVER_VOCAB_SIZE = 640
SHARER_VOCAB_SIZE = 900
THIRD_VOCAB_SIZE = 760
MAX_TOKENS = 512
"""Context of all models, in tokens."""

_VALUE_REPEATS = 400  # often enough that every value becomes one token, with and without a space before it

_RECEIVER_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
_SHARER_TEMPLATE = (
    "{{ '<s>' }}{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}{{ '[reply]' + message['content'] + '</s>' }}"
    "{% elif message['role'] == 'system' %}{{ '[note]' + message['content'] + '[/note]' }}"
    "{% else %}{{ '[ask]' + message['content'] + '[/ask]' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '[reply]' }}{% endif %}"
)
_THIRD_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<' + message['role'] + '>\\n' + message['content'] + '</' + message['role'] + '>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<assistant>\\n' }}{% endif %}"
)


def build_receiver_tokenizer(seed: int = 0, num_names: int = 4000) -> PreTrainedTokenizerFast:
    """Train the receiver's tokenizer (640 entries, turns end in `<|end|>`).

    Args:
        seed: seed of the names in its corpus.
        num_names: number of sentences in its corpus.
    """
    special = ["<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]
    bpe = _train_bpe(_corpus(f"receiver {seed}", num_names, ONSETS[::2]), RECEIVER_VOCAB_SIZE, special)
    return _wrap(bpe, _RECEIVER_TEMPLATE, pad_token="<|pad|>", eos_token="<|end|>")


def build_sharer_tokenizer(seed: int = 0, num_names: int = 4000) -> PreTrainedTokenizerFast:
    """Train the sharer's tokenizer (900 entries, conversations start with `<s>`, replies end in `</s>`).

    Args:
        seed: seed of the names in its corpus.
        num_names: number of sentences in its corpus.
    """
    special = ["<pad>", "<s>", "</s>", "[note]", "[/note]", "[ask]", "[/ask]", "[reply]"]
    bpe = _train_bpe(_corpus(f"sharer {seed}", num_names, ONSETS[1::2]), SHARER_VOCAB_SIZE, special)
    return _wrap(bpe, _SHARER_TEMPLATE, pad_token="<pad>", bos_token="<s>", eos_token="</s>")


def build_third_tokenizer(seed: int = 0, num_names: int = 4000) -> PreTrainedTokenizerFast:
    """Train the third tokenizer (760 entries, turns begin and end in a tag and a line break).

    Args:
        seed: seed of the names in its corpus.
        num_names: number of sentences in its corpus.
    """
    tags = [f"<{end}{role}>" for role in ("system", "user", "assistant") for end in ("", "/")]
    bpe = _train_bpe(_corpus(f"third {seed}", num_names, ONSETS[::3]), THIRD_VOCAB_SIZE, ["<|endoftext|>", *tags])
    return _wrap(bpe, _THIRD_TEMPLATE, pad_token="<|endoftext|>", eos_token="</assistant>")


def _corpus(seed: str, num_names: int, onsets: Sequence[str]) -> Iterator[str]:
    # The corpora have names with different onsets, so the two tokenizers split the world's names differently.
    rng = random.Random(f"tokenizer {seed}")
    for _ in range(num_names):
        relation = rng.choice(list(VALUES))
        name = random_name(rng, onsets)
        yield sentence_request(name, relation)
        yield statement(name, relation, rng.choice(VALUES[relation]))
    for vocabulary in VALUES.values():
        for value in vocabulary:
            yield from (answer(value), f" {value}.") * _VALUE_REPEATS


def _train_bpe(corpus: Iterator[str], vocab_size: int, special_tokens: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=special_tokens,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    return tokenizer


def _wrap(bpe: Tokenizer, chat_template: str, **special_tokens: str) -> PreTrainedTokenizerFast:
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        model_max_length=MAX_TOKENS,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        **special_tokens,
    )
    tokenizer.chat_template = chat_template
    return tokenizer
