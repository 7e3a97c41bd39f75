"""What the report calls things: the target, the passes, and the class its story is told with.

Every function is pure: numbers in, plain text out. The page escapes the text.
"""

from __future__ import annotations

from math import degrees

from promptgen.records import Fit, Metrics, PassRecord
from promptgen.reporting.settings import Settings
from promptgen.reporting.text.formats import class_name, count, listing, number, wanted
from promptgen.rotations import EULER

# Least effective sample size (a fraction) and largest gap (nats) of a fit that is called so: a judgement, no theorem.
CLOSE = (0.3, 1.0)
ROUGH = (0.05, 3.0)

TRUST = {
    "good": "The weights have a light tail, so these numbers hold.",
    "usable": "Few samples carry much of the weight, so take these numbers as rough.",
    "not to be trusted": "A handful of samples decides, so these numbers may be far off, whatever their intervals say.",
}
"""What the tail of a fit's weights means for its numbers."""


def target_words(metrics: Metrics) -> str:
    """Return the target in words, such as "50 % short hair and 50 % long hair"."""
    named = {class_name(metrics.attribute, label): share for label, share in metrics.target.items()}
    return listing([f"{wanted(share)} {name}" for name, share in named.items()])


def pass_words(record: PassRecord, settings: Settings) -> str:
    """Return what made the samples of a pass, in a few words."""
    if record.kind == "control":
        return f"Controlled: {settings.asked}"
    return "The generator alone" if record.kind == "generator" else "De-biased"


def pass_kind(record: PassRecord) -> str:
    """Return a pass's kind in one word, for the axis of a figure."""
    return {"generator": "generator", "control": "control", "debias": "de-biased"}[record.kind]


def goal_words(record: PassRecord, settings: Settings) -> str:
    """Return what the flow of a pass was trained for."""
    if record.kind == "control":
        return f"A flow on the generator’s latents, trained to show {settings.asked} and else to change little."
    return "One more flow below what was there, trained to meet the target shares and else to change little."


def headline_label(metrics: Metrics) -> str:
    """Return the class the story is told with: the one that control made more frequent, more than any other.

    Without a control pass it is the class that lies furthest above its target in the first pass.
    """
    first = metrics.passes[0].trusted.shares
    control = next((record.trusted.shares for record in metrics.passes if record.kind == "control"), None)
    if control is None:
        return max(metrics.target, key=lambda label: first[label].value - metrics.target[label])
    return max(metrics.target, key=lambda label: control[label].value - first[label].value)


def range_words(name: str, low: float, high: float) -> str:
    """Return the range of a coordinate of the condition; the angles of a pose, radians, in degrees."""
    if name in EULER:
        return f"{name}, {degrees(low):.0f}° to {degrees(high):.0f}°".replace("-", "−")
    return f"{name}, {number(low)} to {number(high)}"


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
