"""What an audit is asked for: target shares in words, and the arguments of the command."""

from __future__ import annotations

from pathlib import Path

import pytest

from promptgen.audit.figures import Sampling
from promptgen.audit.request import Request, named_in_targets, parse_targets
from promptgen.errors import ConfigError
from steps import audit
from tests.commands import typed


def test_targets_are_parsed():
    assert parse_targets(["long=0.25, short = 0.75"], ["hair"]) == {"hair": {"long": 0.25, "short": 0.75}}
    assert parse_targets(["uniform"], ["hair", "age"]) == {}
    assert parse_targets(["a x b: 1 x 2=1"], ["hair", "a x b"]) == {"a x b": {"1 x 2": 1.0}}
    assert parse_targets(["-1=0.5, 1=.5"], ["Male"]) == {"Male": {"-1": 0.5, "1": 0.5}}
    assert parse_targets(["a, b=0.25, c=d=75e-2"], ["x"]) == {"x": {"a, b": 0.25, "c=d": 0.75}}
    assert parse_targets(["{1::Male|3::Female}"], ["gender"]) == {"gender": {"Male": 0.25, "Female": 0.75}}
    assert parse_targets(["age: {2::young|2::old}"], ["gender", "age"]) == {"age": {"young": 0.5, "old": 0.5}}
    assert named_in_targets(["age: {2::young|2::none}"], ["gender", "age"]) == (["age"], {"young", "none"})
    columns = ["gender", "gender: perceived", "age=years"]
    found = parse_targets(["gender: perceived: Male=1", "age=years: 70+=1", "gender : uniform"], columns)
    assert found == {"gender: perceived": {"Male": 1.0}, "age=years": {"70+": 1.0}}


@pytest.mark.parametrize("text", ["", "Male", "Male=", "=0.5", "Male=half", "Male=nan", "Male=50%"])
def test_targets_that_cannot_be_parsed_are_refused(text):
    with pytest.raises(ConfigError, match="cannot be parsed"):
        parse_targets([text], ["gender"])


def test_a_share_or_a_target_that_is_given_twice_is_refused():
    with pytest.raises(ConfigError, match="two shares of Male"):
        parse_targets(["Male=0.5, Male=0.5"], ["gender"])
    with pytest.raises(ConfigError, match="gender has two targets"):
        parse_targets(["gender: uniform", "gender: Male=1"], ["gender"])


@pytest.fixture
def asked(monkeypatch):
    """What the command asked for, with its folder; no audit is made."""
    asked = []
    monkeypatch.setattr(audit, "run_and_print", lambda *request: asked.append(request))
    return asked


def test_every_argument_reaches_the_audit(asked):
    words = (
        "--images a --classifier b --judge c --compare d --attribute e f --target g --target h --confusion i --groups"
    )
    numbers = "--size 64 --batch 2 --device cuda --models m --confidence 0.9 --resamples 99 --seed 3 --out o"
    assert typed("audit", *words.split(), *numbers.split()) == 0
    request, out = asked.pop()
    assert out == Path("o")
    assert request == Request(
        Path("a"),
        classifier="b",
        judge="c",
        compare=Path("d"),
        attributes=["e", "f"],
        targets=["g", "h"],
        confusions=[Path("i")],
        size=64,
        batch=2,
        device="cuda",
        models=Path("m"),
        sampling=Sampling(0.9, 99, 3),
        groups=True,
    )
    assert typed("audit", "--labels", "a", "--groups", "job", "--normalise") == 0
    request, _ = asked.pop()
    assert (request.groups, request.normalise) == ("job", True)
    assert typed("audit", "--labels", "a", "--target", "-1=0.5,1=0.5", "--target", "-1=1") == 0
    assert asked.pop()[0].targets == ["-1=0.5,1=0.5", "-1=1"]


@pytest.mark.parametrize(
    "words",
    [
        ["--images", "x"],
        ["--labels", "x", "--classifier", "fairface"],
        ["--labels", "x", "--images", "y"],
        ["--labels", "x", "--confidence", "95"],
        ["--labels", "x", "--batch", "0"],
        ["--labels", "x", "--groups"],
        ["--images", "x", "--classifier", "y", "--groups", "z"],
        ["--images", "x", "--classifier", "y", "--normalise"],
    ],
)
def test_contradicting_arguments_are_refused(words, asked, capsys):
    assert typed("audit", *words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert not asked
