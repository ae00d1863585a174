"""Checks that a tokenizer's ids exist in its model's embeddings."""

import re
from typing import Any

from c2c_lightning.errors import ModelLoadError

#: Placeholders of images and sound: text models carry them over from multimodal ones, without an embedding.
MEDIA = re.compile("image|audio|video|vision|img", re.IGNORECASE)


def check_vocabulary(tokenizer: Any, model: Any, model_name: str) -> None:
    """Refuse a tokenizer with added tokens beyond the embeddings of its model."""
    rows = getattr(model.get_input_embeddings(), "num_embeddings", None)
    if rows is None:
        return
    added = ((token, entry.content) for token, entry in tokenizer.added_tokens_decoder.items())
    beyond = {token: content for token, content in added if token >= rows and not MEDIA.search(content)}
    if beyond:
        names = ", ".join(f"{content!r} ({token})" for token, content in sorted(beyond.items())[:5])
        raise ModelLoadError(
            f"The tokenizer of {model_name} has {len(beyond)} added tokens without an embedding: {names}. "
            f"The model has {rows} embeddings. Resize them (`resize_token_embeddings(len(tokenizer))`) and save the "
            "model, or use the tokenizer that belongs to it."
        )
