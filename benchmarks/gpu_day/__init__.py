"""Checks and measurements on a GPU by one command, `python -m benchmarks.gpu_day`; see docs/gpu.md."""
