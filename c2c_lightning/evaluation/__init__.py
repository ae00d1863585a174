"""Benchmarks over responders, with statistics and controls."""
