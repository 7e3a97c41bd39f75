"""The methods, a file each, and the table of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.methods.on_policy import train_on_policy
from benchmarks.methods.prior import weigh_prior
from benchmarks.methods.published import train_as_published
from benchmarks.run import Method


@dataclass(frozen=True)
class Entry:
    """A method in the comparison.

    Attributes:
        method: the method.
        title: what tables and plots call it.
        budget: units after which it is stopped.
    """

    method: Method
    title: str
    budget: int


METHODS: Mapping[str, Entry] = {
    "prior": Entry(weigh_prior, "prior, weighted", 65_536),
    "on_policy": Entry(train_on_policy, "on-policy path gradient", 65_536),
    "published": Entry(train_as_published, "published recipe", 900_000),
}
