"""What else changed: a sentence that tells a change from chance, and tables by everyone who counted."""

import made_up_run
import pytest

from promptgen.reporting.page import render
from promptgen.reporting.sections.panels import watched_panel
from promptgen.reporting.sections.watched import held_against, watched_tables
from promptgen.reporting.text import formats

AGE = ("young", "middle", "old")


def plain(text):
    return text.replace(formats.THIN, " ").replace("\u00a0", " ")


def run(kinds=("generator", "control", "debias"), **watched):
    """Return a run with what was watched: for each attribute labels, target, and the counts of each pass."""
    content = made_up_run.content(list(kinds))
    for index, record in enumerate(content["passes"]):
        record["watched"] = {
            name: made_up_run.watch(counts[index], target, labels)
            for name, (labels, target, counts) in watched.items()
            if counts[index]
        }
    return made_up_run.make(content)


def table(given):
    (found,) = watched_tables(given.metrics, given.settings)
    return found


GLASSES = (("without", "with"), (0.5, 0.5), [(1398, 602), (1410, 590), (1426, 574)])


def test_what_chance_explains_is_no_change():
    sentence = plain(table(run(glasses=GLASSES)).sentence)
    assert sentence.startswith("No change beyond chance: with glasses 30.1 % → 28.7 % (p = 0.3")
    assert sentence.endswith("; −4.2 to +1.4 points).")


def test_what_it_does_not_explain_is_one_told_by_the_class_that_moved_most():
    counts = [(1000, 600, 400), (1000, 300, 700), (1050, 300, 650)]
    sentence = plain(table(run(age=(AGE, (0.4, 0.4, 0.2), counts))).sentence)
    assert sentence == (
        "Changed: middle age 30.0 % → 15.0 %, the largest change of its classes "
        "(p = 0.005 over all classes; this class −17.5 to −12.4 points)."
    )


@pytest.mark.parametrize(
    ("attribute", "ending"),
    [
        ("hair x glasses", "Moved on purpose: hair."),
        ("makeup x glasses", "Moved on purpose: makeup."),
        ("glasses x skin", "points)."),
    ],
)
def test_what_was_moved_on_purpose_is_named(attribute, ending):
    labels = [f"{one} x {other}" for one in ("short", "long") for other in ("without", "with")]
    counts = [(1000, 400, 400, 200), (100, 100, 1200, 600), (700, 300, 700, 300)]
    assert table(run(**{attribute: (labels, (0.25,) * 4, counts)})).sentence.endswith(ending)


def test_what_no_flow_was_de_biased_for_was_not_moved_on_purpose():
    labels = [f"{one} x {other}" for one in ("short", "long") for other in ("without", "with")]
    given = run(
        ["generator", "control"], **{"hair x glasses": (labels, (0.25,) * 4, [(1000, 400, 400, 200), (500,) * 4])}
    )
    assert table(given).sentence.endswith("points).")


def test_sources_are_explained_where_they_are_drawn():
    def section(given):
        page = render(given)
        return page[page.index('id="watched"') : page.index('id="fit"')]

    age = (AGE, (0.4, 0.4, 0.2), [(1000, 600, 400)] * 3)
    both, pair, many = (
        section(run(**each)) for each in ({"age": age, "glasses": GLASSES}, {"glasses": GLASSES}, {"age": age})
    )
    assert [each.count("</svg>truth</li>") for each in (both, pair, many)] == [1, 1, 0]
    assert ["show the counts of the judge" in each for each in (both, pair, many)] == [True, False, True]


def test_the_table_tells_since_when():
    counts = [(1000, 1000), (1500, 500), (1490, 510)]
    found = table(run(glasses=(("without", "with"), (0.5, 0.5), counts)))
    account = found.accounts[0]
    assert [each.source for each in found.accounts] == ["judge", "classifier", "truth"]
    assert account.since_before[0] is account.since_first[0] is None
    assert account.since_before[1] == account.since_first[1] < 0.01
    assert account.since_before[2] > 0.5
    assert account.since_first[2] < 0.01
    assert [share.value for share in account.shares["with"]] == [0.5, 0.25, 0.255]
    assert account.distances["total_variation"][1].value == pytest.approx(0.25)
    assert found.chance["kl"] == [pytest.approx(1 / (2 * made_up_run.N))] * 3


def test_one_pass_alone_is_compared_with_nothing():
    found = table(run(["generator"], age=(AGE, (0.4, 0.4, 0.2), [(500, 500, 1000)])))
    assert plain(found.sentence) == "Old age 50.0 %, reference 20 %. There are not two passes to compare."
    assert found.accounts[0].since_first == [None]


def test_a_pass_that_did_not_look_has_a_dash_and_no_p_value():
    given = run(glasses=(("without", "with"), (0.5, 0.5), [(1000, 1000), None, (1000, 1000)]))
    account = table(given).accounts[0]
    assert account.shares["with"][1] is None
    assert account.since_before == [None, None, None]
    assert account.since_first[1:] == [None, pytest.approx(1)]
    render(given)


def test_two_classes_are_drawn_by_all_who_count_and_many_by_their_classes():
    given = run(glasses=GLASSES, age=(AGE, (0.4, 0.4, 0.2), [(1000, 600, 400)] * 3))
    glasses, age = (
        watched_panel(given.metrics, *each) for each in enumerate(watched_tables(given.metrics, given.settings))
    )
    assert (glasses.title, list(glasses.labels)) == ("With glasses", [])
    assert all(f"var(--{source})" in glasses.svg for source in made_up_run.READERS)
    assert (age.title, list(age.labels)) == ("Age", list(AGE))
    assert glasses.meaning.startswith("No change beyond chance")


def test_of_many_classes_those_that_moved_most_are_drawn():
    labels = tuple("abcdefgh")
    counts = [(250,) * 8, (100, 300, 300, 300, 250, 250, 250, 250), (100, 300, 300, 300, 251, 249, 250, 250)]
    given = run(skin=(labels, (0.125,) * 8, counts))
    panel = watched_panel(given.metrics, 0, table(given))
    assert list(panel.labels) == ["a", "b", "c", "d", "e", "f"]


def test_what_shares_are_held_against_is_said():
    assert plain(held_against({"a": 0.25, "b": 0.25, "c": 0.25, "d": 0.25})) == "equal shares of 25 %"
    assert held_against({"a": 0.4, "b": 0.6}) == "the shares of the Target column"


def test_the_page_has_a_sentence_before_the_tables_and_nothing_without_any():
    page = plain(render(run(glasses=GLASSES)))
    section = page[page.index('id="watched"') : page.index('id="fit"')]
    assert section.index("No change beyond chance") < section.index("<details>")
    for text in (
        "30.1 %",
        "28.7 %",
        "not detected",
        "Distances to equal shares of 50 %",
        "Counts of classifier and truth",
    ):
        assert text in section
    assert "What else changed" not in render(made_up_run.make(made_up_run.least(made_up_run.content())))
