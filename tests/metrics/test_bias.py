"""All bias figures together: published counts, intersections, seeds, and counting in batches."""

from __future__ import annotations

import math

import numpy as np
import pytest

from promptgen.errors import DataError
from promptgen.metrics.bias import measure_bias, measure_soft_bias
from promptgen.metrics.shares import class_counts, joint_table

UNIFORM = np.array([0.5, 0.5])


@pytest.mark.parametrize(
    ("counts", "kl"),
    [((21101, 17144), 0.0053620), ((17485, 19930), 0.0021367), ((656104, 572857), 0.0022960)],
    ids=["generated", "edited", "laion"],
)
def test_published_pooled_counts(counts, kl):
    # Counts of the Fair-Diffusion repository (Friedrich et al. 2023), pooled over 153 occupations.
    assert measure_bias(counts, UNIFORM).kl.value == pytest.approx(kl, abs=5e-8)


def test_joint_bias_sees_what_the_marginals_hide():
    hair, glasses = np.repeat([0, 1], 500), np.repeat([0, 1], 500)
    assert measure_bias(class_counts(hair, 2), UNIFORM).kl.value == 0
    joint = measure_bias(joint_table([hair, glasses], [2, 2]).ravel(), np.full(4, 0.25))
    assert joint.kl.value == pytest.approx(math.log(2))
    assert not any(share.contains(0.25) for share in joint.shares)


def test_figures_follow_the_seed():
    assert measure_bias([700, 300], UNIFORM, seed=1) == measure_bias([700, 300], UNIFORM, seed=1)
    assert measure_bias([700, 300], UNIFORM, seed=1).kl != measure_bias([700, 300], UNIFORM, seed=2).kl


def test_soft_figures_of_certain_labels_are_those_of_the_counts():
    rows = np.repeat(np.eye(2), [700, 300], axis=0)
    soft, hard = measure_soft_bias(rows, UNIFORM), measure_bias([700, 300], UNIFORM)
    assert soft.kl.value == pytest.approx(hard.kl.value)
    assert soft.shares[0].low == pytest.approx(hard.shares[0].low)
    assert soft.n == hard.n == 1000


@pytest.mark.parametrize("target", [[1.0, 0.0], [0.5, 0.6], [0.5, 0.25, 0.25]])
def test_wrong_targets_are_refused(target):
    with pytest.raises(DataError):
        measure_bias([5, 5], target)
