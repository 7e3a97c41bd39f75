"""From a classifier's logits to class shares: labels, one-hot features and product tables.

An *attribute* is either one of the classifier's (``"hair"``) or a product of several (``"hair x glasses"``), whose
classes are all combinations (``"short x with"``), with the last factor varying fastest. Every function here accepts
both forms, so an intersection is just another attribute with its own simplex. A name that is known as a whole, such as
that of a table's column, is not a product. Labels of people are *perceived* labels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from difflib import get_close_matches
from functools import reduce
from itertools import product
from typing import TYPE_CHECKING, Literal

from promptgen.errors import ConfigError
from promptgen.networks.finite import require_finite

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
        ConfigError: a factor is not an attribute of the classifier, or two classes have the same name.

    Example:
        >>> classes({"hair": ("short", "long"), "glasses": ("without", "with")}, "hair x glasses")
        ('short x without', 'short x with', 'long x without', 'long x with')
    """
    parts = [attributes[_require(factor, attributes, "attribute")] for factor in factors(attributes, attribute)]
    labels = tuple(PRODUCT.join(combination) for combination in product(*parts))
    if len(set(labels)) < len(labels):
        twice = next(label for label in labels if labels.count(label) > 1)
        raise ConfigError(f"{attribute} has two classes named {twice!r}, expected different names; rename one of them")
    return labels


def factors(attributes: Collection[str], attribute: str) -> list[str]:
    """Return the factors of `attribute`, which is its only factor if it is not a product.

    Args:
        attributes: names of the known attributes, of which one may itself contain `` x ``; it is then taken as a whole.
        attribute: attribute or product; factors that are unknown are returned as they are.

    Example:
        >>> factors(["hair", "glasses"], "hair x glasses")
        ['hair', 'glasses']
        >>> factors(["age", "race x gender"], "race x gender x age")
        ['race x gender', 'age']
    """
    parts = attribute.split(PRODUCT)
    for end in range(len(parts), 0, -1):
        head, rest = PRODUCT.join(parts[:end]), PRODUCT.join(parts[end:])
        if head in attributes:
            tail = factors(attributes, rest) if rest else []
            if all(factor in attributes for factor in tail):
                return [head, *tail]
    return parts


def knows(attributes: Collection[str], attribute: str) -> bool:
    """Return whether all factors of `attribute` are among the names `attributes`."""
    return all(factor in attributes for factor in factors(attributes, attribute))


def agreed_classes(readers: Mapping[str, Mapping[str, Sequence[str]]], attribute: str) -> dict[str, tuple[str, ...]]:
    """Return the class labels of `attribute` for each reader that agrees with the most trusted one about them.

    Readers that do not know the attribute, or know it with other classes, are left out.

    Args:
        readers: labels of each attribute by reader, the most trusted reader first.
        attribute: attribute or product.

    Raises:
        ConfigError: no reader knows the attribute.
    """
    candidates = {
        reader: classes(attributes, attribute) for reader, attributes in readers.items() if knows(attributes, attribute)
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

    Raises:
        DataError: a logit is not finite; the message names the attribute and the sample.
    """
    return _outer(_finite(logits, [attribute]), attribute, lambda factor: factor.softmax(dim=1))


def hard_labels(logits: Mapping[str, Tensor], attribute: str) -> Tensor:
    """Return the index, (B,) int64, of the most probable class of `attribute`; errors as of `probabilities`."""
    return _outer(_finite(logits, [attribute]), attribute, _one_hot).argmax(dim=1)


def features(logits: Mapping[str, Tensor], chosen: Sequence[str], kind: FeatureKind) -> Tensor:
    """Return the moment features gamma, (B, K): the simplices of the `chosen` attributes side by side.

    Args:
        logits: logits of each attribute, (B, K_a).
        chosen: attributes or products; K is their total number of classes.
        kind: hard one-hot vectors (without gradient) or soft probabilities.

    Raises:
        DataError: a logit is not finite; the message names the attribute and the sample.
    """
    return simplices(_finite(logits, chosen), chosen, kind)


def simplices(logits: Mapping[str, Tensor], chosen: Sequence[str], kind: FeatureKind) -> Tensor:
    """Return what `features` returns, without its check: for energies, whose value is checked instead.

    Soft features of a NaN are NaN, hard ones are not.
    """
    import torch

    parts: Callable[[Tensor], Tensor] = _one_hot if kind == "hard" else lambda factor: factor.softmax(dim=1)
    return torch.cat([_outer(logits, attribute, parts) for attribute in chosen], dim=1)


def spelled_as(labels: Sequence[str], target: Mapping[str, float]) -> dict[str, float]:
    """Return a target whose classes are written as in `labels`, in its own order.

    Names may differ in case if only one class and one share fit; others stay as they are.

    Example:
        >>> spelled_as(("short", "long"), {"Long": 0.7, "short": 0.2, "bald": 0.1})
        {'long': 0.7, 'short': 0.2, 'bald': 0.1}
    """
    spellings, shares = (Counter(map(str.casefold, names)) for names in (labels, target))
    written = {label.casefold(): label for label in labels}
    unique = {folded for folded in written if spellings[folded] == shares[folded] == 1}
    return {written[label.casefold()] if label.casefold() in unique else label: goal for label, goal in target.items()}


def target_shares(labels: Sequence[str], target: Mapping[str, float] | None = None) -> NDArray[np.float64]:
    """Return the target share of each class, (K,), in the order of `labels`; uniform if `target` is None.

    Classes are found as by `spelled_as`.

    Raises:
        ConfigError: `target` has an unknown class, lacks a class, has a negative share or does not sum to one.

    Example:
        >>> target_shares(("short", "long"), {"long": 0.7, "short": 0.3}).tolist()
        [0.3, 0.7]
    """
    import numpy as np

    if target is None:
        return np.full(len(labels), 1 / len(labels))
    target = spelled_as(labels, target)
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
    parts = [simplex(logits[_require(name, logits, "attribute")]) for name in factors(logits, attribute)]
    return reduce(lambda left, right: (left[:, :, None] * right[:, None, :]).flatten(1), parts)


def _finite(logits: Mapping[str, Tensor], chosen: Sequence[str]) -> Mapping[str, Tensor]:
    """Return logits whose part for the `chosen` attributes is finite."""
    for name in dict.fromkeys(factor for attribute in chosen for factor in factors(logits, attribute)):
        if name in logits:
            require_finite(logits[name], f"the logits of {name}")
    return logits


def _require(name: str, names: Mapping[str, object] | Sequence[str], kind: str) -> str:
    """Return `name` if it is among `names`; otherwise raise an error that lists them."""
    if name in names:
        return name
    close = get_close_matches(name, list(names), n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    raise ConfigError(f"unknown {kind} {name!r}, expected one of {', '.join(names)}{hint}")
