"""Turn the samples of a pass into figures: shares, distances to the target, what was asked for, quality, diversity."""

from __future__ import annotations

if __name__ == "__main__":  # before the imports below, so that help and wrong arguments are answered at once
    from promptgen.command_line import run_as

    run_as("step", "evaluate")

from collections.abc import Mapping
from typing import Any

import torch

from promptgen.files import write_json
from promptgen.labels import agreed_classes, class_index, classes, target_shares
from promptgen.metrics.bias import measure_soft_bias
from promptgen.metrics.diversity import pairwise_distance
from promptgen.metrics.identity import PAIRS, identity_between, identity_within
from promptgen.metrics.pose import pose_error, pose_slopes
from promptgen.metrics.quality import compare
from promptgen.metrics.shares import wilson
from promptgen.tracking import Tracker
from steps.measuring.counting import (
    COUNTERS,
    Arrays,
    Attributes,
    bias_dict,
    count,
    count_target,
    counting_params,
    measured,
    options_of,
)
from steps.sample import SAMPLES_NAME, load_samples
from steps.shared.common import Pass, Result
from steps.shared.manifest import StepFolder

RECORD_NAME = "record.json"


def run(this: Pass, tracker: Tracker) -> Result:
    """Write record.json: shares and distances by classifier, judge and truth, what the control asks for, quality.

    Quality is measured against the samples of pass 0, the generator alone; of those themselves, one half against the
    other, which is what chance alone shows.

    Raises:
        DataError: this pass or pass 0 has not been sampled yet.
        ConfigError: the target, the control or what is watched names a label that a reader does not know.
        TooFewSamplesError: there are too few samples for the figures of quality.
    """
    control, evaluation = this.params.control, this.params.evaluation
    params = {
        **counting_params(this),
        "measure": control.measure if control else {},
        "condition": dict(this.params.condition.ranges),
        **evaluation.model_dump(include={"watch", "features"}),
    }
    passes = {"first": Pass(this.project, 0), "this": this} if evaluation.features else {"this": this}
    inputs = {name: each.sha256(each.folder("sample") / SAMPLES_NAME) for name, each in passes.items()}
    return this.step("evaluate", params, inputs, lambda folder: _evaluate(this, folder))


def _evaluate(this: Pass, folder: StepFolder) -> Result:
    arrays, readers = load_samples(this.folder("sample"))
    record = {
        "pass": this.number,
        "kind": this.kind,
        "n": len(arrays["probability.judge"]),
        **count_target(this, arrays, readers),
        "soft": _soft(this, arrays, readers),
        "watched": _watched(this, arrays, readers),
        "quality": _quality(this, arrays),
        "control": _control(this, arrays, readers) | _diversity(this, arrays) | _condition(this, arrays),
    }
    write_json(folder.path / RECORD_NAME, record)
    return record


def _soft(this: Pass, arrays: Arrays, readers: Mapping[str, Attributes]) -> dict[str, dict[str, Any]]:
    """Return the bias figures of the mean probabilities of the attribute to de-bias, by those who give any."""
    attribute, wanted, found = this.params.debias.attribute, this.params.debias.target, {}
    for reader in filter(lambda name: f"probability.{name}" in arrays, readers):
        labels = classes(readers[reader], attribute)
        rows, target = arrays[f"probability.{reader}"], target_shares(labels, wanted)
        found[reader] = bias_dict(labels, measure_soft_bias(rows, target, **options_of(this)))
    return found


def _watched(this: Pass, arrays: Arrays, readers: Mapping[str, Attributes]) -> dict[str, dict[str, Any]]:
    """Return the bias figures of what is only watched, by those who see the same classes in it."""
    found = {}
    for attribute, wanted in this.params.evaluation.watch.items():
        known = agreed_classes({name: readers[name] for name in COUNTERS if name in readers}, attribute)
        biases = {name: measured(this, count(arrays, name, readers[name], attribute), wanted) for name in known}
        labels, bias = next(zip(known.values(), biases.values(), strict=True))
        found[attribute] = {
            "target": dict(zip(labels, bias.target, strict=True)),
            "by": {name: bias_dict(known[name], each) for name, each in biases.items()},
            "chance": bias.noise_floors,
        }
    return found


def _quality(this: Pass, arrays: Arrays) -> dict[str, Any] | None:
    """Return how the samples look against the generator's own, if a network looked at them."""
    network = this.params.evaluation.features
    if network is None:
        return None
    features = torch.from_numpy(arrays["features"])
    if this.number == 0:
        features, reference, name = features[0::2], features[1::2], "its other half"
    else:
        alone, _ = load_samples(Pass(this.project, 0).folder("sample"))
        reference, name = torch.from_numpy(alone["features"]), "the generator"
    confidence = this.params.evaluation.confidence
    found = compare(features, reference, confidence=confidence, seed=this.seed)
    return {
        "reference": name,
        "features": " and ".join(network.names()),
        "n": found.n,
        "n_reference": found.n_reference,
        "frechet": found.frechet.value,
        "frechet_chance": found.frechet.floor,
        "few_samples": found.frechet.few_samples,
        "kernel": found.kernel.interval(confidence).as_dict(),
        "precision": found.precision.as_dict(),
        "recall": found.recall.as_dict(),
    }


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
