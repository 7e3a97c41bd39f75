"""From a classifier's logits to class shares: labels, one-hot features and product tables.

An *attribute* is named as the classifier names it (``"hair"``), or is a product of several (``"hair x glasses"``),
whose classes are all combinations (``"short x with"``), the last factor running fastest. Every function here takes both
forms, so an intersection is one more attribute with a simplex of its own. Labels of people are *perceived* labels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from functools import reduce
from itertools import product
from typing import TYPE_CHECKING, Literal

from promptgen.errors import ConfigError

if TYPE_CHECKING:  # names of classes are read without torch
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

PRODUCT = " x "
"""Joins the factors of a product, in the names of attributes and of classes."""

FeatureKind = Literal["hard", "soft"]
"""Hard: the one-hot of the most probable class. Soft: the vector of class probabilities."""


def classes(attributes: Mapping[str, Sequence[str]], attribute: str) -> tuple[str, ...]:
    """Return the class labels of `attribute`, which may be a product.

    Args:
        attributes: labels of each attribute that the classifier knows.
        attribute: ``"hair"`` or ``"hair x glasses"``.

    Raises:
        ConfigError: a factor is not an attribute of the classifier.
    """
    factors = [attributes[_known(factor, attributes, "attribute")] for factor in attribute.split(PRODUCT)]
    return tuple(PRODUCT.join(combination) for combination in product(*factors))


def agreed_classes(readers: Mapping[str, Mapping[str, Sequence[str]]], attribute: str) -> dict[str, tuple[str, ...]]:
    """Return the class labels of `attribute` by reader, of those readers who know the same ones as the first who does.

    Args:
        readers: labels of each attribute by reader, the most trusted reader first.
        attribute: attribute or product.

    Raises:
        ConfigError: no reader knows it.
    """
    factors = attribute.split(PRODUCT)
    found = {name: classes(known, attribute) for name, known in readers.items() if all(f in known for f in factors)}
    if not found:
        classes({name: labels for known in readers.values() for name, labels in known.items()}, attribute)
        raise ConfigError(f"no reader knows all of {attribute!r}: {'; '.join(map(_listed, readers.items()))}")
    first = set(next(iter(found.values())))
    return {name: labels for name, labels in found.items() if set(labels) == first}


def class_index(attributes: Mapping[str, Sequence[str]], attribute: str, label: str) -> int:
    """Return the position of `label` among the classes of `attribute`.

    Raises:
        ConfigError: the attribute or the label does not exist; the message lists those that do.
    """
    known = classes(attributes, attribute)
    return known.index(_known(label, known, f"class of {attribute!r}"))


def feature_names(attributes: Mapping[str, Sequence[str]], chosen: Sequence[str]) -> tuple[str, ...]:
    """Return a name such as ``"hair:short"`` for each column of `features`."""
    return tuple(f"{attribute}:{label}" for attribute in chosen for label in classes(attributes, attribute))


def probabilities(logits: Mapping[str, Tensor], attribute: str) -> Tensor:
    """Return the class probabilities, (B, K), of `attribute`; factors of a product are independent given the image.

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
        chosen: attributes or products; K is the sum of their numbers of classes.
        kind: hard one-hot vectors (without gradient) or soft probabilities.
    """
    import torch

    parts: Callable[[Tensor], Tensor] = _one_hot if kind == "hard" else lambda factor: factor.softmax(dim=1)
    return torch.cat([_outer(logits, attribute, parts) for attribute in chosen], dim=1)


def target_shares(known: Sequence[str], target: Mapping[str, float] | None = None) -> NDArray[np.float64]:
    """Return the wanted share of each class, (K,), in the order of `known`; uniform when `target` is None.

    Raises:
        ConfigError: `target` names other classes, misses one, has a negative share or does not sum to one.
    """
    import numpy as np

    if target is None:
        return np.full(len(known), 1 / len(known))
    for label in target:
        _known(label, known, "class")
    if missing := [label for label in known if label not in target]:
        raise ConfigError(f"the target has no share for {', '.join(missing)}: give one for every class")
    shares = np.array([float(target[label]) for label in known])
    if not (shares >= 0).all() or abs(shares.sum() - 1) > 1e-6:
        raise ConfigError(f"the target shares {shares.tolist()} must not be negative and must sum to 1")
    return np.asarray(shares / shares.sum())


def _listed(reader: tuple[str, Mapping[str, object]]) -> str:
    return f"{reader[0]} knows {', '.join(reader[1])}"


def _one_hot(logits: Tensor) -> Tensor:
    from torch.nn.functional import one_hot

    return one_hot(logits.argmax(dim=1), logits.shape[1]).to(logits.dtype)


def _outer(logits: Mapping[str, Tensor], attribute: str, simplex: Callable[[Tensor], Tensor]) -> Tensor:
    """Return the product table, (B, K), of the factors' simplices, the last factor running fastest."""
    factors = [simplex(logits[_known(name, logits, "attribute")]) for name in attribute.split(PRODUCT)]
    return reduce(lambda left, right: (left[:, :, None] * right[:, None, :]).flatten(1), factors)


def _known(name: str, known: Mapping[str, object] | Sequence[str], what: str) -> str:
    if name in known:
        return name
    close = get_close_matches(name, list(known), n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    raise ConfigError(f"unknown {what} {name!r}, expected one of {', '.join(known)}{hint}")
