"""Sample sizes of the metrics, which params.yaml is checked against and plans count; read without torch."""

from __future__ import annotations

NEIGHBOURS = 3
"""Rank of the nearest neighbour that a ball of precision and recall reaches, as in the publication."""

SUBSETS, SUBSET_SIZE = 10, 500
"""Smallest number of subsets that a standard error is estimated from, and largest number of samples per subset."""

LEAST_SAMPLES = SUBSETS * (NEIGHBOURS + 1)
"""Smallest number of samples per set that `promptgen.metrics.quality.compare` accepts."""

PAIRS = 2048
"""Number of image pairs that an identity distance is averaged over, as in the publication, and the most samples of a
set that are compared pair by pair: by precision, recall and the Vendi score."""

CHUNK = 2048
"""Samples that are in memory at a time where all are read."""
