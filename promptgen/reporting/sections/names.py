"""The names that the report uses: of the target, the passes and the headline class.

All functions are pure: they take numbers and return plain text, which the page escapes.
"""

from __future__ import annotations

from math import degrees

from promptgen.records import Fit, Metrics, PassRecord
from promptgen.reporting.settings import Settings
from promptgen.reporting.text.formats import class_name, count, listing, number, wanted
from promptgen.rotations import EULER

# Minimum effective sample size (a fraction) and maximum gap (nats) of each grade: a judgement, not a theorem.
CLOSE = (0.3, 1.0)
ROUGH = (0.05, 3.0)

TRUST = {
    "good": "The weights have a light tail, so these numbers are reliable.",
    "usable": "Few samples carry much of the weight, so these numbers are rough.",
    "not to be trusted": "A few samples dominate, so these numbers may be far off, whatever their intervals say.",
}
"""What the tail of the importance weights means for the numbers of a fit."""


def target_words(metrics: Metrics) -> str:
    """Return the target in words, such as "50 % short hair and 50 % long hair"."""
    named = {class_name(metrics.attribute, label): share for label, share in metrics.target.items()}
    return listing([f"{wanted(share)} {name}" for name, share in named.items()])


def pass_words(record: PassRecord, settings: Settings) -> str:
    """Return the source of the samples of a pass, in a few words."""
    if record.kind == "control":
        return f"Controlled: {settings.asked}"
    return "The generator alone" if record.kind == "generator" else "De-biased"


def pass_kind(record: PassRecord) -> str:
    """Return a pass's kind in one word, for the axis of a figure."""
    return {"generator": "generator", "control": "control", "debias": "de-biased"}[record.kind]


def goal_words(record: PassRecord, settings: Settings) -> str:
    """Return the training goal of the flow of a pass."""
    if record.kind == "control":
        return f"A flow on the generator’s latents, trained to show {settings.asked} and change little else."
    return "A further flow below the previous ones, trained to meet the target shares and change little else."


def headline_label(metrics: Metrics) -> str:
    """Return the headline class: the one whose share the control increased most.

    Without a control pass it is the class furthest above its target in the first pass.
    """
    first = metrics.passes[0].trusted.shares
    control = next((record.trusted.shares for record in metrics.passes if record.kind == "control"), None)
    if control is None:
        return max(metrics.target, key=lambda label: first[label].value - metrics.target[label])
    return max(metrics.target, key=lambda label: control[label].value - first[label].value)


def range_words(name: str, low: float, high: float) -> str:
    """Return the range of a condition coordinate; the angles of a pose, given in radians, are shown in degrees."""
    if name in EULER:
        return f"{name}, {degrees(low):.0f}° to {degrees(high):.0f}°".replace("-", "−")
    return f"{name}, {number(low)} to {number(high)}"


def fit_words(fit: Fit) -> str:
    """Return what a fit means in plain words, and how reliable its numbers are."""
    size = count(round(fit.ess_fraction.value * fit.n))
    worth = f"weighted to follow the target distribution exactly, {count(fit.n)} samples are worth {size}"
    return f"A {judgement(fit)} fit: {worth}. {TRUST[fit.trust]}"


def judgement(fit: Fit) -> str:
    """Return how close a fit is in one word: close, rough or loose."""
    for word, (least, largest) in (("close", CLOSE), ("rough", ROUGH)):
        if fit.ess_fraction.value >= least and fit.kl_gap.value <= largest:
            return word
    return "loose"
