"""The schema of metrics.json: what it takes, what it refuses, and that nothing is lost in between."""

import copy
import json

import made_up_run
import pytest

from promptgen.errors import DataError
from promptgen.files import read_json, write_json
from promptgen.records import Interval, Metrics
from promptgen.reporting.run import Run

INTERVAL_50 = {"value": 0.5, "low": 0.4, "high": 0.6}
INTERVAL = {"value": float, "low": float, "high": float}


def shape(content):
    """Return the content with every leaf replaced by its type."""
    if isinstance(content, dict):
        return {key: shape(value) for key, value in content.items()}
    return [shape(value) for value in content] if isinstance(content, list) else type(content)


BIAS = {
    "shares": {"short": INTERVAL, "long": INTERVAL},
    "kl": INTERVAL,
    "total_variation": INTERVAL,
    "discrepancy": INTERVAL,
}
CHANCE = {"kl": float, "total_variation": float, "discrepancy": float}
COUNT = {
    "pass": int,
    "n": int,
    "shares": {reader: {"short": INTERVAL, "long": INTERVAL} for reader in made_up_run.READERS},
    "kl": dict.fromkeys(made_up_run.READERS, INTERVAL),
    "distances": {reader: {"total_variation": INTERVAL, "discrepancy": INTERVAL} for reader in made_up_run.READERS},
    "chance": CHANCE,
    "corrected": {"judge": BIAS["shares"]},
    "uncorrectable": {"judge": []},
}


def test_the_schema_is_the_promised_one():
    written = Metrics.parse(made_up_run.content(), "x").as_dict()
    assert shape({key: value for key, value in written.items() if key != "passes"}) == {
        "experiment": str,
        "attribute": str,
        "target": {"short": float, "long": float},
        "stopped": str,
        "confirmation": {**COUNT, "contains_target": bool},
    }
    glasses = written["passes"][1]["watched"].pop("glasses")
    assert shape(glasses["by"]["truth"]["shares"]) == {"without": INTERVAL, "with": INTERVAL}
    assert shape({**glasses, "by": list(glasses["by"])}) == {
        "target": {"without": float, "with": float},
        "by": [str] * 3,
        "chance": CHANCE,
    }
    assert shape(written["passes"][1] | {"watched": None}) == {
        **COUNT,
        "kind": str,
        "soft": dict.fromkeys(("classifier", "judge"), BIAS),
        "watched": type(None),
        "quality": {
            **dict.fromkeys(("reference", "features"), str),
            **dict.fromkeys(("n", "n_reference"), int),
            **dict.fromkeys(("frechet", "frechet_chance"), float),
            "few_samples": bool,
            **dict.fromkeys(("kernel", "precision", "recall"), INTERVAL),
        },
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
        "seconds": {"sample": float, "evaluate": float, "train_flow": float},
        "generator_evaluations": {"forward": int, "backward": int},
    }
    assert written["passes"][0]["fit"] is None


def test_metrics_of_an_older_run_are_taken():
    content = made_up_run.of_an_older_run(made_up_run.content())
    parsed = Metrics.parse(content, "x")
    assert parsed.confirmation is None
    assert (parsed.passes[1].distances, parsed.passes[1].watched, parsed.passes[1].quality) == ({}, {}, None)


def test_a_round_trip_through_the_file_loses_nothing(tmp_path):
    content = json.loads(json.dumps(made_up_run.content()))
    parsed = Metrics.parse(content, "x")
    assert parsed.as_dict() == content
    write_json(tmp_path / "once.json", parsed.as_dict())
    again = Metrics.parse(read_json(tmp_path / "once.json"), "x")
    write_json(tmp_path / "twice.json", again.as_dict())
    assert again == parsed
    assert (tmp_path / "once.json").read_bytes() == (tmp_path / "twice.json").read_bytes()


def test_readers_that_did_not_count_are_null_and_stay_null():
    content = made_up_run.content(readers=("classifier",))
    for record in content["passes"]:
        record["shares"] |= {"judge": None, "truth": None}
        record["kl"] |= {"judge": None, "truth": None}
    parsed = Metrics.parse(content, "x")
    assert parsed.as_dict() == content
    assert parsed.sources == ["classifier"]
    assert parsed.passes[0].counter == "classifier"


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
        (["passes", 1, "kl", "judge", "low"], float("nan"), r"passes\.1\.kl\.judge\.low: Input should be a finite"),
        (["passes", 0, "shares", "judge", "bald"], {"value": 0, "low": 0, "high": 0}, r"pass 0 has shares of \['bald'"),
        (["passes", 2, "pass"], 1, r"passes must be in order and each once, got \[0, 1, 1\]"),
        (["passes", 0, "shares"], {"truth": None}, r"pass 0 has no shares or no KL"),
        (["passes", 0, "kl"], {"classifier": None}, r"pass 0 has no shares or no KL"),
        (["confirmation", "pass"], 1, r"pass 1 was counted again, expected the last one, 2"),
        (["confirmation", "contains_target"], False, r"contradicts itself on whether it contains the target"),
        (["confirmation", "shares", "truth"], {"long": INTERVAL_50}, r"pass 2 has shares of \['long'\] by truth"),
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
