"""Frozen language models and a fuser as one callable model."""
