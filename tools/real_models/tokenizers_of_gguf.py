"""Tokenizers from the vocabulary of a GGUF file, which only names its pre-tokenizer."""

from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers, processors
from tokenizers.models import BPE
from transformers import GemmaTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast, Qwen2Tokenizer
from transformers.convert_slow_tokenizer import generate_merges

from c2c_lightning.errors import ModelLoadError
from tools.real_models.gguf_file import GGUFFile

#: Kinds of tokens in GGUF files.
_NORMAL, _CONTROL, _USER_DEFINED = 1, 3, 4
_GEMMA_SPECIAL = ("<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>")


def tokenizer_of(file: GGUFFile) -> PreTrainedTokenizerBase:
    """The tokenizer of a file, with its chat template if it has one.

    Raises:
        ModelLoadError: the pre-tokenizer is another than those of `sources.py`.
    """
    if file["tokenizer.ggml.model"] == "llama":
        return _gemma(file)
    kinds = {"smollm": _smollm, "qwen2": _qwen2}
    name = file["tokenizer.ggml.pre"]
    if name not in kinds:
        raise ModelLoadError(f"The pre-tokenizer {name!r} is unknown. Known are {', '.join(kinds)}.")
    return kinds[name](file)


def _smollm(file: GGUFFile) -> PreTrainedTokenizerBase:
    """Byte-level BPE; each digit is a token."""
    tokenizer = Tokenizer(BPE(vocab=_vocabulary(file), merges=_merges(file)))
    digits, text = pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, text])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([token for token in _added(file) if token.special])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, **_special(file, ("bos", "eos", "unknown", "padding")), **_common(file)
    )


def _qwen2(file: GGUFFile) -> PreTrainedTokenizerBase:
    special = _special(file, ("eos", "padding"))
    tokenizer = Qwen2Tokenizer(
        vocab=_vocabulary(file), merges=_merges(file), padding_side="left", **special, **_common(file)
    )
    tokenizer.add_tokens(_added(file))
    return tokenizer


def _gemma(file: GGUFFile) -> PreTrainedTokenizerBase:
    """SentencePiece BPE with byte fallback, whose merges follow from the scores of the tokens."""
    tokens, kinds = file["tokenizer.ggml.tokens"], file["tokenizer.ggml.token_type"]
    # Runs of spaces are spelled by themselves in the file.
    tokens = [token.replace(" ", "\u2581") if not token.strip(" ") else token for token in tokens]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    pieces = zip(tokens, file["tokenizer.ggml.scores"], kinds, strict=True)
    scores = {token: score if kind == _NORMAL else 0.0 for token, score, kind in pieces}
    merges: Any = generate_merges(vocabulary, scores)
    tokenizer = GemmaTokenizer(vocab=vocabulary, merges=merges, mask_token=None, **_common(file))
    tokenizer.add_tokens(
        [
            AddedToken(token, normalized=False, special=token in _GEMMA_SPECIAL)
            for token, kind in zip(tokens, kinds, strict=True)
            if kind in (_CONTROL, _USER_DEFINED)
        ]
    )
    bos = ("<bos>", vocabulary["<bos>"])
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A <bos>:1 $B:1", special_tokens=[bos]
    )
    return tokenizer


def _vocabulary(file: GGUFFile) -> dict[str, int]:
    return {token: number for number, token in enumerate(file["tokenizer.ggml.tokens"])}


def _merges(file: GGUFFile) -> Any:
    return [tuple(merge.split(" ")) for merge in file["tokenizer.ggml.merges"]]


def _added(file: GGUFFile) -> list[AddedToken]:
    """Tokens that are never split."""
    kinds = zip(file["tokenizer.ggml.tokens"], file["tokenizer.ggml.token_type"], strict=True)
    return [
        AddedToken(token, normalized=False, special=kind == _CONTROL)
        for token, kind in kinds
        if kind in (_CONTROL, _USER_DEFINED)
    ]


def _special(file: GGUFFile, names: tuple[str, ...]) -> dict[str, str]:
    ours = {"unknown": "unk_token", "padding": "pad_token"}
    return {ours.get(name, f"{name}_token"): file["tokenizer.ggml.tokens"][file.token_id(name)] for name in names}


def _common(file: GGUFFile) -> dict[str, Any]:
    """Arguments of every tokenizer; a base model has no chat template."""
    common = {"model_max_length": file[".context_length"], "clean_up_tokenization_spaces": False}
    try:
        return {**common, "chat_template": file["tokenizer.chat_template"]}
    except ModelLoadError:
        return common
