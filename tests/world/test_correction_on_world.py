"""On pictures whose truth is known: what a weak classifier counts is off, and what is corrected is not."""

from __future__ import annotations

import pytest

from tests.measure_correction import accuracies, coverage, mean_error, read_pictures, trials

pytestmark = pytest.mark.slow


@pytest.mark.long
def test_the_shares_of_a_weak_classifier_are_corrected():
    true, read = read_pictures(2880)
    short, long, both = accuracies(true, read)
    assert 0.70 < both < 0.85
    assert long - short > 0.1  # so the count is off on one side
    made = trials(true, read)
    counted, corrected = [trial.counted for trial in made], [trial.corrected for trial in made]
    assert mean_error(corrected, made) < 0.3 * mean_error(counted, made)
    assert 0.92 < coverage(corrected, made) < 0.98
    assert coverage(counted, made) < 0.5
