"""The table of methods, in the order of tables and plots."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.methods.latent_langevin import sample_latents
from benchmarks.methods.on_policy import train_on_policy
from benchmarks.methods.prior import weigh_prior
from benchmarks.methods.published import train_as_published
from benchmarks.methods.reuse import train_on_records
from benchmarks.run import Method


@dataclass(frozen=True)
class Entry:
    """A method in the comparison.

    Attributes:
        method: the method.
        title: what tables and plots call it.
        budgets: units after which it is stopped, by number of dimensions; it is not run where there is none.
        seeds: largest number of seeds.
    """

    method: Method
    title: str
    budgets: Mapping[int, int]
    seeds: int = 10


METHODS: Mapping[str, Entry] = {
    "reuse": Entry(train_on_records, "evaluations reused (ours)", {64: 8_192, 512: 8_192, 4096: 8_192}),
    "prior": Entry(weigh_prior, "prior, weighted", {64: 32_768, 512: 32_768, 4096: 8_192}),
    "langevin": Entry(sample_latents, "Langevin on a latent network", {64: 8_192, 512: 8_192, 4096: 8_192}),
    "on_policy": Entry(train_on_policy, "on-policy path gradient", {64: 65_536, 512: 65_536, 4096: 65_536}),
    # At D = 512 it is stopped after 250 of its 2,000 steps, and at D = 4,096 its multipliers alone take minutes.
    "published": Entry(train_as_published, "published recipe", {64: 2_100_000, 512: 704_000}, seeds=3),
}
