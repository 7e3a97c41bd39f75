"""Runs with made-up but consistent numbers, for the tests of the report."""

import copy
from functools import cache
from pathlib import Path

import numpy as np

from promptgen.config.params import Params
from promptgen.metrics.bias import DISTANCES, measure_bias
from promptgen.metrics.comparison import change_between
from promptgen.metrics.shares import wilson
from promptgen.records import Interval, Measurement, Metrics, Quality
from promptgen.reporting.run import PassMaterial, Run
from promptgen.reporting.settings import Settings
from promptgen.strict import read_yaml, validate

N = 2000
DEFAULT = read_yaml(Path(__file__).parents[2] / "params.yaml")
TEXT = {"type": "clip_text", "text": "a person without makeup", "models": {"world-clip": 1.0}, "augmentations": 0}


def control(condition=None, **energies):
    """Return the section of a control with these energies, each of weight 1."""
    weighted = {name: {"weight": 1.0, **energy} for name, energy in energies.items()}
    return DEFAULT["control"] | {"energies": weighted, "condition": condition}


PARAMS = DEFAULT | {
    "experiment": "made-up",
    "seed": 7,
    "control": control(text=TEXT),
    "debias": DEFAULT["debias"] | {"max_passes": 2},
    "evaluation": DEFAULT["evaluation"] | {"confidence": 0.95, "bootstrap": 200, "fit_samples": 1024},
}


def settings(params):
    """Return the settings of the content of a params.yaml."""
    return Settings.of(validate(Params, params))


HAIR = {"generator": 0.5, "control": 0.84, "debias": 0.507}
READERS = ("classifier", "judge", "truth")
MEASURED = ("pass", "n", "target", "chance", "by", "kind", "watched", "quality", "control")
MEASURE = {"value": 0.75, "low": 0.7, "high": 0.8}

FIT = {
    "ess_fraction": {"value": 0.417, "low": 0.387, "high": 0.447},
    "log_z": {"value": -3.25, "low": -3.3, "high": -3.2},
    "kl_gap": {"value": 0.125, "low": 0.105, "high": 0.145},
    "tail_index": 0.312,
    "trust": "good",
    "n": 1024,
}


@cache
def bias(counts, target):
    return measure_bias(counts, target, resamples=100)


def counts_of(long, labels=("short", "long")):
    """Return how often each label was seen where the last one has the share `long`, the others being equal."""
    rest = (1 - long) / (len(labels) - 1)
    return [round(N * rest)] * (len(labels) - 1) + [round(N * long)]


def reader(counts, target, labels, **others):
    """Return what one reader says of an attribute, as it stands in metrics.json."""
    found = bias(tuple(counts), tuple(target))
    shares = {label: share.as_dict() for label, share in zip(labels, found.shares, strict=True)}
    figures = {"shares": shares} | {name: getattr(found, name).as_dict() for name in DISTANCES}
    alone = {
        "simultaneous": None,
        "from_target": None,
        "soft": None,
        "corrected": None,
        "uncorrectable": [],
        "within": None,
    } | others
    return {"counts": dict(zip(labels, counts, strict=True))} | figures | alone


def attribute(counts, target, labels, readers):
    """Return what is recorded of an attribute; `counts` by reader."""
    return {
        "target": dict(zip(labels, target, strict=True)),
        "chance": bias(tuple(counts[readers[-1]]), tuple(target)).noise_floors,
        "by": {name: reader(counts[name], target, labels) for name in readers},
    }


def watch(counts, target, labels, readers=READERS):
    """Return what is recorded of an attribute that is only watched, everyone having seen the same."""
    return attribute(dict.fromkeys(readers, counts), target, labels, readers)


def count(number, long, readers=READERS, labels=("short", "long"), target=(0.5, 0.5)):
    """Return a count of the attribute to de-bias; `long` is a share, or one per reader."""
    seen = long if isinstance(long, dict) else dict.fromkeys(readers, long)
    counted = attribute({name: counts_of(seen[name], labels) for name in readers}, target, labels, readers)
    counted["by"]["judge"]["corrected"] = {label: {"value": 0.4567, "low": 0.4321, "high": 0.4789} for label in labels}
    return {"pass": number, "n": N, **counted}


def quality(number):
    """Return how the samples of a pass look against the generator's own; pass 0 against itself."""
    n = N if number else N // 2
    recall = 0.871 - 0.2 * (number > 0)
    others = {name: MEASURE for name, field in Quality.model_fields.items() if field.annotation is Interval}
    return others | {
        "reference": "the generator" if number else "its other half",
        "features": "world-judge",
        "n": n,
        "n_reference": n,
        "few_samples": False,
        "frechet": {"value": 0.412 + 3 * (number > 0), "chance": 0.377},
        "kernel": {"value": 0.0123, "low": -0.0011, "high": 0.0257},
        "precision": wilson(0.883 * n, n).as_dict(),
        "recall": wilson(recall * n, n).as_dict(),
    }


def record(number, kind, long, readers=READERS, labels=("short", "long"), target=(0.5, 0.5)):
    """Return a pass as it stands in metrics.json; `long` is a share, or one per reader."""
    counted = count(number, long, readers, labels, target)
    for name in set(readers) - {"truth"}:
        figures = counted["by"][name]
        figures["soft"] = {key: figures[key] for key in ("shares", *DISTANCES)}
    makeup = 0.62 if kind == "generator" else 0.97
    control = {f"makeup.without.{name}": wilson(makeup * N, N).as_dict() for name in readers}
    old = 400 if kind == "generator" else 700
    return {
        **counted,
        "kind": kind,
        "watched": {
            "glasses": watch((1400 + number, 600 - number), (0.5, 0.5), ("without", "with"), readers),
            "age": watch((1700 - old, 300, old), (0.4, 0.4, 0.2), ("young", "middle", "old"), readers),
        },
        "quality": quality(number),
        "control": {**control, "identity.diversity": {"value": 1.031, "low": 1.012, "high": 1.052}},
        "changes": [],
        "fit": None if kind == "generator" else dict(FIT),
        "reuse": None,
        "seconds": {"sample": 9.25, "evaluate": 1.5} | ({} if kind == "generator" else {"train_flow": 150.0}),
        "generator_evaluations": {"forward": 21234, "backward": 19200 if kind != "generator" else 0},
    }


def least(content):
    """Return the content of a run that measured only what every run measures."""
    content = copy.deepcopy(content)
    for record in content["passes"]:
        record |= {"watched": {}, "quality": None}
        for name in record["by"]:
            record["by"][name]["soft"] = None
    return content | {"confirmation": None}


def content(kinds=("generator", "control", "debias"), long=None, stopped="interval contains the target", **options):
    """Return what metrics.json holds; `long` gives the share of long hair in each pass. `make` adds the changes."""
    shares = [HAIR[kind] for kind in kinds] if long is None else long
    passes = [record(i, kind, share, **options) for i, (kind, share) in enumerate(zip(kinds, shares, strict=True))]
    labels, target = options.get("labels", ("short", "long")), options.get("target", (0.5, 0.5))
    return {
        "experiment": "made-up",
        "attribute": "hair",
        "target": dict(zip(labels, target, strict=True)),
        "reference": None,
        "stopped": stopped,
        "passes": passes,
        "confirmation": count(passes[-1]["pass"], shares[-1], **options) if kinds[-1] == "debias" else None,
    }


def with_changes(content):
    """Return the content with what is different between its passes, as `steps.estimate_bias` records it."""
    measured = [Measurement.model_validate({name: each[name] for name in MEASURED}) for each in content["passes"]]
    control = next((each.number for each in measured if each.kind == "control"), 0)
    options = {"confidence": 0.95, "resamples": PARAMS["evaluation"]["bootstrap"], "seed": PARAMS["seed"]}
    passes = []
    for record, after in zip(content["passes"], measured, strict=True):
        since = sorted({number for number in (0, control, after.number - 1) if 0 <= number < after.number})
        changes = [change_between(measured[number], after, **options).as_dict() for number in since]
        passes.append(record | {"changes": changes})
    return content | {"passes": passes}


def history(kind, steps=40):
    """Return rows as the training writes them: some numbers at every step, others now and then."""
    rows = []
    for step in range(steps):
        row = {"step": step, "loss": 40 * 0.9**step + 4, "learning_rate": 1e-3, "energy/text": 30 * 0.9**step}
        if step % 10 == 0:
            row |= {"validation/loss": 40 * 0.9**step + 4.5, "validation/ess_fraction": 0.4 * step / steps}
        if kind == "debias":
            row |= {"share/hair:short": 0.2 + step / 100, "share/hair:long": 0.8 - step / 100}
            row |= {"beta/hair:short": 0.8, "beta/hair:long": -0.8}
        rows.append(row)
    return [*rows, {"step": steps, "validation/loss": 4.6, "validation/ess_fraction": 0.41}]


MOMENTS = {
    "target": {"hair:short": 0.5, "hair:long": 0.5},
    "observed": {"hair:short": 0.1601, "hair:long": 0.8399},
    "achieved": {"hair:short": 0.5, "hair:long": 0.5},
    "beta": {"hair:short": 0.8291, "hair:long": -0.8291},
    "beta_low": {"hair:short": 0.77, "hair:long": -0.89},
    "beta_high": {"hair:short": 0.89, "hair:long": -0.77},
    "kl": 0.2714,
    "ess_fraction": 0.5361,
    "n": 4096,
}


def tiles(number, n=20, size=8):
    """Return smooth pictures that differ from pass to pass."""
    ramp = np.linspace(0, 200, n * size * size * 3).reshape(n, size, size, 3)
    return (ramp + 10 * number).astype(np.uint8)


def material(number, kind, attribute="hair", labels=("short", "long")):
    """Return what a pass leaves besides its record."""
    trained = {} if kind == "generator" else {"history": history(kind)}
    if kind == "debias":
        names = dict(zip(["hair:short", "hair:long"], [f"{attribute}:{label}" for label in labels], strict=False))
        moments = {key: rename(value, names) for key, value in MOMENTS.items()}
        for name in [f"{attribute}:{label}" for label in labels[2:]]:
            for key in ("target", "observed", "achieved", "beta", "beta_low", "beta_high"):
                moments[key][name] = 0.1
        trained |= {"moments": moments, "beta": rename({"hair:short": 0.9512, "hair:long": -0.9512}, names)}
    return PassMaterial(tiles(number), **trained)


def rename(values, names):
    """Return a mapping under other names; anything else as it is."""
    return {names[name]: value for name, value in values.items()} if isinstance(values, dict) else values


def make(metrics=None, params=None, **parts):
    """Return a run around the content of a metrics.json."""
    parsed = Metrics.parse(with_changes(content() if metrics is None else metrics), "metrics.json")
    materials = [material(each.number, each.kind, parsed.attribute, list(parsed.target)) for each in parsed.passes]
    return Run(parsed, materials, settings(PARAMS if params is None else params), **parts)
