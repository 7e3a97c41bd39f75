"""Samplers compared on counted tasks, whose images cost nothing and whose right answer is known.

`python -m benchmarks` runs all of it; docs/benchmarks.md shows the outcome.
"""
