"""Analyses of token alignments and of batches: pure functions, with reports as JSON, text and HTML."""
