"""Timings, memory, and how much work is needed: what `lightning bench` runs."""
