"""Evaluation: benchmarks over responders, content controls, statistics and reports."""
