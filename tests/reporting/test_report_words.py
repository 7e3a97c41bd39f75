"""The sentences: each outcome of a run has its own, and none of them flatters."""

import re

import made_up_run
import pytest

from promptgen.records import Fit, Metrics, requested_shares
from promptgen.reporting.drawing import history
from promptgen.reporting.sections import answer as answers
from promptgen.reporting.sections import control, doubts
from promptgen.reporting.sections import names as words
from promptgen.reporting.text import formats

GENERATOR, CONTROL, DEBIAS = "generator", "control", "debias"
ASKED = "Asking for “a person without makeup” moved long hair from 50 % to 84 %"


def plain(text):
    return text.replace(formats.THIN, " ").replace("\u00a0", " ")


def answer(given):
    return plain(answers.answer(given.metrics, given.settings))


def context(given):
    return plain(" ".join(answers.context(given.metrics, given.settings)))


def run(*arguments, params=None, **options):
    return made_up_run.make(made_up_run.content(*arguments, **options), params)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (
            run(),
            f"{ASKED}; de-biasing brought it to 51 %, and the judge’s confidence interval contains the target of 50 %.",
        ),
        (
            run([GENERATOR, CONTROL, DEBIAS, DEBIAS], [0.5, 0.84, 0.61, 0.58], stopped="maximum of passes reached"),
            f"{ASKED}; 2 de-biasing passes left it at 58 %, "
            "and the judge’s confidence interval misses the target of 50 %.",
        ),
        (
            run([GENERATOR, CONTROL], [0.5, 0.84]),
            f"{ASKED}; the judge’s confidence interval misses the target of 50 %, and no de-biasing pass has been run.",
        ),
        (
            run([GENERATOR, CONTROL], [0.5, 0.51]),
            "Asking for “a person without makeup” did not measurably move long hair from 50 % to 51 %; "
            "the judge’s confidence interval contains the target of 50 %.",
        ),
        (  # each interval reaches into the other, and yet chance explains the difference in 1 of 90 cases alone
            run([GENERATOR, CONTROL], [0.5, 0.54]),
            "Asking for “a person without makeup” moved long hair from 50 % to 54 %; "
            "the judge’s confidence interval misses the target of 50 %, and no de-biasing pass has been run.",
        ),
        (
            run([GENERATOR], [0.5]),
            "The generator alone has short hair at 50 %; the judge’s confidence interval contains the target of 50 %.",
        ),
        (
            run([GENERATOR], [0.7]),
            "The generator alone has long hair at 70 %; the judge’s confidence interval misses the target of 50 %, "
            "and no de-biasing pass has been run.",
        ),
        (
            run([GENERATOR, DEBIAS], [0.7, 0.5], params=made_up_run.PARAMS | {"control": None}),
            "The generator alone has long hair at 70 %; de-biasing brought it to 50 %, "
            "and the judge’s confidence interval contains the target of 50 %.",
        ),
    ],
)
def test_the_answer_says_what_happened(given, sentence):
    assert answer(given) == sentence


@pytest.mark.parametrize(
    ("debias", "ending"),
    [
        ({"max_passes": 0}, "misses the target of 50 %, and de-biasing was not requested."),
        (
            {"training": None},
            "misses the target of 50 %, and multipliers that would correct it were fitted, but no flow was trained "
            "with them.",
        ),
    ],
)
def test_the_answer_says_what_was_not_asked_for(debias, ending):
    params = made_up_run.PARAMS | {"debias": made_up_run.PARAMS["debias"] | debias}
    assert answer(run([GENERATOR, CONTROL], [0.5, 0.84], params=params)).endswith(ending)


def test_many_classes_are_told_as_a_distance():
    labels, target = ("young", "middle", "old"), (0.25, 0.25, 0.5)
    near = answer(run(long=[0.5, 0.84, 0.5], labels=labels, target=target))
    assert near.startswith(
        "Asking for “a person without makeup” moved the distance from the target shares of hair from 0.000"
    )
    assert near.endswith(
        "de-biasing brought it to 0.000 nats, and all confidence intervals of the judge contain their targets."
    )
    alone = answer(run([GENERATOR], [0.6], labels=labels, target=target))
    assert re.match(r"The generator alone is 0\.\d{3} nats from the target shares of hair; ", alone)
    far = answer(run(long=[0.5, 0.84, 0.6], labels=labels, target=target))
    assert far.endswith("nats, and some confidence intervals of the judge miss their targets.")


def test_a_share_that_rounds_to_the_target_but_misses_it_is_called_a_miss():
    content = made_up_run.content(long=[0.5, 0.84, 0.503])
    content["passes"][2]["by"]["judge"]["shares"]["long"] |= {"low": 0.502, "high": 0.504}
    sentence = answer(made_up_run.make(content))
    assert sentence.endswith("left it at 50 %, and the judge’s confidence interval misses the target of 50 %.")


def test_the_story_follows_the_class_that_control_made_more_frequent():
    metrics = Metrics.parse(made_up_run.content(long=[0.7, 0.3, 0.5]), "x")
    assert words.headline_label(metrics) == "short"


@pytest.mark.parametrize(
    ("attribute", "label", "name"),
    [
        ("hair", "long", "long hair"),
        ("skin", "3", "skin 3"),
        ("glasses", "with", "with glasses"),
        ("hair x glasses", "short x with", "short hair, with glasses"),
    ],
)
def test_classes_have_names(attribute, label, name):
    assert formats.class_name(attribute, label) == name


def test_the_context_says_who_counted_and_what_truth_says():
    text = context(run())
    assert "measured by the judge, a classifier that took no part in training, on 2 000 fresh samples" in text
    assert "long hair at 50.7 % (95 % confidence interval 48.5 – 52.9 %); the truth," in text
    assert "the truth, known for this generator, is 50.7 %." in text
    assert "97.0 % of its samples show the requested class, without makeup (the generator alone: 62.0 %)." in text


def test_without_truth_the_context_has_none():
    given = run(readers=("classifier", "judge"))
    assert "truth" not in context(given)
    assert doubts.warnings(given.metrics) == []


def test_nothing_is_warned_of_when_all_agree():
    assert doubts.warnings(run().metrics) == []


def test_disagreement_beyond_the_intervals_is_warned_of():
    apart = {"classifier": 0.5, "judge": 0.56, "truth": 0.565}
    found = [plain(text) for text in doubts.warnings(run(long=[0.5, 0.84, apart]).metrics)]
    assert len(found) == 1
    assert found[0].startswith(
        "Pass 2: classifier and judge disagree on long hair beyond their intervals, 50.0 % and 56.0 %:"
    )


def test_no_flow_is_blamed_for_a_disagreement_on_the_generator_alone():
    apart = {"classifier": 0.5, "judge": 0.42, "truth": 0.42}
    found = [plain(text) for text in doubts.warnings(run(long=[apart, 0.84, 0.5]).metrics)]
    assert found == [
        "Pass 0: classifier and judge disagree on long hair beyond their intervals, 50.0 % and 42.0 %: "
        "one of the two makes more errors; no flow has been trained yet."
    ]


def test_a_judge_that_truth_contradicts_is_warned_of():
    apart = {"classifier": 0.5, "judge": 0.5, "truth": 0.6}
    found = doubts.warnings(run(long=[0.5, 0.84, apart]).metrics)
    assert [text.startswith("Pass 2: judge and truth disagree on long hair") for text in found] == [True]


def test_disagreement_on_what_was_asked_for_is_warned_of():
    content = made_up_run.content()
    content["passes"][1]["control"]["makeup.without.judge"] = made_up_run.wilson(1800, 2000).as_dict()
    found = doubts.warnings(made_up_run.make(content).metrics)
    assert [text.partition(" beyond")[0] for text in found] == [
        "Pass 1: classifier and judge disagree on without makeup",
        "Pass 1: judge and truth disagree on without makeup",
    ]


def test_loose_fits_are_warned_of():
    content = made_up_run.content()
    content["passes"][2]["fit"]["ess_fraction"] = {"value": 0.012, "low": 0.01, "high": 0.014}
    (found,) = [plain(text) for text in doubts.warnings(made_up_run.make(content).metrics)]
    assert found.startswith(
        "Pass 2: the flow is far from the exact distribution it was trained for (effective sample size 1.2 %"
    )


@pytest.mark.parametrize(
    ("ess", "gap", "word"),
    [(0.6, 0.3, "close"), (0.6, 2.8, "rough"), (0.1, 0.3, "rough"), (0.6, 5, "loose"), (0.01, 0.3, "loose")],
)
def test_fits_are_judged_by_both_of_their_numbers(ess, gap, word):
    text = plain(words.fit_words(made_up_fit(ess, gap)))
    assert text.startswith(f"A {word} fit: ")
    assert f"1 024 samples are worth {round(1024 * ess)}. " in text


def test_the_tail_of_the_weights_says_what_a_fit_is_good_for():
    assert words.fit_words(made_up_fit(0.6, 0.3)).endswith("so these numbers are reliable.")
    bad = made_up_fit(0.6, 0.3, trust="not to be trusted", tail_index=1.1)
    assert words.fit_words(bad).endswith("whatever their intervals say.")


def made_up_fit(ess, gap, **changes):
    content = {**made_up_run.FIT, **changes}
    for name, value in (("ess_fraction", ess), ("kl_gap", gap)):
        content[name] = {"value": value, "low": value, "high": value}
    return Fit(**content)


def with_makeup_shares(*shares):
    content = made_up_run.content()
    for record, share in zip(content["passes"], shares, strict=True):
        for reader in made_up_run.READERS:
            record["control"][f"makeup.without.{reader}"] = made_up_run.wilson(share * 2000, 2000).as_dict()
    return [plain(text) for text in doubts.warnings(made_up_run.make(content).metrics)]


def test_a_request_that_was_not_met_is_warned_of():
    assert with_makeup_shares(0.70, 0.61, 0.61) == [
        "Pass 1: the request did not make “without makeup” measurably more frequent: "
        "61.0 % compared with 70.0 % for the generator alone."
    ]


def test_overlapping_intervals_do_not_hide_that_a_request_was_met_or_lost():
    assert with_makeup_shares(0.62, 0.66, 0.66) == []
    assert with_makeup_shares(0.5, 0.97, 0.955) == [
        "Pass 2: de-biasing lost part of the request: “without makeup” fell from 97.0 % to 95.5 %."
    ]


def test_a_request_that_de_biasing_lost_is_warned_of():
    assert with_makeup_shares(0.62, 0.97, 0.9) == [
        "Pass 2: de-biasing lost part of the request: “without makeup” fell from 97.0 % to 90.0 %."
    ]


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (formats.number(-0.25), "−0.250"),
        (formats.number(-0.00001), "0.000"),
        (formats.number(None), "–"),
        (formats.brief(219.59), "220"),
        (formats.brief(-10.19), "−10.2"),
        (formats.brief(9.98), "9.98"),
        (formats.brief(0.0114), "0.011"),
        (formats.brief(0.0114, 5), "0.0114"),
        (formats.brief(0.00001234, 5), "0.00001"),
        (formats.brief(0.0), "0.000"),
        (formats.percent(0.5061), "50.6 %"),
        (formats.wanted(0.5), "50 %"),
        (formats.wanted(1 / 6), "16.7 %"),
        (formats.points(-0.335), "−33.5"),
        (formats.points(0.342), "+34.2"),
        (formats.duration(0.4), "0.4 s"),
        (formats.duration(75.2), "75 s"),
        (formats.duration(119.9), "2 min 0 s"),
        (formats.duration(750), "12 min 30 s"),
        (formats.count(1234567), "1 234 567"),
        (formats.listing(["a", "b", "c"]), "a, b and c"),
        (formats.listing(["a", "b"]), "a and b"),
        (formats.listing(["a"]), "a"),
        (formats.listing([]), ""),
    ],
)
def test_numbers_are_written_alike(written, expected):
    assert plain(written) == expected


@pytest.mark.parametrize("label", ["St. Bernard", "4 x 4", "3:1", "a.b:c x d"])
def test_a_label_may_have_the_signs_that_join_names(label):
    """A share that the control asks for, or a curve, must not vanish for its name."""
    content = made_up_run.content()
    for record in content["passes"]:
        record["control"] = {f"kind.{label}.judge": made_up_run.wilson(0.5 * 2000, 2000).as_dict()}
    given = made_up_run.make(content)
    assert list(requested_shares(given.metrics.passes[0].control)) == [("kind", label)]
    assert control.other_measures(given.metrics.passes[0]) == {}
    assert f"{label} kind" in context(given)
    assert history.columns([{"step": 0, f"share/kind:{label}": 0.5}], "share/") == {label: [(0, 0.5)]}


def by_words(model):
    return {"type": "clip_labels", "model": model, "attributes": {"hair": {"short": "short", "long": "long"}}}


@pytest.mark.parametrize(
    ("control", "debias", "steers"),
    [
        (None, {}, False),
        (None, {"judge": "world-classifier"}, True),
        (None, {"judge": "world-classifier", "training": None}, False),
        (None, {"judge": "world-classifier", "max_passes": 0}, False),
        (
            {"type": "classifier", "classifier": "world-judge", "labels": {"hair": "long"}},
            {"judge": "world-judge"},
            True,
        ),
        (made_up_run.TEXT, {"judge": by_words("world-clip")}, True),
        (made_up_run.TEXT, {"judge": by_words("other-clip")}, False),
    ],
)
def test_a_judge_that_took_part_in_training_is_told(control, debias, steers):
    params = made_up_run.PARAMS | {
        "control": control and made_up_run.control(wish=control),
        "debias": made_up_run.PARAMS["debias"] | debias,
    }
    given = run(params=params)
    assert given.settings.judge_steers is steers
    assert len(doubts.judge_warnings(given.settings)) == steers
    assert ("the judge, which also took part in training" in context(given)) is steers
