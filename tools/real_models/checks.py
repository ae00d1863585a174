"""Checks of a converted model: its tokenizer returns texts unchanged, and English text has a low perplexity."""

import math
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from c2c_lightning.errors import ModelLoadError

_ENGLISH = (
    "Bread is one of the oldest foods that people make. Flour, water, salt and yeast are mixed into a dough, which is "
    "left in a warm place until it has doubled in size. Then it is shaped into a loaf and baked in a hot oven for "
    "about half an hour. When the crust is brown and the loaf sounds hollow, the bread is done. It should cool on a "
    "rack before it is cut, because the inside goes on cooking for a while."
)
_TEXTS = (
    _ENGLISH,
    "  Two spaces,\n\n\ta tab and a space at the end. ",
    "In 1987, 24.5 % of 98,765 were new.",
    "if x:\n        return {'a': [1, 2]}",
    "Zoë, naïve café — Ωμέγα, Привет, 東京, مرحبا, 🙂",
)
#: A wrong conversion gives hundreds or more.
_MOST_PERPLEXITY = 25.0


def check_tokenizer(folder: Path) -> None:
    """ModelLoadError for a text that changes between encoding and decoding."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for text in _TEXTS:
        decoded = tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"])
        if decoded != text:
            raise ModelLoadError(f"{folder.name}: the tokenizer changes {text!r} into {decoded!r}.")


def check_model(folder: Path) -> float:
    """The perplexity of an English text; ModelLoadError where it is too high or weights are missing."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model, info = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    problems = {name: keys for name, keys in info.items() if name.endswith("_keys") and keys}
    if problems:
        raise ModelLoadError(f"{folder.name} does not load completely: {problems}.")
    ids = tokenizer(_ENGLISH, return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        perplexity = math.exp(model.eval()(input_ids=ids, labels=ids).loss.item())
    if not perplexity < _MOST_PERPLEXITY:
        raise ModelLoadError(f"{folder.name}: the perplexity of English text is {perplexity:.1f}.")
    return perplexity
