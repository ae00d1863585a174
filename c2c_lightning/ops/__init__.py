"""Tensor operations with a fast path, each tested against a plain reference."""
