"""Builds the embedded models: a synthetic world of facts, tokenizers, training, acceptance bounds."""
