"""The benchmarks of `lightning bench`: timings, memory and counts of operations."""
