"""Conversations in, batches out."""
