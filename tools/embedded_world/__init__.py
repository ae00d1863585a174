"""Builds the embedded models: a made-up world, tokenizers, training, acceptance tests."""
