"""The count after the loop: it stands in the answer, and a success that it does not confirm is none."""

import made_up_run
import pytest

from promptgen.reporting.page import render
from promptgen.reporting.sections import answer as answers
from promptgen.reporting.sections import doubts
from promptgen.reporting.text import formats

KINDS = ["generator", "control", "debias"]


def plain(text):
    return text.replace(formats.THIN, " ").replace("\u00a0", " ")


def run(last, again, **options):
    """Return a run whose last pass was counted at the share `last` of long hair, and afterwards at `again`."""
    content = made_up_run.content(long=[0.5, 0.84, last], **options)
    return made_up_run.make(content | {"confirmation": made_up_run.count(2, again, **options)})


def told(given):
    """Return the end of the answer, the sentence on the count after the loop, and the warnings."""
    sentence = plain(answers.answer(given.metrics, given.settings)).partition("; ")[2]
    (again,) = (plain(each) for each in answers.context(given.metrics, given.settings) if "Confirming count" in each)
    return sentence, again, [plain(warning) for warning in doubts.warnings(given.metrics)]


def test_a_confirmed_success_is_one():
    sentence, again, warnings = told(run(0.507, 0.495))
    assert sentence == "de-biasing brought it to 51 %, and the judge’s confidence interval contains the target of 50 %."
    assert again == (
        "Confirming count on 2 000 samples drawn after the loop ended: 49.5 % (47.3 – 51.7 %), which contains the "
        "target."
    )
    assert warnings == []


def test_a_success_that_is_not_confirmed_is_called_none_and_warned_of():
    sentence, again, warnings = told(run(0.507, 0.53))
    assert sentence == (
        "de-biasing left it at 51 %, and the judge’s confidence interval contains the target of 50 %, but the "
        "confirming count misses it."
    )
    assert again.endswith("53.0 % (50.8 – 55.2 %), which misses the target.")
    assert len(warnings) == 1
    assert warnings[0].startswith(f"Not confirmed. {again} The loop stops at the first count that contains")


def test_a_share_that_rounds_to_the_target_but_misses_it_is_not_confirmed():
    content = made_up_run.content(long=[0.5, 0.84, 0.507])
    again = made_up_run.count(2, 0.503)
    again["by"]["judge"]["shares"]["long"] |= {"low": 0.5004, "high": 0.506}
    given = made_up_run.make(content | {"confirmation": again})
    assert told(given)[0].endswith("but the confirming count misses it.")
    assert "left it at 51 %" in told(given)[0]
    assert [each.startswith("Not confirmed") for each in told(given)[2]] == [True]


def test_a_miss_that_the_later_count_contains_stays_a_miss():
    sentence, again, warnings = told(run(0.53, 0.507))
    assert sentence == "de-biasing left it at 53 %, and the judge’s confidence interval misses the target of 50 %."
    assert again.endswith(
        "which contains the target; the first count misses it, so the two counts disagree and the share may still be "
        "off target."
    )
    assert warnings == []


def test_many_classes_are_confirmed_by_their_distance():
    three = {"labels": ("young", "middle", "old"), "target": (0.25, 0.25, 0.5)}
    good, bad = run(0.5, 0.5, **three), run(0.5, 0.6, **three)
    assert "nats from the target (0.000 – " in told(good)[1]
    assert told(good)[1].endswith("all intervals contain their targets.")
    assert told(good)[2] == []
    assert told(bad)[0].endswith(
        "all confidence intervals of the judge contain their targets, but the confirming count has intervals that miss "
        "theirs."
    )
    assert told(bad)[1].endswith("some intervals miss their targets.")
    assert [each.startswith("Not confirmed") for each in told(bad)[2]] == [True]


def test_the_page_has_a_row_for_it_and_says_when_there_is_none():
    page = render(run(0.507, 0.53))
    table = page[page.index('id="passes"') : page.index('id="latents"')]
    assert table.count("Confirming count, after the loop ended") == 1
    assert formats.percent_range(0.5081, 0.5518) in table
    assert table.count('class="verdict yes"') == 2, "the generator and the first count, not the second"
    assert "This run has no confirming count" not in page
    older = render(made_up_run.make(made_up_run.least(made_up_run.content())))
    assert "Confirming count, after" not in older
    assert "This run has no confirming count" in older


@pytest.mark.parametrize("where", ["passes", "confirmation"])
def test_counts_that_no_confusion_table_explains_are_warned_of(where):
    content = made_up_run.content()
    place = content["passes"][2] if where == "passes" else content["confirmation"]
    place["by"]["classifier"]["uncorrectable"] = ["short", "long"]
    (warning,) = doubts.warnings(made_up_run.make(content).metrics)
    assert warning.startswith("The confusion table of the classifier does not apply to these samples")
    assert "short hair and long hair (pass 2" in warning
    assert (", confirming count" in warning) is (where == "confirmation")


def test_one_sentence_names_all_passes_whose_counts_no_table_explains():
    content = made_up_run.content()
    for record in content["passes"][1:]:
        record["by"]["judge"]["uncorrectable"] = ["long"]
    (warning,) = doubts.warnings(made_up_run.make(content).metrics)
    assert "of the judge" in warning
    assert "(pass 1; pass 2)" in warning


def test_of_a_target_that_was_counted_itself_the_differences_decide():
    """Both counts are close to a target that few samples tell, though their own intervals miss it."""
    content = made_up_run.content(long=[0.5, 0.84, 0.54])
    content["confirmation"] = made_up_run.count(2, 0.56)
    for counted, low in ((content["passes"][2], -0.03), (content["confirmation"], -0.01)):
        counted["by"]["judge"]["from_target"] = {
            "short": {"value": -0.05, "low": -0.11, "high": -low},
            "long": {"value": 0.05, "low": low, "high": 0.11},
        }
    sentence, again, warnings = told(made_up_run.make(content))
    assert sentence == (
        "de-biasing brought it to 54 %, and its distance from the target of 50 % is no larger than chance in both "
        "samples explains."
    )
    assert again.endswith("whose distance from the target is no larger than chance in both samples explains.")
    assert warnings == []
    content["confirmation"]["by"]["judge"]["from_target"]["long"]["low"] = 0.01
    sentence, again, (warning,) = told(made_up_run.make(content))
    assert sentence.endswith("but the confirming count misses the target.")
    assert again.endswith("whose distance from the target is larger than chance in both samples explains.")
    assert warning.startswith("Not confirmed")
