"""Alignment of tokens and of layers, and rendering of conversations, as pure functions."""

from c2c_lightning.alignment.retokenization import retokenize

__all__ = ["retokenize"]
