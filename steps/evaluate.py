"""Turn the samples of a pass into figures: shares, distances to the target, what the control asked for, diversity."""

from __future__ import annotations

from collections.abc import Mapping

from promptgen.files import write_json
from promptgen.manifest import StepFolder
from promptgen.metrics.diversity import pairwise_distance
from promptgen.metrics.identity import PAIRS, identity_between, identity_within
from promptgen.metrics.pose import pose_error, pose_slopes
from promptgen.metrics.shares import wilson
from promptgen.perception.labels import class_index
from promptgen.tracking import Tracker
from steps.common import Pass, Result, pass_command
from steps.counting import Arrays, Attributes, count, count_target, counting_params, options_of
from steps.sample import SAMPLES_NAME, load_samples

RECORD_NAME = "record.json"


def run(this: Pass, tracker: Tracker) -> Result:
    """Write record.json: shares and KL by classifier, judge and truth, the share of what the control asks for.

    Raises:
        DataError: the pass has not been sampled yet.
        ConfigError: the target or the control names a label that a reader does not know.
    """
    control = this.params.control
    params = {
        **counting_params(this),
        "measure": control.measure if control else {},
        "condition": dict(this.params.condition.ranges),
    }
    inputs = {SAMPLES_NAME: this.sha256(this.folder("sample") / SAMPLES_NAME)}
    return this.step("evaluate", params, inputs, lambda folder: _evaluate(this, folder), uses=("counting",))


def _evaluate(this: Pass, folder: StepFolder) -> Result:
    arrays, readers = load_samples(this.folder("sample"))
    record = {
        "pass": this.number,
        "kind": this.kind,
        "n": len(arrays["probability.judge"]),
        **count_target(this, arrays, readers),
        "control": _control(this, arrays, readers) | _diversity(this, arrays) | _condition(this, arrays),
    }
    write_json(folder.path / RECORD_NAME, record)
    return record


def _control(this: Pass, arrays: Arrays, readers: Mapping[str, Attributes]) -> dict[str, dict[str, float]]:
    """Return the share of each label that the control asks for, by `ATTRIBUTE.LABEL.READER`."""
    found: dict[str, dict[str, float]] = {}
    measure = this.params.control.measure if this.params.control else {}
    for attribute, label in measure.items():
        for reader, attributes in readers.items():
            if counts := count(arrays, reader, attributes, attribute):
                class_index(attributes, attribute, label)
                share = wilson(counts[label], sum(counts.values()), this.params.evaluation.confidence)
                found[f"{attribute}.{label}.{reader}"] = share.as_dict()
    return found


def _diversity(this: Pass, arrays: Arrays) -> dict[str, dict[str, float]]:
    """Return how far the identities of two samples lie apart on average, if they were told apart."""
    if "identity" not in arrays:
        return {}
    return {"identity.diversity": pairwise_distance(arrays["identity"], **options_of(this)).as_dict()}


def _condition(this: Pass, arrays: Arrays) -> dict[str, dict[str, float]]:
    """Return how well the condition is followed, and whether it leaves identities alone, as far as it was looked at."""
    if "condition" not in arrays:
        return {}
    names, options = this.params.condition.names, options_of(this)
    found = {}
    if "pose" in arrays:
        found["pose.error"] = pose_error(arrays["pose"], arrays["condition"], names, **options)
        slopes = pose_slopes(arrays["pose"], arrays["condition"], names, **options)
        found |= {f"pose.{name}.slope": slope for name, slope in slopes.items()}
    if "identity" in arrays:
        views = [arrays[name][:PAIRS] for name in ("identity", "identity_again") if name in arrays]
        found["identity.between"] = identity_between(*views, **options)
        if len(views) == 2:
            found["identity.within"] = identity_within(*views, **options)
    return {name: estimate.as_dict() for name, estimate in found.items()}


if __name__ == "__main__":
    pass_command(__doc__, run)
