"""What the control asked for, and what else was measured of it, as the records of passes hold it."""

from __future__ import annotations

from promptgen.records import SOURCES, TRUSTED, Interval, PassRecord, Source

DIVERSITY = "identity.diversity"
"""Name of the variety of identities, which stands with quality."""

MEASURES = {
    "identity.within": (
        "Identity, same latent",
        "Mean distance of two pictures of one latent under two conditions; small when a face stays the same one.",
    ),
    "identity.between": (
        "Identity, other latent",
        "Mean distance of two pictures of different latents: what the distance of the same latent is held against.",
    ),
    "pose.error": (
        "Pose error, degrees",
        "Mean angle between the pose seen and the one asked for; the generator alone does not hear what is asked.",
    ),
}
"""Title and meaning of what is watched besides shares."""


def preferred(by_source: dict[Source, Interval]) -> Interval:
    """Return the number of the most trusted reader that has one."""
    return next(by_source[source] for source in TRUSTED if source in by_source)


def other_measures(record: PassRecord) -> dict[str, Interval]:
    """Return the measures of the control that are not shares of a class, such as "pose.error"."""
    return {
        name: value
        for name, value in record.control.items()
        if name.split(".")[-1] not in SOURCES and name != DIVERSITY
    }


def measure_words(name: str) -> tuple[str, str]:
    """Return the title of one of `other_measures`, and a sentence on what it means.

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
            f"Slope of the {angle} seen on the one asked for: 1 wholly, 0 not at all.",
        )
    title = name.replace(".", " ")
    return title[:1].upper() + title[1:], "A further measure of the control."
