"""Why the last pass is counted once more: simulated loops, in which the count that ends the loop flatters it.

Each pass of a loop has a true share that misses the target by a few points, as flows do, and its samples are counted
as the loop counts them. `python -m tests.test_look_elsewhere` prints the figures that the documentation shows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from promptgen.metrics.shares import share_estimates
from promptgen.records import Interval, contains_target

TARGET = 0.5
LOOPS, PASSES, SAMPLES = 4000, 3, 2048
NEAREST, FARTHEST = 0.01, 0.04
"""How far the true share of a pass is from the target."""


@dataclass(frozen=True)
class Counts:
    """Counts of the last passes of many loops, all of shape (L,).

    Attributes:
        truth: true share, at least NEAREST from the target.
        last: counted share of the samples that decided.
        fresh: counted share of as many samples that were drawn afterwards.
        last_covers: whether the interval of `last` contains the truth.
        fresh_covers: whether that of `fresh` does.
        fresh_reaches: whether that of `fresh` contains the target.
    """

    truth: np.ndarray
    last: np.ndarray
    fresh: np.ndarray
    last_covers: np.ndarray
    fresh_covers: np.ndarray
    fresh_reaches: np.ndarray

    def flattery(self, counted: np.ndarray) -> tuple[float, float]:
        """Return by how much counts are nearer to the target than the truth on average, and the standard error."""
        nearer = (counted - self.truth) * np.sign(TARGET - self.truth)
        return float(nearer.mean()), float(nearer.std(ddof=1) / np.sqrt(len(nearer)))


def count(share: float, rng: np.random.Generator) -> tuple[float, bool, bool]:
    """Count a sample: the share found, whether its interval contains the target, and whether it contains the truth."""
    hits = int(rng.binomial(SAMPLES, share))
    shares = share_estimates([SAMPLES - hits, hits])
    found = shares[1]
    intervals = {label: Interval.of(estimate) for label, estimate in zip(("short", "long"), shares, strict=True)}
    return found.value, contains_target(intervals, {"short": 1 - TARGET, "long": TARGET}), found.contains(share)


def loop(rng: np.random.Generator) -> tuple[bool, tuple[float, ...]]:
    """Run a loop: whether it reached its target, and its row of `Counts`."""
    for _ in range(PASSES):
        truth = TARGET + rng.choice([-1, 1]) * rng.uniform(NEAREST, FARTHEST)
        last, reached, covers = count(truth, rng)
        if reached:
            break
    fresh, fresh_reaches, fresh_covers = count(truth, rng)
    return reached, (truth, last, fresh, covers, fresh_covers, fresh_reaches)


def simulate(loops: int, seed: int = 0) -> tuple[Counts, Counts]:
    """Return the counts of the loops that reached their target, and of those that did not within their passes."""
    rng = np.random.default_rng(seed)
    ended = [loop(rng) for _ in range(loops)]
    rows = [np.array([row for reached, row in ended if reached is wanted]) for wanted in (True, False)]
    return Counts(*rows[0].T), Counts(*rows[1].T)


@pytest.fixture(scope="module")
def counts():
    return simulate(LOOPS)


@pytest.fixture(scope="module")
def reached(counts):
    return counts[0]


@pytest.fixture(scope="module")
def exhausted(counts):
    return counts[1]


def test_there_are_loops_of_both_kinds(reached, exhausted):
    assert len(reached.truth) > 500
    assert len(exhausted.truth) > 500


def test_the_count_that_ends_the_loop_flatters_it(reached):
    nearer, error = reached.flattery(reached.last)
    assert nearer > 10 * error
    assert reached.last_covers.mean() < reached.fresh_covers.mean() - 0.005
    assert reached.fresh_reaches.mean() < 0.8  # where the count that ended the loop contains it always


def test_the_count_after_which_passes_run_out_blackens_them(exhausted):
    nearer, error = exhausted.flattery(exhausted.last)
    assert nearer < -5 * error


def test_the_confirming_count_does_neither(reached, exhausted):
    for counts in (reached, exhausted):
        nearer, error = counts.flattery(counts.fresh)
        assert abs(nearer) < 3 * error
        assert 0.93 < counts.fresh_covers.mean() < 0.97


def main() -> None:
    """Print the figures."""
    for name, found in zip(("reached the target", "ran out of passes"), simulate(LOOPS), strict=True):
        print(f"{name}: {len(found.truth)} of {LOOPS} loops")
        for which, counted, covers in (
            ("count that decided", found.last, found.last_covers),
            ("confirming count", found.fresh, found.fresh_covers),
        ):
            nearer, error = found.flattery(counted)
            print(f"  {which}: {100 * nearer:+.2f} points nearer to the target than the truth (standard error ", end="")
            print(f"{100 * error:.2f}), {100 * covers.mean():.1f} % of intervals contain the truth")
        print(f"  the confirming interval contains the target in {100 * found.fresh_reaches.mean():.1f} %")


if __name__ == "__main__":
    main()
