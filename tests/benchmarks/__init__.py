"""Benchmarks against what people would use instead; run them with `python -m tests.benchmarks`."""
