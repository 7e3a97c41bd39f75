"""Amplified, reflected, mitigated: by hand, and the published tables of Fair Diffusion."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from promptgen.errors import DataError, TooFewSamplesError
from promptgen.metrics.bias import measure_bias
from promptgen.metrics.reference import compare_to_reference, spread, spread_by_chance

COUNTS = Path(__file__).parents[3] / "shared" / "data" / "fair-diffusion"
published = pytest.mark.skipif(not COUNTS.is_dir(), reason="the published counts are not part of the project")

SCIENCE = [1, 18, 21, 25, 45, 128]
ENGINEERING = [1, 4, 17, 25, 26, 27, 45, 47, 67, 89, 116, 134]
ARTS = [5, 6, 38, 59, 69, 94, 102, 107, 131, 152]
CARE = [16, 22, 35, 36, 37, 43, 66, 82, 87, 91, 96, 97, 99, 108, 117, 132, 133, 138, 139, 141]
SCIENCE_COUNTS = [113, 46, 151, 45, 99, 59]
"""Women among 250 images of each occupation of SCIENCE, as published."""


def women(name):
    """Return the published counts of men and women, (153, 2), by occupation."""
    lines = (COUNTS / f"results_fairface_{name}.txt").read_text().split("\n")
    return np.array([[int(count) for count in re.findall(r"\d+", line)[:2]] for line in lines if "man:" in line])


def share(counts):
    return counts[:, 1] / counts.sum(axis=1)


def test_science_of_the_published_counts():
    assert spread(np.array(SCIENCE_COUNTS) / 250) == pytest.approx((0.3420, 0.17094092546842024), abs=1e-12)


@published
@pytest.mark.parametrize(
    ("occupations", "mean", "deviation"),
    [
        (SCIENCE, 0.3420, 0.17094092546842024),
        (ENGINEERING, 0.18933, 0.14790004814882327),
        (ARTS, 0.5464, 0.24058595137704947),
        (CARE, 0.75569, 0.2610700588991194),
    ],
    ids=["science", "engineering", "arts", "care"],
)
def test_published_groups(occupations, mean, deviation):
    found = spread(share(women("generated_1-5"))[occupations])
    assert found[0] == pytest.approx(mean, abs=6e-6)
    assert found[1] == pytest.approx(deviation, abs=1e-12)


@published
def test_published_comparison_with_the_training_data():
    generated, data = share(women("generated_1-5")), share(women("laion"))
    assert np.mean((data > 0.47) & (data < 0.53)) == pytest.approx(0.0457516339869281)
    found = compare_to_reference(generated, data, margin=0.04)
    parts = [found.amplified.value, found.reflected.value, found.mitigated.value]
    assert parts == pytest.approx([0.5686, 0.2157, 0.2157], abs=5e-5)
    assert found.groups == 153


@published
@pytest.mark.parametrize(
    ("name", "pooled", "kl"),
    [
        ("generated_1-5", [21101, 17144], 0.0053620),
        ("edited_1-5", [17485, 19930], 0.0021367),
        ("laion", [656104, 572857], 0.0022960),
    ],
)
def test_published_pooled_counts(name, pooled, kl):
    counts = women(name).sum(axis=0)
    assert counts.tolist() == pooled
    assert measure_bias(counts, [0.5, 0.5]).kl.value == pytest.approx(kl, abs=5e-8)


def test_one_group_of_each_kind():
    found = compare_to_reference([0.9, 0.62, 0.5, 0.3], [0.7, 0.6, 0.7, 0.6])
    # Further off; the same; back to neutral; over to the other side, further than the data: 0.2 against 0.1.
    assert (found.amplified.value, found.reflected.value, found.mitigated.value) == (0.5, 0.25, 0.25)
    assert found.amplified.low < 0.5 < found.amplified.high


@pytest.mark.parametrize("wrong", [[0.5, 1.2], [[0.5]], [np.nan]])
def test_what_is_no_share_is_refused(wrong):
    with pytest.raises(DataError, match="numbers in"):
        spread(wrong)


def test_groups_must_be_the_same_and_enough():
    with pytest.raises(DataError, match="same groups, got 2 and 1"):
        compare_to_reference([0.5, 0.5], [0.5])
    with pytest.raises(TooFewSamplesError, match="no groups"):
        compare_to_reference([], [])
    with pytest.raises(TooFewSamplesError, match="at least 2"):
        spread([0.5])


def test_groups_that_are_all_alike_spread_as_by_chance():
    rng, sizes = np.random.default_rng(0), np.array([20, 50, 400])
    counts = np.stack([rng.multinomial(n, [0.2, 0.3, 0.5], size=4000) for n in sizes], axis=1)
    found = np.var(counts / sizes[:, None], axis=1, ddof=1).mean(axis=0) ** 0.5
    expected = np.mean([np.square(spread_by_chance(each)) for each in counts], axis=0) ** 0.5
    assert expected == pytest.approx(found, rel=0.03)
