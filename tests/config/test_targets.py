"""Target shares as weighted choices and as CSV files."""

from __future__ import annotations

import pytest
import yaml

from promptgen.config.params import load_params
from promptgen.config.targets import shares_of_choices
from promptgen.errors import ConfigError
from tests import tiny


def target(folder, value):
    """Return the target of a params.yaml that gives it as `value`."""
    content = tiny.params()
    content["debias"]["target"] = value
    return load_params(tiny.write_params(folder, content)).debias.target


@pytest.mark.parametrize(
    ("text", "shares"),
    [
        (
            "{59::white|20::latino|13::black|8::asian}",
            {"white": 0.59, "latino": 0.2, "black": 0.13, "asian": 0.08},
        ),
        ("{ 1.5 ::  long hair | short }", {"long hair": 0.6, "short": 0.4}),
        ("{short|long}", {"short": 0.5, "long": 0.5}),
        (" {.5::a::b|5e-1::c, d} ", {"a::b": 0.5, "c, d": 0.5}),
        ("{300::short x with|100::short x without}", {"short x with": 0.75, "short x without": 0.25}),
    ],
)
def test_weights_are_relative(tmp_path, text, shares):
    assert target(tmp_path, text) == pytest.approx(shares, abs=1e-15)
    assert list(target(tmp_path, text)) == list(shares)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{0::short|1::long}", "the weight of short should be a number greater than 0, not 0"),
        ("{1::short|-2::long}", "the weight of long should be a number greater than 0, not -2"),
        ("{1::short|nan::long}", "the weight of long .* not nan"),
        ("{1::short|1e999::long}", "the weight of long .* not 1e999"),
        ("{1::short|::long}", "the weight of long .* not empty"),
        ("{1::short|2::short}", "short has two weights"),
        ("{1::short|}", "the weight 1 has no label"),
        ("{}", "the weight 1 has no label"),
        ("{short}", "at least 2 items"),
        ("{1::short|2::long", "one pair of braces"),
        ("{1::short|{2::long|3::bald}}", "one pair of braces"),
        ("{2$$short|long}", "one pair of braces"),
        ("1::short|2::long", "there is no file"),
    ],
)
def test_wrong_choices_are_refused_in_one_line(tmp_path, text, message):
    with pytest.raises(ConfigError, match=f"debias.target: .*{message}") as error:
        target(tmp_path, text)
    assert "\n" not in str(error.value)


def test_a_choice_without_quotes_is_told(tmp_path):
    path = tiny.write_params(tmp_path)
    content = yaml.safe_dump(tiny.params() | {"debias": tiny.params()["debias"] | {"target": "HERE"}})
    path.write_text(content.replace("HERE", "{59::short|41::long}"))
    with pytest.raises(ConfigError, match=r"debias\.target: should be in quotes"):
        load_params(path)


@pytest.mark.parametrize(
    "table",
    [
        "label,share\nshort,0.59\nlong,0.41\n",
        "short,0.59\nlong,0.41\n",
        "Share;note;Label\n0.59;census;short\n0.41;census;long\n",
        '\ufeff"short",0.59\r\n"long",0.41\r\n\r\n',
    ],
)
def test_a_file_is_read_beside_params(tmp_path, monkeypatch, table):
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "shares.csv").write_text(table, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert target(tmp_path / "project", "shares.csv") == {"short": 0.59, "long": 0.41}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("short,0.5\nlong,0.6\n", "the shares must sum to 1, these sum to 1.1"),
        ("short,59\nlong,41\n", "the shares must sum to 1, these sum to 100"),
        ("short,0\nlong,1\n", "the share of short should be a number greater than 0, not 0"),
        ("label,share\nshort,-0.5\nlong,1.5\n", "the share of short .* not -0.5"),
        ("label,share\nshort,half\nlong,0.5\n", "the share of short .* not half"),
        ("label,share\nshort,0.5\nlong,\n", "the share of long .* not empty"),
        ("label,share\nshort,0.5\nshort,0.5\n", "short has two shares"),
        ("label,share\n,0.5\nshort,0.5\n", "has no label"),
        ("class,part\nshort,0.5\nlong,0.5\n", "has the columns class, part; expected label and share"),
        ("short\nlong\n", "has the columns short; expected label and share"),
        ("", "has no rows"),
        (None, "there is no file"),
    ],
)
def test_a_wrong_file_is_refused_in_one_line(tmp_path, table, message):
    if table is not None:
        (tmp_path / "shares.csv").write_text(table)
    with pytest.raises(ConfigError, match=f"debias.target: .*({message})") as error:
        target(tmp_path, "shares.csv")
    assert "\n" not in str(error.value)
    assert "shares.csv" in str(error.value)


def test_what_is_watched_may_be_a_choice(tmp_path):
    content = tiny.params()
    content["evaluation"]["watch"] = {"makeup": "{1::with|3::without}"}
    assert load_params(tiny.write_params(tmp_path, content)).evaluation.watch == {
        "makeup": shares_of_choices("{1::with|3::without}")
    }
