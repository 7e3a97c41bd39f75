"""Classes merged into fewer, so that classifiers whose classes differ read an attribute alike."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from promptgen.errors import ConfigError

Classes = Mapping[str, Sequence[str]]
"""Labels of a network that each merged class is made of, by its label."""


class Merging:
    """Merges the classes of a network by adding their probabilities.

    Args:
        labels: the network's labels, in the order of its logits.
        classes: the merged classes, in the order of the merged logits; None keeps the network's.

    Attributes:
        labels: labels of the merged classes.

    Raises:
        ConfigError: there are not two classes or more, or they do not have each of the network's labels once.

    Example:
        >>> merging = Merging(("sad", "happy", "calm"), {"other": ["sad", "calm"], "smiling": ["happy"]})
        >>> merging(torch.tensor([[0.2, 0.5, 0.3]]).log()).exp()
        tensor([[0.5000, 0.5000]])
    """

    def __init__(self, labels: Sequence[str], classes: Classes | None = None) -> None:
        merged = {label: [label] for label in labels} if classes is None else classes
        if len(merged) < 2 or Counter(part for parts in merged.values() for part in parts) != Counter(labels):
            raise ConfigError(f"classes are {dict(merged)}, expected two or more that have each of {list(labels)} once")
        self.labels = tuple(merged)
        self._columns = [[labels.index(part) for part in parts] for parts in merged.values()]

    def __call__(self, logits: Tensor) -> Tensor:
        """Return the logits, (B, K), of the merged classes, for logits (B, N) of the network's."""
        return torch.stack([logits[:, columns].logsumexp(1) for columns in self._columns], dim=1)
