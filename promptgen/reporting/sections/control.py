"""The request of the control and its other measures, as stored in the records of passes."""

from __future__ import annotations

from promptgen.records import SOURCES, TRUSTED, Interval, PassRecord, Source

DIVERSITY = "identity.diversity"
"""Name of the diversity of identities, which the page shows with quality."""

MEASURES = {
    "identity.within": (
        "Identity, same latent",
        "Mean distance of two images of one latent under two conditions. Small if the face keeps its identity.",
    ),
    "identity.between": (
        "Identity, other latent",
        "Mean distance of two images of different latents: the baseline for the distance of one latent.",
    ),
    "pose.error": (
        "Pose error, degrees",
        "Mean angle between the measured and the requested pose. The generator alone ignores the request.",
    ),
}
"""Title and meaning of the measures other than shares."""


def preferred(by_source: dict[Source, Interval]) -> Interval:
    """Return the value of the most trusted source that has one."""
    return next(by_source[source] for source in TRUSTED if source in by_source)


def other_measures(record: PassRecord) -> dict[str, Interval]:
    """Return the measures of the control that are not shares of a class, such as "pose.error"."""
    return {
        name: value
        for name, value in record.control.items()
        if name.split(".")[-1] not in SOURCES and name != DIVERSITY
    }


def measure_words(name: str) -> tuple[str, str]:
    """Return the title of one of `other_measures` and a sentence on its meaning.

    Args:
        name: such as "pose.error" or "pose.yaw.slope".
    """
    if name in MEASURES:
        return MEASURES[name]
    kind, _, rest = name.partition(".")
    if kind == "pose" and rest.endswith(".slope"):
        angle = rest.removesuffix(".slope")
        return (
            f"How far {angle} is followed",
            f"Slope of the measured {angle} on the requested one: 1 means fully, 0 not at all.",
        )
    title = name.replace(".", " ")
    return title[:1].upper() + title[1:], "A further measure of the control."
