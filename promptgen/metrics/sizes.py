"""How many samples a metric takes: what params.yaml is checked against and plans are counted from, without torch."""

from __future__ import annotations

NEIGHBOURS = 3
"""Which nearest neighbour a ball of precision and recall reaches to, as in the publication."""

SUBSETS, SUBSET_SIZE = 10, 1000
"""Fewest subsets that a standard error is taken from, and most samples in one."""

LEAST_SAMPLES = SUBSETS * (NEIGHBOURS + 1)
"""Fewest samples of a set that `compare` takes."""

PAIRS = 2048
"""Pairs of images that an identity distance is averaged over, as in the publication."""
