"""Quality and variety: what is a cost, what is meant, and what is warned of."""

import made_up_run
import pytest

from promptgen.reporting.page import render
from promptgen.reporting.sections.doubts import warnings
from promptgen.reporting.sections.quality import cost, falls, quality_rows, quality_sentence
from promptgen.reporting.text import formats

FOUR = ["generator", "control", "debias", "debias"]


def plain(text):
    return text.replace(formats.THIN, " ").replace("\u00a0", " ")


def change(kinds=("generator", "control", "debias"), **figures):
    """Return metrics in whose last pass some figures are those given."""
    content = made_up_run.content(list(kinds))
    last = content["passes"][-1]
    for name, figure in figures.items():
        place = last["control"] if name == "diversity" else last["quality"]
        place["identity.diversity" if name == "diversity" else name] = figure
    return made_up_run.make(content).metrics


def share(value):
    return made_up_run.wilson(value * made_up_run.N, made_up_run.N).as_dict()


def told(metrics):
    return [plain(warning) for warning in warnings(metrics)]


@pytest.mark.parametrize(
    ("figure", "value", "sentence"),
    [
        ("recall", share(0.5), "Pass 2: recall fell from 67.1 % to 50.0 %, so its samples cover less"),
        ("precision", share(0.8), "Pass 2: precision fell from 88.3 % to 80.0 %, so fewer of its samples look like"),
        (
            "diversity",
            {"value": 0.9, "low": 0.88, "high": 0.92},
            "Pass 2: identity diversity fell from 1.031 to 0.900, so its samples differ less from each other",
        ),
    ],
)
def test_a_clear_fall_in_a_de_biasing_pass_is_warned_of(figure, value, sentence):
    (warning,) = told(change(**{figure: value}))
    assert warning.startswith(sentence)


@pytest.mark.parametrize(
    "figures",
    [
        {"recall": share(0.66)},
        {"recall": share(0.8)},
        {"precision": share(0.87)},
        {"diversity": {"value": 1.0, "low": 0.98, "high": 1.02}},
        {"frechet": {"value": 100.0, "chance": 0.377}},
        {"kernel": {"value": 1.0, "low": 0.9, "high": 1.1}},
    ],
)
def test_what_intervals_allow_or_is_meant_to_be_is_not_warned_of(figures):
    assert told(change(**figures)) == []


def test_a_control_may_narrow_what_is_made():
    metrics = change(["generator", "control"], recall=share(0.2), frechet={"value": 50.0, "chance": 0.377})
    assert told(metrics) == []
    assert [plain(each) for each in cost(metrics)] == [
        "The control narrowed the output, as it is meant to: recall fell from 87.1 % to 20.0 %."
    ]


def test_precision_that_the_control_lowers_is_told_as_a_cost_of_quality():
    metrics = change(["generator", "control"], precision=share(0.6))
    assert told(metrics) == []
    assert [plain(each) for each in cost(metrics)] == [
        "The control narrowed the output, as it is meant to: recall fell from 87.1 % to 67.1 %.",
        "The control may have cost quality: precision fell from 88.3 % to 60.0 %.",
    ]


def test_each_pass_is_held_against_the_one_before():
    metrics = change(FOUR, recall=share(0.5))
    assert [each.startswith("Pass 3: recall fell") for each in told(metrics)] == [True]
    sentence = "De-biasing cost quality or variety: recall fell from 67.1 % to 50.0 % in pass 3."
    assert plain(cost(metrics)[-1]) == sentence


def test_de_biasing_that_cost_nothing_is_told_as_far_as_it_was_measured():
    assert cost(made_up_run.make().metrics)[-1].startswith("De-biasing cost neither, by these figures")
    content = made_up_run.content()
    for record in content["passes"]:
        record["quality"] = None
        record["control"].pop("identity.diversity")
    metrics = made_up_run.make(content).metrics
    assert cost(metrics) == []
    assert quality_rows(metrics) == []
    assert "Did it cost quality or variety?" not in render(made_up_run.make(content))


def test_passes_without_figures_are_not_compared():
    metrics = made_up_run.make(made_up_run.least(made_up_run.content())).metrics
    assert falls(*metrics.passes[:2]) == []
    assert [title for title, *_ in quality_rows(metrics)] == ["Identity diversity"]


def test_too_few_samples_for_a_frechet_distance_are_warned_of_once():
    content = made_up_run.content()
    for record in content["passes"][1:]:
        record["quality"]["few_samples"] = True
    metrics = made_up_run.make(content).metrics
    (warning,) = told(metrics)
    assert warning.startswith("Passes 1 and 2: the feature network has at least as many features")
    assert "too few samples for a Frechet distance" in quality_sentence(metrics.passes[1].quality)


def test_sentences_say_what_the_figures_mean():
    alone, control = (plain(quality_sentence(record.quality)) for record in made_up_run.make().metrics.passes[:2])
    assert alone == (
        "Two halves of the generator’s own samples, compared with each other: 88.3 % of one half look like the other "
        "half, and they cover 87.1 % of it. These are the values expected by chance alone."
    )
    assert control == (
        "88.3 % of the samples look like the generator’s own, and they cover 67.1 % of its variety. "
        "Their Frechet distance is 9.05 times the value expected by chance alone."
    )
    near = change(frechet={"value": 0.3, "chance": 0.377}).passes[-1].quality
    assert quality_sentence(near).endswith("Their Frechet distance is no larger than expected by chance alone.")


def test_the_page_answers_first_and_folds_the_numbers():
    page = plain(render(made_up_run.make()))
    section = page[page.index('id="quality"') : page.index('id="watched"')]
    assert section.index("De-biasing cost neither") < section.index("<details>")
    for text in (
        "3.41",
        "0.377",
        "0.0123",
        "−0.00110 to 0.0257",
        "88.3 %",
        "67.1 %",
        "against 1 000",
        "against 2 000",
    ):
        assert text in section
    assert "Fraction of these samples that look like the generator’s own." in section
    assert "Fraction of the generator’s variety that these samples still cover." in section
