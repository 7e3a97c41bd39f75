"""The figures: same bytes from same numbers, no colour or id that could clash with the page, numbers written out."""

import re
from xml.etree import ElementTree

import pytest

from promptgen.records import Interval
from promptgen.reporting.drawing import figures

PASSES = [("0", "generator"), ("1", "control")]
CURVES = {"short": [(step, 0.2 + step / 500) for step in range(100)], "long": [(0, 0.8), (99, 0.5)]}


def interval(value):
    return Interval(value=value, low=value - 0.02, high=value + 0.02)


def passes(name="one", **options):
    series = {"classifier": [interval(0.5), None], "judge": [interval(0.501), interval(0.843)]}
    return figures.pass_panel(name, PASSES, series, **{"target": 0.5, **options})


def curves(name="two", **options):
    return figures.curve_panel(name, CURVES, **{"targets": {"short": 0.5}, **options})


@pytest.mark.parametrize("draw", [passes, curves])
def test_equal_numbers_give_equal_bytes(draw):
    assert draw() == draw()


@pytest.mark.parametrize("draw", [passes, curves])
def test_colours_and_fonts_are_the_pages(draw):
    svg = draw()
    assert not re.search(r"#[0-9a-fA-F]{3,6}\b(?!\d*-)", re.sub(r'(?:href="|url\()#[\w.-]+', "", svg))
    assert "var(--target)" in svg
    assert "var(--muted)" in svg
    assert "font-family" not in svg
    assert "<style" not in svg


@pytest.mark.parametrize("draw", [passes, curves])
def test_it_is_well_formed_and_refers_to_nothing_outside(draw):
    svg = draw()
    ElementTree.fromstring(svg)
    assert "http" not in svg
    assert "xlink" not in svg
    ids = set(re.findall(r' id="([^"]+)"', svg))
    assert set(re.findall(r'(?:href="|url\()#([\w.-]+)', svg)) == ids


def test_ids_of_two_figures_do_not_clash():
    one, two = (set(re.findall(r' id="([^"]+)"', passes(name))) for name in ("one", "two"))
    assert one
    assert not one & two


def test_the_judges_numbers_are_written_out_in_full():
    assert "50.1\u202f%" in passes()
    assert "84.3\u202f%" in passes()
    plain = figures.pass_panel("kl", PASSES, {"judge": [interval(0.1234), None]}, floor=[0.01, 0.01], shares=False)
    assert "0.123" in plain


def test_without_a_judge_the_classifiers_numbers_are_written_out():
    svg = figures.pass_panel("alone", PASSES, {"classifier": [interval(0.123), interval(0.6)], "judge": [None, None]})
    assert "12.3\u202f%" in svg


def test_ticks_are_round_numbers():
    svg = figures.pass_panel("ticks", PASSES, {"truth": [interval(0.125), interval(0.225)]})
    ticks = re.findall(r">([\d.]+)\u202f%<", svg)
    assert len(ticks) >= 3
    assert all(tick.isdigit() for tick in ticks)


def test_ticks_of_shares_end_at_100_percent():
    svg = figures.pass_panel("high", PASSES, {"judge": [interval(0.95), interval(0.98)]})
    ticks = [int(tick) for tick in re.findall(r">(\d+)\u202f%<", svg)]
    assert 100 in ticks
    assert max(ticks) == 100


def test_text_is_escaped_and_no_formula():
    svg = figures.pass_panel("odd", [("0", "<b>&$x^2$"), ("1", "b")], {"judge": [interval(0.5), interval(0.6)]})
    assert "&lt;b&gt;&amp;$x^2$" in svg


def test_a_single_point_is_seen_as_a_dot():
    svg = figures.curve_panel("short", {"held out": [(0, 1.0)]})
    ElementTree.fromstring(svg)
    assert svg.count("<use") == 1


def test_nothing_global_changes():
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    passes()
    assert dict(mpl.rcParams) == before
