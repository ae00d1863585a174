"""The enrichment oracle as an evaluation: prompts with shots, scoring, choice of layers, report."""
