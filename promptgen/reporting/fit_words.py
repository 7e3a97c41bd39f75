"""What the fit of a flow means in plain words."""

from __future__ import annotations

from promptgen.records import Fit
from promptgen.reporting.text.formats import count

# Least effective sample size (a fraction) and largest gap (nats) of a fit that is called so: a judgement, no theorem.
CLOSE = (0.3, 1.0)
ROUGH = (0.05, 3.0)

TRUST = {
    "good": "The weights have a light tail, so these numbers hold.",
    "usable": "Few samples carry much of the weight, so take these numbers as rough.",
    "not to be trusted": "A handful of samples decides, so these numbers may be far off, whatever their intervals say.",
}
"""What the tail of a fit's weights means for its numbers."""


def fit_words(fit: Fit) -> str:
    """Return what a fit means in plain words, and how far it can be relied on."""
    worth = f"{count(fit.n)} samples are worth {count(round(fit.ess_fraction.value * fit.n))}"
    exact = "weighted so that they follow the wanted distribution exactly"
    return f"A {judgement(fit)} fit: {exact}, {worth}. {TRUST[fit.trust]}"


def judgement(fit: Fit) -> str:
    """Return how close a fit is in one word: close, rough or loose."""
    for word, (least, largest) in (("close", CLOSE), ("rough", ROUGH)):
        if fit.ess_fraction.value >= least and fit.kl_gap.value <= largest:
            return word
    return "loose"
