"""Six chat templates as they are found in the wild, each with a small tokenizer of another make.

Every template is there twice: in Jinja, as the code under test sees it, and as a Python function that says which
characters are which message's content, as the oracle of the tests.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

Message = Mapping[str, str]
# A piece of rendered text: literal, or (message, first character of its content, text).
Piece = str | tuple[int, int, str]

_CORPUS = [
    "What is the capital of Arlen? The answer is Velmora.\nuser assistant system model\n\n",
    "The river bends where the old mill stood, and the café is closed today.",
    "Привет, мир! 你好世界 안녕 😀👍🏽 naïve œuvre",
    "def f(x):\n    return x ** 2\n",
] * 3


@dataclass(frozen=True)
class Style:
    """A chat template with its oracle.

    Attributes:
        name: what it is like.
        jinja: the template.
        pieces: the same in Python: messages and generation prompt to pieces of text.
        special: its special tokens: beginning, end of turn, and others.
        make: trains the tokenizer.
    """

    name: str
    jinja: str
    pieces: Callable[[Sequence[Message], bool], list[Piece]]
    special: tuple[str, ...]
    make: Callable[[tuple[str, ...], int], Tokenizer]


def _trimmed(number: int, content: str) -> tuple[int, int, str]:
    return number, len(content) - len(content.lstrip()), content.strip()


def _byte_level(normalizer: Any, trim: bool) -> Callable[[tuple[str, ...], int], Tokenizer]:
    def make(special: tuple[str, ...], size: int) -> Tokenizer:
        tokenizer = Tokenizer(models.BPE())
        if normalizer is not None:
            tokenizer.normalizer = normalizer
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=size, special_tokens=list(special), initial_alphabet=alphabet, show_progress=False
        )
        tokenizer.train_from_iterator(_CORPUS, trainer)
        tokenizer.post_processor = processors.ByteLevel(trim_offsets=trim)
        return tokenizer

    return make


def _byte_fallback(special: tuple[str, ...], size: int) -> Tokenizer:
    """As SentencePiece models are converted: spaces are a letter, rare characters are bytes."""
    learner = Tokenizer(models.BPE(unk_token="<unk>"))
    learner.normalizer = normalizers.Replace(" ", "▁")
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=["<unk>"], show_progress=False, limit_alphabet=60)
    learner.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    learner.train_from_iterator(_CORPUS, trainer)
    vocab = ["<unk>", *special, *(f"<0x{byte:02X}>" for byte in range(256)), "\n"]
    vocab += [piece for piece in learner.get_vocab() if piece not in vocab]
    merges = [tuple(merge) for merge in _merges(learner)]
    model = models.BPE(
        vocab={piece: token for token, piece in enumerate(vocab)},
        merges=merges,
        unk_token="<unk>",
        fuse_unk=True,
        byte_fallback=True,
    )
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens([AddedToken(text, normalized=False) for text in special])
    return tokenizer


def _merges(tokenizer: Tokenizer) -> list[list[str]]:
    merges: list[list[str]] = json.loads(tokenizer.to_str())["model"]["merges"]
    return merges


def _chatml(messages: Sequence[Message], generate: bool) -> list[Piece]:
    pieces: list[Piece] = []
    if messages[0]["role"] != "system":
        pieces.append("<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n")
    for number, message in enumerate(messages):
        pieces += [f"<|im_start|>{message['role']}\n", (number, 0, message["content"]), "<|im_end|>\n"]
    return [*pieces, "<|im_start|>assistant\n"] if generate else pieces


def _llama3(messages: Sequence[Message], generate: bool) -> list[Piece]:
    pieces: list[Piece] = ["<|begin_of_text|>"]
    for number, message in enumerate(messages):
        header = f"<|start_header_id|>{message['role']}<|end_header_id|>\n\n"
        pieces += [header, _trimmed(number, message["content"]), "<|eot_id|>"]
    return [*pieces, "<|start_header_id|>assistant<|end_header_id|>\n\n"] if generate else pieces


def _gemma(messages: Sequence[Message], generate: bool) -> list[Piece]:
    pieces: list[Piece] = ["<bos>"]
    prefix: list[Piece] = []
    for number, message in enumerate(messages):
        if number == 0 and message["role"] == "system":
            prefix = [_trimmed(number, message["content"]), "\n\n"]
            continue
        role = "model" if message["role"] == "assistant" else message["role"]
        content = _trimmed(number, message["content"])
        pieces += [f"<start_of_turn>{role}\n", *prefix, content, "<end_of_turn>\n"]
        prefix = []
    return [*pieces, "<start_of_turn>model\n"] if generate else pieces


def _mistral(messages: Sequence[Message], generate: bool) -> list[Piece]:
    """Refuses system turns, which therefore stand in front of the first user turn."""
    pieces: list[Piece] = ["<s>"]
    prefix: list[Piece] = []
    for number, message in enumerate(messages):
        content: Piece = (number, 0, message["content"])
        if message["role"] == "system":
            prefix = [content, "\n\n"]
        elif message["role"] == "user":
            pieces += ["[INST] ", *prefix, content, " [/INST]"]
            prefix = []
        else:
            pieces += [" ", content, "</s>"]
    return pieces


def _phi(messages: Sequence[Message], generate: bool) -> list[Piece]:
    pieces: list[Piece] = []
    for number, message in enumerate(messages):
        pieces += [f"<|{message['role']}|>\n", (number, 0, message["content"]), "<|end|>\n"]
    return [*pieces, "<|assistant|>\n"] if generate else [*pieces, "<|endoftext|>"]


def _plain(messages: Sequence[Message], generate: bool) -> list[Piece]:
    """Shows no system turn at all."""
    pieces: list[Piece] = []
    for number, message in enumerate(messages):
        if message["role"] != "system":
            name = "Answer" if message["role"] == "assistant" else "Question"
            pieces += [f"{name}: ", (number, 0, message["content"]), "\n"]
    return [*pieces, "Answer:"] if generate else pieces


STYLES = {
    style.name: style
    for style in (
        Style(
            "chatml",
            "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
            "{% endif %}{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
            "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
            _chatml,
            ("<|im_start|>", "<|im_end|>"),
            _byte_level(normalizers.NFC(), trim=False),
        ),
        Style(
            "llama3",
            "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n"
            "{{ m['content'] | trim }}<|eot_id|>{% endfor %}"
            "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}",
            _llama3,
            ("<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"),
            _byte_level(None, trim=True),
        ),
        Style(
            "gemma",
            "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
            "{% set prefix = (messages[0]['content'] | trim) + '\n\n' %}{% set turns = messages[1:] %}"
            "{% else %}{% set prefix = '' %}{% set turns = messages %}{% endif %}{% for m in turns %}"
            "{{ '<start_of_turn>' + ('model' if m['role'] == 'assistant' else m['role']) + '\n' }}"
            "{{ (prefix if loop.first else '') + (m['content'] | trim) + '<end_of_turn>\n' }}{% endfor %}"
            "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}",
            _gemma,
            ("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"),
            _byte_fallback,
        ),
        Style(
            "mistral",
            "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]"
            "{% elif m['role'] == 'assistant' %} {{ m['content'] }}{{ eos_token }}"
            "{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}",
            _mistral,
            ("<s>", "</s>", "[INST]", "[/INST]"),
            _byte_fallback,
        ),
        Style(
            "phi",
            "{% for m in messages %}{{ '<|' + m['role'] + '|>' }}\n{{ m['content'] }}<|end|>\n{% endfor %}"
            "{% if add_generation_prompt %}<|assistant|>\n{% else %}{{ eos_token }}{% endif %}",
            _phi,
            ("<|user|>", "<|endoftext|>", "<|assistant|>", "<|system|>", "<|end|>"),
            _byte_level(None, trim=False),
        ),
        Style(
            "plain",
            "{% for m in messages %}{% if m['role'] != 'system' %}"
            "{{ 'Answer' if m['role'] == 'assistant' else 'Question' }}: {{ m['content'] }}\n{% endif %}{% endfor %}"
            "{% if add_generation_prompt %}Answer:{% endif %}",
            _plain,
            ("<|begin|>", "<|finish|>"),
            _byte_level(normalizers.NFKC(), trim=True),
        ),
    )
}


@cache
def tokenizer_of(name: str, size: int = 420) -> PreTrainedTokenizerBase:
    """The tokenizer of a style, with its chat template.

    Args:
        name: a key of `STYLES`.
        size: entries at most, special tokens and bytes aside.
    """
    style = STYLES[name]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=style.make(style.special, size),
        bos_token=style.special[0],
        eos_token=style.special[1],
        pad_token=style.special[1],
    )
    tokenizer.chat_template = style.jinja
    return tokenizer


def rendered(name: str, messages: Sequence[Message], generate: bool) -> tuple[str, list[tuple[int, int] | None]]:
    """What a template makes of a conversation, by the oracle.

    Returns:
        The text, and for each of its characters which `(message, character of its content)` it is, None for template.
    """
    text, origin = "", []
    for piece in STYLES[name].pieces(messages, generate):
        if isinstance(piece, str):
            text += piece
            origin += [None] * len(piece)
        else:
            number, start, content = piece
            text += content
            origin += [(number, start + place) for place in range(len(content))]
    return text, origin
