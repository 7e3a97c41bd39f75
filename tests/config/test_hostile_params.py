"""Files that are no parameters: recursive, exploding, deep, huge or without an end. Each is one line, at once."""

from __future__ import annotations

import os

import pytest

from promptgen.config.params import load_params
from promptgen.errors import ConfigError
from promptgen.flows.config import TrainingConfig
from promptgen.strict import DEEPEST, LARGEST_FILE, read_yaml
from tests import tiny

pytestmark = pytest.mark.timeout(30)

DOUBLING = "\n".join(["a0: &a0 {k: x}", *(f"a{n}: &a{n} {{p: *a{n - 1}, q: *a{n - 1}}}" for n in range(1, 60))])
REPEATING = f"a: &x {'x' * 100_000}\nb: [{', '.join(['*x'] * 10_000)}]"


def refusal(path):
    with pytest.raises(ConfigError) as caught:
        read_yaml(path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &x [*x]", "the alias *x is inside of what it repeats, line 1"),
        ("b: 1\na: &x {b: {c: *x}}", "the alias *x is inside of what it repeats, line 2"),
        (DOUBLING, "more than 100,000 keys and values"),
        (REPEATING, "more than 100,000 keys and values"),
        ("[" * 100_000, f"more than {DEEPEST} lists or mappings"),
        ("{a: " * 60 + "1" + "}" * 60, f"more than {DEEPEST} lists or mappings"),
        ("- " * 3000 + "1", f"more than {DEEPEST} lists or mappings"),
        ("a: " + "9" * 5000, "the number 999999999999999999... has more than 18 digits, line 1"),
        ("a: -" + "9" * 19, "has more than 18 digits"),
        ("a: !!int x", "the tag tag:yaml.org,2002:int is not read"),
        ("a: !!timestamp x", "the tag tag:yaml.org,2002:timestamp is not read"),
        ("a: !!python/object/apply:os.system [ls]", "is not read"),
        ("a: !mine x", "the tag !mine is not read"),
        ('a: "\\ud800"', "a character that no file can hold"),
        ('a: "\\0"', "a character that no file can hold"),
        ("1: a\n'1': b", "the key 1 appears twice, line 2"),
        ("a: " + "x" * LARGEST_FILE, "is larger than 1 MB"),
    ],
)
def test_a_hostile_file_is_refused_in_one_line(tmp_path, text, message):
    path = tmp_path / "params.yaml"
    path.write_text(text)
    assert message in refusal(path)


def test_aliases_that_repeat_little_are_read(tmp_path):
    path = tmp_path / "some.yaml"
    path.write_text("a: &x {b: [1, 2]}\nc: [*x, *x]\n")
    assert read_yaml(path) == {"a": {"b": [1, 2]}, "c": [{"b": [1, 2]}, {"b": [1, 2]}]}


def test_a_file_without_an_end_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert "a pipe or a device" in refusal(tmp_path / "pipe")
    assert "a pipe or a device" in refusal("/dev/zero")
    assert "a folder" in refusal(tmp_path)


@pytest.mark.parametrize("value", ["x" * 100_000, {f"key{n}": 1 for n in range(1000)}, "\x1b[31m"])
def test_what_is_shown_of_a_wrong_value_is_short_and_printable(tmp_path, value):
    for path in ("generator.type", "seed", "flow"):
        content = tiny.params()
        *sections, key = path.split(".")
        (content[sections[0]] if sections else content)[key] = value
        with pytest.raises(ConfigError) as caught:
            load_params(tiny.write_params(tmp_path, content))
        assert len(str(caught.value)) < 2000
        assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        ("debias", "dual", {"rate": float("inf")}, "debias.dual.rate: should be a finite number"),
        ("debias", "max_passes", 10**9, "debias.max_passes: should be less than or equal to 1000"),
        ("flow", "blocks", 10**9, "flow.blocks: should be less than or equal to 1000"),
        ("tracking", "experiment", "", "tracking.experiment: should have at least 1 character"),
        ("tracking", "experiment", "x" * 501, "tracking.experiment: should have at most 500 characters"),
        ("tracking", "experiment", "a\nb", "tracking.experiment: should have no control characters"),
        ("tracking", "registered_model", "a/b", "tracking.registered_model: should not be a path"),
        ("tracking", "registered_model", "a:b", "tracking.registered_model: should not be a path"),
        ("tracking", "registered_model", "..", "tracking.registered_model: should not be a path"),
        ("tracking", "registered_model", " ", "tracking.registered_model: should have no control characters"),
    ],
)
def test_what_could_never_run_is_refused(tmp_path, section, key, value, message):
    content = tiny.params()
    content[section][key] = value
    with pytest.raises(ConfigError) as caught:
        load_params(tiny.write_params(tmp_path, content))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "cron", ["", "* * * *", "* * * * * *", "@daily", "61 * * * *", "0 0 30 2 *", "5-1 * * * *", "1" * 5000 + " * * * *"]
)
def test_a_schedule_that_never_comes_is_refused(tmp_path, cron):
    content = {**tiny.params(), "schedule": {"cron": cron, "timezone": "UTC"}}
    with pytest.raises(ConfigError, match=r"schedule.cron: should be the five fields of cron, for a time that occurs"):
        load_params(tiny.write_params(tmp_path, content))


@pytest.mark.parametrize(
    "zone",
    ["", "Mars/Base", "../../etc/passwd", "/etc/localtime", "Europe", "zone.tab", "é", "posix/UTC", "right/UTC"],
)
def test_a_time_zone_that_does_not_exist_is_refused(tmp_path, zone):
    content = {**tiny.params(), "schedule": {"cron": "0 3 * * *", "timezone": zone}}
    with pytest.raises(ConfigError, match=r"schedule.timezone: should be a time zone, such as "):
        load_params(tiny.write_params(tmp_path, content))


def test_a_misspelt_time_zone_is_told_the_right_one(tmp_path):
    content = {**tiny.params(), "schedule": {"cron": "0 3 * * *", "timezone": "Europe/Berln"}}
    with pytest.raises(ConfigError, match=r"such as Europe/Berlin"):
        load_params(tiny.write_params(tmp_path, content))


def test_an_endless_training_is_counted_at_once():
    training = TrainingConfig(steps=10**17, batch=1, validate_every=10, validation_samples=2)
    assert training.samples(5) == {"training": 10**17, "choosing the best flow": 2 * (10**16 + 1), "judging the fit": 5}


@pytest.mark.parametrize("fixed_from", range(12))
def test_validations_are_counted_as_they_are_made(fixed_from):
    for steps in range(1, 11):
        for every in range(1, 13):
            training = TrainingConfig(steps=steps, batch=1, validate_every=every, validation_samples=1)
            first = min(fixed_from, steps)
            made = sum(step == first or training.validates(step) for step in range(first, steps + 1))
            assert training.samples(1, fixed_from)["choosing the best flow"] == made
