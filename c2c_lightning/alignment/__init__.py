"""Who reads what: tokens to tokens and layers to layers, as pure functions."""
