"""Who reads what: tokens to tokens and layers to layers, as pure functions."""

from c2c_lightning.alignment.retokenization import retokenize

__all__ = ["retokenize"]
