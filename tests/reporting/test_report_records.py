"""The schema of metrics.json: what it takes, what it refuses, and that nothing is lost in between."""

import copy
import json

import made_up_run
import pytest

from promptgen.errors import DataError
from promptgen.files import read_json, write_json
from promptgen.metrics.shares import share_estimates
from promptgen.records import AttributeBias, Interval, Metrics, contains_target
from promptgen.reporting.run import Run

INTERVAL_50 = {"value": 0.5, "low": 0.4, "high": 0.6}
INTERVAL = {"value": float, "low": float, "high": float}


def shape(content):
    """Return the content with every leaf replaced by its type."""
    if isinstance(content, dict):
        return {key: shape(value) for key, value in content.items()}
    return [shape(value) for value in content] if isinstance(content, list) else type(content)


DISTANCES = ("kl", "total_variation", "discrepancy")
CHANCE = dict.fromkeys(DISTANCES, float)
DIFFERENCE = INTERVAL | {"p_value": float}


def bias(*labels):
    return {"shares": dict.fromkeys(labels, INTERVAL), **dict.fromkeys(DISTANCES, INTERVAL)}


def reader(*labels, **others):
    """Return the shape of what one reader says of an attribute."""
    parts = (
        {name: type(None) for name in ("simultaneous", "from_target", "soft", "corrected", "within")}
        | {"uncorrectable": []}
        | others
    )
    return {"counts": dict.fromkeys(labels, int)} | bias(*labels) | parts


HAIR = ("short", "long")
CORRECTED = dict.fromkeys(HAIR, INTERVAL)
COUNT = {"pass": int, "n": int, "target": dict.fromkeys(HAIR, float), "chance": CHANCE}
CHANGE = {
    "shares": dict.fromkeys(HAIR, DIFFERENCE),
    "distances": dict.fromkeys(DISTANCES, DIFFERENCE),
    "p_value": float,
}


def test_the_schema_is_the_promised_one():
    written = Metrics.parse(made_up_run.with_changes(made_up_run.content()), "x").as_dict()
    readers = {"judge": reader(*HAIR, corrected=CORRECTED)} | dict.fromkeys(("classifier", "truth"), reader(*HAIR))
    assert shape({key: value for key, value in written.items() if key != "passes"}) == {
        "experiment": str,
        "attribute": str,
        "target": {"short": float, "long": float},
        "stopped": str,
        "reference": type(None),
        "confirmation": {**COUNT, "by": readers},
    }
    glasses = written["passes"][1]["watched"].pop("glasses")
    assert shape(glasses) == {
        "target": {"without": float, "with": float},
        "chance": CHANCE,
        "by": dict.fromkeys(made_up_run.READERS, reader("without", "with")),
    }
    (change,) = written["passes"][1].pop("changes")
    assert shape(change.pop("watched")["glasses"]["truth"]).keys() == CHANGE.keys()
    assert shape(change) == {
        "since": int,
        "by": dict.fromkeys(made_up_run.READERS, CHANGE),
        "control": {f"makeup.without.{reader}": INTERVAL for reader in made_up_run.READERS},
    }
    probable = {"classifier": reader(*HAIR, soft=bias(*HAIR)), "truth": reader(*HAIR)}
    assert shape(written["passes"][1] | {"watched": None, "quality": None}) == {
        **COUNT,
        "by": {**probable, "judge": reader(*HAIR, soft=bias(*HAIR), corrected=CORRECTED)},
        "kind": str,
        "watched": type(None),
        "quality": type(None),
        "control": {
            **{f"makeup.without.{reader}": INTERVAL for reader in made_up_run.READERS},
            "identity.diversity": INTERVAL,
        },
        "fit": {
            **dict.fromkeys(("ess_fraction", "log_z", "kl_gap"), INTERVAL),
            "tail_index": float,
            "trust": str,
            "n": int,
        },
        "reuse": type(None),
        "seconds": {"sample": float, "evaluate": float, "train_flow": float},
        "generator_evaluations": {"forward": int, "backward": int},
    }
    assert written["passes"][0]["fit"] is None
    quality = shape(written["passes"][1]["quality"])
    assert (
        quality.items()
        >= {
            **dict.fromkeys(("reference", "features"), str),
            **dict.fromkeys(("n", "n_reference"), int),
            "few_samples": bool,
            **dict.fromkeys(("precision", "recall", "kernel"), INTERVAL),
            "frechet": {"value": float, "chance": float},
        }.items()
    )


def test_metrics_of_a_run_from_before_counts_were_kept_say_how_to_get_them():
    content = made_up_run.content()
    del content["passes"][0]["by"]["judge"]["counts"]
    with pytest.raises(DataError, match=r"passes\.0\.by\.judge\.counts: Field required; run the loop again"):
        Metrics.parse(content, "m.json")


def test_a_round_trip_through_the_file_loses_nothing(tmp_path):
    content = json.loads(json.dumps(made_up_run.with_changes(made_up_run.content())))
    parsed = Metrics.parse(content, "x")
    assert parsed.as_dict() == content
    write_json(tmp_path / "once.json", parsed.as_dict())
    again = Metrics.parse(read_json(tmp_path / "once.json"), "x")
    write_json(tmp_path / "twice.json", again.as_dict())
    assert again == parsed
    assert (tmp_path / "once.json").read_bytes() == (tmp_path / "twice.json").read_bytes()


def test_readers_that_did_not_count_are_left_out():
    parsed = Metrics.parse(made_up_run.content(readers=("classifier", "judge")), "x")
    assert parsed.sources == ["classifier", "judge"]
    assert parsed.passes[0].share("truth", "long") is None
    assert parsed.passes[0].source == "judge"


def test_the_rule_that_ends_the_loop_asks_the_interval_of_every_share():
    shares = {label: Interval.of(share) for label, share in zip("abc", share_estimates([334, 333, 333]), strict=True)}
    assert contains_target(shares, dict.fromkeys("abc", 1 / 3))
    assert not contains_target(shares, {"a": 0.33, "b": 0.17, "c": 0.5})
    assert contains_target({"a": Interval(**INTERVAL_50)}, {"a": 0.6})  # the ends belong to the interval


def test_the_most_trusted_reader_is_the_judge_then_the_classifier_then_the_truth():
    counted = AttributeBias.model_validate(made_up_run.watch((30, 70), (0.5, 0.5), ("without", "with")))
    order = []
    while counted.by:
        order.append(counted.source)
        counted = counted.model_copy(update={"by": {k: v for k, v in counted.by.items() if k != counted.source}})
    assert order == ["judge", "classifier", "truth"]


def change(content, path, value):
    changed = copy.deepcopy(content)
    *way, last = path
    place = changed
    for key in way:
        place = place[key]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return changed


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["colour"], "red", r"m\.json: colour: Extra inputs"),
        (["target"], None, r"m\.json: target: Field required"),
        (["passes"], [], r"m\.json: passes: List should have at least 1 item"),
        (["passes", 1, "kind"], "control2", r"m\.json: passes\.1\.kind: Input should be 'generator'"),
        (["passes", 1, "by", "judge", "kl", "low"], float("nan"), r"by\.judge\.kl\.low: Input should be a finite"),
        (["passes", 0, "by", "judge", "shares", "bald"], {"value": 0, "low": 0, "high": 0}, r"shares of \['bald'"),
        (["passes", 2, "pass"], 1, r"passes must be in order and each once, from 0 on, got \[0, 1, 1\]"),
        (["passes", 2, "pass"], 3, r"passes must be in order and each once, from 0 on, got \[0, 1, 3\]"),
        (["passes", 0, "by", "judge"], None, r"pass 0 was counted by classifier, truth, expected a count by the judge"),
        (["confirmation", "by", "judge"], None, r"pass 2 was counted by classifier, truth, expected a count by"),
        (["passes", 1, "target", "long"], 0.6, r"pass 1 has the target .*, expected"),
        (["confirmation", "pass"], 1, r"pass 1 was counted again, expected the last one, 2"),
        (["confirmation", "by", "truth", "shares"], {"long": INTERVAL_50}, r"shares of \['long'\] by truth"),
        (["passes", 1, "quality", "reference"], "ImageNet", r"passes\.1\.quality\.reference: Input should be"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(path, value, message):
    with pytest.raises(DataError, match=message) as error:
        Metrics.parse(change(made_up_run.content(), path, value), "m.json")
    assert "\n" not in str(error.value)
    assert "run the loop again" in str(error.value)


def test_a_run_needs_the_pictures_of_every_pass():
    whole = made_up_run.make()
    with pytest.raises(DataError, match="3 passes are recorded but 2 have pictures"):
        Run(whole.metrics, whole.material[:2], whole.settings)


def test_intervals_contain_and_overlap_with_their_ends():
    interval = Interval(value=0.5, low=0.4, high=0.6)
    assert interval.contains(0.4)
    assert not interval.contains(0.39)
    assert interval.overlaps(Interval(value=0.65, low=0.6, high=0.7))
    assert not interval.overlaps(Interval(value=0.65, low=0.61, high=0.7))


def test_settings_name_models_and_what_was_asked():
    settings = made_up_run.settings(made_up_run.PARAMS)
    assert (settings.classifier, settings.judge) == ("world-classifier", "world-judge")
    assert settings.asked == "“a person without makeup”"
    control = made_up_run.control(
        a={"type": "classifier", "classifier": "world-classifier", "labels": {"hair": "long", "skin": "3"}},
        b=made_up_run.TEXT | {"text": "a hat"},
        smile={"type": "custom", "function": "mine:smile"},
    )
    judges = [{"type": "card", "model": "one"}, {"type": "custom", "factory": "mine:judge"}]
    debias = made_up_run.PARAMS["debias"] | {
        "classifier": {"type": "custom", "factory": "mine:make"},
        "judge": {"type": "joint", "classifiers": judges},
    }
    other = made_up_run.settings(made_up_run.PARAMS | {"control": control, "debias": debias})
    assert other.asked == "long hair and skin 3, “a hat” and smile"
    assert (other.classifier, other.judge) == ("mine:make", "one and mine:judge")
    assert made_up_run.settings(made_up_run.PARAMS | {"control": None}).asked == ""
