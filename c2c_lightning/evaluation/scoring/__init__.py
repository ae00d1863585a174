"""Scoring: extracts the answer from a reply and compares it with the reference."""
