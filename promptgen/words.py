"""Classes and lists in sentences."""

from __future__ import annotations

from promptgen.labels import PRODUCT


def listing(items: list[str]) -> str:
    """Return "a", "a and b" or "a, b and c"; empty for no items."""
    return " and ".join([*filter(None, [", ".join(items[:-1])]), *items[-1:]])


def class_name(attribute: str, label: str) -> str:
    """Return the name of a class in a sentence: "long hair", "skin 3", or "short hair, with glasses" of a product."""
    names, values = attribute.split(PRODUCT), label.split(PRODUCT)
    if len(names) != len(values):  # the label itself contains the separator, such as "4 x 4"
        names, values = [attribute], [label]
    factors = zip(names, values, strict=True)
    return ", ".join(f"{name} {value}" if value.isdigit() else f"{value} {name}" for name, value in factors)
