"""From a classifier's logits to class shares: labels, one-hot features and product tables.

An *attribute* is either one of the classifier's (``"hair"``) or a product of several (``"hair x glasses"``), whose
classes are all combinations (``"short x with"``), with the last factor varying fastest. Every function here accepts
both forms, so an intersection is just another attribute with its own simplex. Labels of people are *perceived* labels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from functools import reduce
from itertools import product
from typing import TYPE_CHECKING, Literal

from promptgen.errors import ConfigError

if TYPE_CHECKING:  # class names are read without importing torch
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

PRODUCT = " x "
"""Joins the factors of a product in the names of attributes and classes."""

FeatureKind = Literal["hard", "soft"]
"""Hard: one-hot vector of the most probable class. Soft: vector of the class probabilities."""


def classes(attributes: Mapping[str, Sequence[str]], attribute: str) -> tuple[str, ...]:
    """Return the class labels of `attribute`, which may be a product.

    Args:
        attributes: labels of each attribute of the classifier.
        attribute: ``"hair"`` or ``"hair x glasses"``.

    Raises:
        ConfigError: a factor is not an attribute of the classifier.

    Example:
        >>> classes({"hair": ("short", "long"), "glasses": ("without", "with")}, "hair x glasses")
        ('short x without', 'short x with', 'long x without', 'long x with')
    """
    factors = [attributes[_require(factor, attributes, "attribute")] for factor in attribute.split(PRODUCT)]
    return tuple(PRODUCT.join(combination) for combination in product(*factors))


def agreed_classes(readers: Mapping[str, Mapping[str, Sequence[str]]], attribute: str) -> dict[str, tuple[str, ...]]:
    """Return the class labels of `attribute` for each reader that agrees with the most trusted one about them.

    Readers that do not know the attribute, or know it with other classes, are left out.

    Args:
        readers: labels of each attribute by reader, the most trusted reader first.
        attribute: attribute or product.

    Raises:
        ConfigError: no reader knows the attribute.
    """
    factors = attribute.split(PRODUCT)
    candidates = {
        reader: classes(attributes, attribute)
        for reader, attributes in readers.items()
        if all(factor in attributes for factor in factors)
    }
    if not candidates:
        classes({name: labels for attributes in readers.values() for name, labels in attributes.items()}, attribute)
        lists = "; ".join(f"{reader} knows {', '.join(attributes)}" for reader, attributes in readers.items())
        raise ConfigError(f"no reader knows all of {attribute!r}: {lists}")
    most_trusted = set(next(iter(candidates.values())))
    return {reader: labels for reader, labels in candidates.items() if set(labels) == most_trusted}


def class_index(attributes: Mapping[str, Sequence[str]], attribute: str, label: str) -> int:
    """Return the position of `label` among the classes of `attribute`.

    Raises:
        ConfigError: the attribute or the label does not exist; the message lists those that do.
    """
    labels = classes(attributes, attribute)
    return labels.index(_require(label, labels, f"class of {attribute!r}"))


def feature_names(attributes: Mapping[str, Sequence[str]], chosen: Sequence[str]) -> tuple[str, ...]:
    """Return a name such as ``"hair:short"`` for each column of `features`."""
    return tuple(f"{attribute}:{label}" for attribute in chosen for label in classes(attributes, attribute))


def probabilities(logits: Mapping[str, Tensor], attribute: str) -> Tensor:
    """Return the class probabilities, (B, K), of `attribute`, with independent factors given the image.

    Args:
        logits: logits of each attribute, (B, K_a), as a `Classifier` returns them.
        attribute: attribute or product.
    """
    return _outer(logits, attribute, lambda factor: factor.softmax(dim=1))


def hard_labels(logits: Mapping[str, Tensor], attribute: str) -> Tensor:
    """Return the index, (B,) int64, of the most probable class of `attribute`."""
    return _outer(logits, attribute, _one_hot).argmax(dim=1)


def features(logits: Mapping[str, Tensor], chosen: Sequence[str], kind: FeatureKind) -> Tensor:
    """Return the moment features gamma, (B, K): the simplices of the `chosen` attributes side by side.

    Args:
        logits: logits of each attribute, (B, K_a).
        chosen: attributes or products; K is their total number of classes.
        kind: hard one-hot vectors (without gradient) or soft probabilities.
    """
    import torch

    parts: Callable[[Tensor], Tensor] = _one_hot if kind == "hard" else lambda factor: factor.softmax(dim=1)
    return torch.cat([_outer(logits, attribute, parts) for attribute in chosen], dim=1)


def target_shares(labels: Sequence[str], target: Mapping[str, float] | None = None) -> NDArray[np.float64]:
    """Return the target share of each class, (K,), in the order of `labels`; uniform if `target` is None.

    Raises:
        ConfigError: `target` has an unknown class, lacks a class, has a negative share or does not sum to one.

    Example:
        >>> target_shares(("short", "long"), {"long": 0.7, "short": 0.3}).tolist()
        [0.3, 0.7]
    """
    import numpy as np

    if target is None:
        return np.full(len(labels), 1 / len(labels))
    for label in target:
        _require(label, labels, "class")
    if missing := [label for label in labels if label not in target]:
        raise ConfigError(f"the target has no share for {', '.join(missing)}: give one for every class")
    shares = np.array([float(target[label]) for label in labels])
    if not (shares >= 0).all() or abs(shares.sum() - 1) > 1e-6:
        raise ConfigError(f"the target shares {shares.tolist()} must not be negative and must sum to 1")
    return np.asarray(shares / shares.sum())


def _one_hot(logits: Tensor) -> Tensor:
    from torch.nn.functional import one_hot

    return one_hot(logits.argmax(dim=1), logits.shape[1]).to(logits.dtype)


def _outer(logits: Mapping[str, Tensor], attribute: str, simplex: Callable[[Tensor], Tensor]) -> Tensor:
    """Return the product table, (B, K), of the factors' simplices, with the last factor varying fastest."""
    factors = [simplex(logits[_require(name, logits, "attribute")]) for name in attribute.split(PRODUCT)]
    return reduce(lambda left, right: (left[:, :, None] * right[:, None, :]).flatten(1), factors)


def _require(name: str, names: Mapping[str, object] | Sequence[str], kind: str) -> str:
    """Return `name` if it is among `names`; otherwise raise an error that lists them."""
    if name in names:
        return name
    close = get_close_matches(name, list(names), n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    raise ConfigError(f"unknown {kind} {name!r}, expected one of {', '.join(names)}{hint}")
