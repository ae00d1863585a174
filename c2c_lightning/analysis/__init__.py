"""Tensors in, numbers out: what a fuser does."""
