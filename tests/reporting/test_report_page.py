"""The page: complete, the same every time, safe against its own content, and without anything from outside."""

import copy
import dataclasses
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import made_up_run
import pytest

from promptgen.records import SOURCES
from promptgen.reporting.page import render
from promptgen.reporting.text import formats

ROOT = Path(__file__).resolve().parents[2]
VOID = {"meta", "link", "img", "br"}
SHA256 = "0123456789abcdef" * 4


@pytest.fixture(scope="module")
def run():
    return made_up_run.make(models={"world-judge": SHA256}, tracking={"loop": "a1b2c3d4"})


@pytest.fixture(scope="module")
def page(run):
    return render(run)


class Tags(HTMLParser):
    """Collects what a page refers to, and checks that its tags are balanced."""

    def __init__(self, page):
        super().__init__()
        self.open, self.links, self.ids, self.names = [], [], [], set()
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.names.add(tag)
        for name, value in attributes:
            if name in ("src", "href", "srcset", "action", "data"):
                self.links.append(value)
            if name == "id":
                self.ids.append(value)
            assert not name.startswith("on"), f"{name} runs a script"
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        self.handle_endtag(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag


def test_equal_runs_give_equal_bytes_in_any_process(page):
    code = (
        "import sys, made_up_run; from promptgen.reporting.page import render; "
        f"sys.stdout.buffer.write(render(made_up_run.make(models={{'world-judge': '{SHA256}'}}, "
        "tracking={'loop': 'a1b2c3d4'})).encode())"
    )
    places = os.pathsep.join([str(ROOT), str(Path(__file__).parent)])
    environment = os.environ | {"PYTHONHASHSEED": "4711", "PYTHONPATH": places, "TZ": "Asia/Tokyo"}
    again = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True)
    assert again.stdout == page.encode()


def test_it_needs_nothing_from_outside(page):
    tags = Tags(page)
    assert all(link.startswith(("data:", "#")) for link in tags.links)
    assert tags.names.isdisjoint({"script", "iframe", "object", "embed", "base", "form"})
    assert not re.search(r"https?:|@import|//[a-z]", re.sub(r"data:image/webp;base64,[\w+/=]+", "", page))
    assert set(re.findall(r"url\((.)", page)) <= {"#"}


def test_ids_are_unique(page):
    ids = Tags(page).ids
    assert len(ids) == len(set(ids))


def test_every_number_of_the_metrics_appears(run, page):
    for record in run.metrics.passes:
        assert list(record.by) == list(SOURCES)
        for reader in record.by.values():
            for interval in [*reader.shares.values(), *(reader.corrected or {}).values()]:
                assert formats.percent(interval.value) in page
                assert formats.percent_range(interval.low, interval.high) in page
            for distance in reader.distances.values():
                assert formats.number(distance.value, 4) in page
                assert formats.number_range(distance.low, distance.high, 4) in page
            assert reader.soft is None or formats.number(reader.soft.kl.value, 4) in page
        assert all(formats.number(chance, 4) in page for chance in record.chance.values())
        for watched in record.watched.values():
            for bias in watched.by.values():
                for interval in bias.shares.values():
                    assert formats.percent(interval.value) in page
                    assert formats.percent_range(interval.low, interval.high) in page
                for distance in bias.distances.values():
                    assert formats.number_range(distance.low, distance.high, 4) in page
        for figure in record.quality.figures.values():
            written = (formats.percent(figure.value), formats.number(figure.value, 4), formats.brief(figure.value, 5))
            assert any(text in page for text in written)
        for name, interval in record.control.items():
            assert name in page or name == "identity.diversity"  # which has a title instead
            shown = formats.number(interval.value, 4) if "identity" in name else formats.percent(interval.value)
            assert shown in page
        assert formats.count(record.n) in page
        for seconds in [*record.seconds.values(), sum(record.seconds.values())]:
            assert formats.duration(seconds) in page
        for evaluations in record.generator_evaluations.values():
            assert formats.count(evaluations) in page
    for text in ("−3.2500", "−3.375", "0.1250", formats.percent(0.417)):
        assert text in page


class Terms(HTMLParser):
    """Collects, section by section, what stands at the head of columns and rows, and what is explained beside it."""

    def __init__(self, page):
        super().__init__()
        self.heads, self.explained, self.section, self.tag = {}, {}, "", ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        if tag == "section":
            self.section = dict(attributes)["id"]
        self.tag = tag

    def handle_endtag(self, tag):
        self.tag = ""

    def handle_data(self, data):
        kept = {"th": self.heads, "dt": self.explained}.get(self.tag)
        if kept is not None and data.strip():
            kept.setdefault(self.section, set()).add(data.strip())


NAMES = {"Pass", "Distance", "Measure", "Time and work", "hair", "short", "long"}
"""Heads that are no numbers: of the column of names, or the names themselves."""


@pytest.mark.parametrize("section", ["passes", "bias", "quality", "fit", "multipliers", "ran"])
def test_every_number_has_its_line_beside_it(page, section):
    terms = Terms(page)
    titles = {"The generator alone", "De-biased", "Controlled: “a person without makeup”", "world-judge", "loop"}
    again = "Confirming count, after the loop ended"
    heads = {head for head in terms.heads[section] if head not in NAMES | titles | {again}}
    said = terms.explained[section]
    missing = {head for head in heads - said if not any(part in said for part in head.split(", ")[1:])}
    assert {head for head in missing if head != "Change" or "Change, by the judge" not in said} == set()
    assert len(heads) >= 3


def test_a_statistician_finds_method_size_and_seed_of_every_number(page):
    details = page[page.index("For statisticians") : page.index("<footer>")]
    rows = dict(re.findall(r"<tr><th>(.*?)</th>(.*?)</tr>", details, flags=re.DOTALL))
    for name, method in {
        "Shares": "Wilson",
        "Mean probabilities": "covariance",
        "Corrected shares": "Jeffreys",
        "Distances to the target": "bootstrap inverted",
        "By chance alone": "2N",
        "Confirming count": "decided nothing",
        "Change of a share": "Newcombe",
        "Change of a distance": "Bootstrap",
        "What else changed": "permutation",
        "Frechet distance": "world-judge",
        "Kernel distance": "Student",
        "Precision and recall": "disjoint parts",
        "Identity diversity": "Poisson bootstrap",
        "Fit": "delta method",
        "Multipliers": "convex dual",
    }.items():
        assert method in rows[name]
        assert re.search(r"\d\u202f\d{3}|both passes", rows[name]), f"{name} has no N"
    assert "follows from seed 7" in details
    assert f"{made_up_run.PARAMS['evaluation']['bootstrap']} simulated samples" in rows["Distances to the target"]


def test_a_method_that_was_not_used_is_not_told():
    page = render(made_up_run.make(made_up_run.least(made_up_run.content(["generator"]))))
    names = ("Mean probabilities", "Confirming count", "Change of a share", "Kernel distance", "Fit", "Multipliers")
    for name in names:
        assert f"<th>{name}</th>" not in page


def test_what_ran_is_told(run, page):
    for text in ("seed 7", "world-classifier", "world-judge", SHA256, "a1b2c3d4", "text: a person without makeup"):
        assert text in page
    assert run.metrics.stopped in page


def test_multipliers_are_told_before_and_after_training(page):
    for text in ("0.829", "−0.829", "0.951", "−0.951", "0.271", formats.percent(0.5361), formats.count(4096)):
        assert text in page


def test_classes_stand_in_the_order_of_the_target_everywhere(run):
    shuffled = [
        dataclasses.replace(
            each,
            history=[dict(sorted(row.items())) for row in each.history],
            moments=each.moments and {key: sort(value) for key, value in each.moments.items()},
        )
        for each in run.material
    ]
    assert render(dataclasses.replace(run, material=shuffled)) == render(run)


def sort(value):
    return dict(sorted(value.items())) if isinstance(value, dict) else value


def test_it_says_that_labels_are_perceived_and_where_truth_comes_from(page):
    assert "perceived" in page
    assert "Only the embedded world and generators with a truth know it" in page


def test_it_fits_light_and_dark_wide_and_narrow(page):
    assert "@media (prefers-color-scheme: dark)" in page
    assert "color-scheme: light dark" in page
    assert 'name="viewport"' in page
    light, dark = (
        set(re.findall(r"(--[\w-]+):", block)) for block in re.findall(r":root \{(.*?)\}", page, flags=re.DOTALL)
    )
    assert light == dark, "every colour needs a dark twin"
    assert set(re.findall(r"var\((--[\w-]+)\)", page)) - {"--value", "--goal"} <= light


def test_each_pass_shows_the_same_latents_in_rows_of_eight(run, page):
    # 20 latents: the opening shows 16 of them in three passes, and below there are three groups with three rows each.
    assert page.count("data:image/webp;base64,") == 3 + 3 * 3
    assert "20 latents, unselected" in page


def test_texts_from_outside_are_escaped():
    attack = "<script>alert('x')</script>&\""
    params = copy.deepcopy(made_up_run.PARAMS)
    params["control"]["energies"]["text"]["text"] = attack
    content = made_up_run.content(stopped=attack, labels=("short", "<b>long"))
    content["passes"][1]["control"][f"makeup.{attack}.judge"] = {"value": 0.5, "low": 0.4, "high": 0.6}
    content["experiment"] = content["attribute"] = attack
    page = render(made_up_run.make(content, params, models={attack: attack}, tracking={attack: attack}))
    assert "<script" not in page
    assert "<b>long" not in page
    assert "&lt;script&gt;" in page
    Tags(page)


@pytest.mark.parametrize(
    "content",
    [
        made_up_run.content(["generator"]),
        made_up_run.content(["generator", "control"]),
        made_up_run.content(["generator", "debias"]),
        made_up_run.content(["generator", "control", "debias", "debias"], stopped="maximum of passes reached"),
        made_up_run.content(long=[0.2, 0.5, 0.2], labels=tuple("123456"), target=(1 / 6,) * 6),
        made_up_run.content(stopped=""),
        made_up_run.least(made_up_run.content()),
    ],
)
def test_every_outcome_has_a_page(content):
    page = render(made_up_run.make(content))
    Tags(page)
    reason = f"Reason for stopping: {content['stopped']}" if content["stopped"] else "The loop has not finished"
    assert reason in page


def test_without_truth_the_page_says_so():
    page = render(made_up_run.make(made_up_run.content(readers=("classifier", "judge"))))
    Tags(page)
    for text in ("There is no truth for this generator", "this run had none"):
        assert text in page


def test_a_warning_stands_before_the_figures_only_when_there_is_one(page):
    assert 'class="notice"' not in page
    apart = {"classifier": 0.5, "judge": 0.6, "truth": 0.6}
    warned = render(made_up_run.make(made_up_run.content(long=[0.5, 0.84, apart])))
    assert 'class="notice"' in warned
    assert warned.index("disagree on long hair") < warned.index('id="passes"')


def test_shares_within_each_prompt_have_a_table_of_their_own(page):
    assert "Shares within each" not in page
    labels = [f"a {who} x {hair}" for who in ("builder", "nurse") for hair in ("short", "long")]
    content = made_up_run.content(labels=labels, target=(0.35, 0.15, 0.2, 0.3)) | {"attribute": "prompt x hair"}
    for count in [*content["passes"], content["confirmation"]]:
        for position, reader in enumerate(count["by"].values()):
            share = {"value": 0.1234 + position / 10, "low": 0.1 + position / 10, "high": 0.15 + position / 10}
            reader["within"] = {f"a {who}": {"short": share, "long": share} for who in ("builder", "nurse")}
    html = render(made_up_run.make(content))
    table = html.partition("Shares within each prompt")[2].partition("</table>")[0]
    assert re.findall(r"<th>(a \w+)</th><th>(\w+)</th><td>([^<]+)</td>", table)[:4] == [
        *(("a builder", "short", "70\u202f%"), ("a builder", "long", "30\u202f%")),
        *(("a nurse", "short", "40\u202f%"), ("a nurse", "long", "60\u202f%")),
    ]
    for position in range(3):  # classifier, judge and truth
        assert table.count(formats.percent(0.1234 + position / 10)) == 4 * len(content["passes"]) + 4
