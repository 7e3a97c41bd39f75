"""The audit of label arrays: known labels give known numbers; and its tables, sentences and page."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import yaml

from promptgen.audit.confusion import Confusion, card_confusions, read_confusion
from promptgen.audit.figures import Audit, Sampling, audit
from promptgen.audit.images import Unread
from promptgen.audit.labelling import Labeller
from promptgen.audit.labels import Labels
from promptgen.audit.page import render
from promptgen.audit.tables import text
from promptgen.audit.words import AuditRun, ImageSet, doubts
from promptgen.config.models import CardModel, ClipLabelsModel, JointModel
from promptgen.errors import ConfigError, DataError, TooFewSamplesError
from promptgen.metrics.correction import corrected_shares
from promptgen.metrics.shares import wilson
from tests.model_files.made_up_cards import card, file

HAIR, GLASSES = ("short", "long"), ("without", "with")
QUICK = Sampling(resamples=200)


def hair(short: int, long: int, **options) -> Labels:
    return Labels({"hair": HAIR}, {"hair": np.repeat([0, 1], [short, long])}, **options)


def csv(path, text: str):
    path.write_text(text)
    return path


def test_known_labels_give_known_numbers():
    found = audit(hair(60, 40), "hair", sampling=QUICK)
    assert (found.labels, found.bias.n) == (HAIR, 100)
    assert found.bias.shares == (wilson(60, 100), wilson(40, 100))
    assert found.bias.total_variation.value == pytest.approx(0.1)
    assert found.bias.discrepancy.value == pytest.approx(0.1 * 2**0.5)
    assert found.bias.kl.value == pytest.approx(0.6 * np.log(1.2) + 0.4 * np.log(0.8))
    assert found.bias.noise_floors["kl"] == pytest.approx(1 / 200)
    assert found.soft is found.judge is found.corrected is found.comparison is None


def test_the_target_decides_what_is_off():
    assert not audit(hair(600, 400), "hair", target={"short": 0.6, "long": 0.4}, sampling=QUICK).off_target
    assert audit(hair(600, 400), "hair", sampling=QUICK).off_target
    assert not audit(hair(6, 4), "hair", sampling=QUICK).off_target


def test_products_are_counted_jointly():
    labels = Labels(
        {"hair": HAIR, "glasses": GLASSES},
        {"hair": np.array([0, 0, 1, 1]), "glasses": np.array([0, 1, 1, 1])},
        {"hair": np.array([[1, 0], [0.5, 0.5], [0, 1], [0, 1]]), "glasses": np.array([[0.75, 0.25]] * 4)},
    )
    found = audit(labels, "hair x glasses", sampling=QUICK)
    assert found.labels == ("short x without", "short x with", "long x without", "long x with")
    assert [share.value for share in found.bias.shares] == [0.25, 0.25, 0, 0.5]
    assert found.soft is not None
    assert [share.value for share in found.soft.shares] == pytest.approx([0.28125, 0.09375, 0.46875, 0.15625])


def test_a_judge_is_shown_in_the_order_of_the_classifier():
    judge = Labels({"hair": ("long", "short")}, {"hair": np.repeat([0, 1], [40, 60])})
    found = audit(hair(60, 40), "hair", judge=judge, sampling=QUICK)
    assert found.judge is not None
    assert found.judge.shares == found.bias.shares
    assert found.disputed == ()


def test_a_judge_that_disagrees_is_named():
    found = audit(hair(800, 200), "hair", judge=hair(500, 500), sampling=QUICK)
    assert found.disputed == HAIR
    run = AuditRun(ImageSet("faces", 1000), [found], QUICK, classifier="one", judge="other")
    assert "80.0\u202f% against 50.0\u202f%" in doubts(run)[0]


def test_a_judge_with_other_classes_is_left_out_and_said_so():
    judge = Labels({"hair": ("bald", "hairy")}, {"hair": np.array([0, 1])})
    found = audit(hair(6, 4), "hair", judge=judge, sampling=QUICK)
    assert found.judge is None
    run = AuditRun(ImageSet("faces", 10), [found], QUICK, classifier="one", judge="other")
    assert doubts(run) == ["other lacks the same classes of hair, so no judge checks the classifier."]


def test_the_correction_is_that_of_the_table_whatever_its_order():
    table = np.array([[90, 10], [20, 80]])
    found = audit(hair(60, 40), "hair", confusion=Confusion("hair", HAIR, table), sampling=QUICK)
    turned = Confusion("hair", HAIR[::-1], table[::-1, ::-1])
    again = audit(hair(60, 40), "hair", confusion=turned, sampling=QUICK)
    assert found.corrected == again.corrected == tuple(corrected_shares([60, 40], table, resamples=200))
    assert found.corrected is not None
    assert found.corrected[0].value == pytest.approx((0.6 - 0.2) / 0.7)


def test_counts_that_the_table_cannot_give_are_told():
    """Of 100 images with long hair the classifier took 15 for short; here it took 4 of 200 so."""
    table = Confusion("hair", HAIR, np.array([[170, 30], [30, 170]]))
    found = audit(hair(4, 196), "hair", confusion=table, sampling=QUICK)
    assert found.corrected is not None
    assert found.corrected[0].value == 0
    assert found.impossible == HAIR
    run = AuditRun(ImageSet("faces", 200), [found], QUICK, classifier="one")
    (warning,) = doubts(run)
    assert "cannot produce the counted 2.0\u202f% short hair and 98.0\u202f% long hair" in warning
    assert warning.endswith("the corrected shares of hair are not reliable.")
    assert f"! {warning}" in text(run).splitlines()
    assert warning in render(run)
    assert run.as_dict()["attributes"]["hair"]["impossible"] == ["short", "long"]


def test_a_correction_that_ends_at_0_by_chance_is_not_doubted():
    table = Confusion("hair", HAIR, np.array([[17, 3], [3, 17]]))
    found = audit(hair(10, 90), "hair", confusion=table, sampling=QUICK)
    assert found.corrected is not None
    assert found.corrected[0].value == 0
    assert found.impossible == ()
    assert doubts(AuditRun(ImageSet("faces", 100), [found], QUICK, classifier="one")) == []


def test_two_sets_are_compared():
    same = audit(hair(60, 40), "hair", other=hair(120, 80), sampling=QUICK).comparison
    apart = audit(hair(60, 40), "hair", other=hair(60, 140), sampling=QUICK).comparison
    assert same is not None
    assert apart is not None
    assert (same.differences[0].value, apart.differences[0].value) == pytest.approx((0, 0.3))
    assert (same.p_value, same.n) == (1, 200)
    assert apart.p_value < 0.01
    assert apart.distances["total_variation"].value == pytest.approx(0.1 - 0.2)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"target": {"short": 0.5, "long": 0.6}}, ConfigError, "sum to 1"),
        ({"target": {"short": 0.5, "lang": 0.5}}, ConfigError, "did you mean 'long'"),
        ({"target": {"short": 1.0, "long": 0.0}}, DataError, "positive"),
        ({"confusion": Confusion("hair", ("a", "b"), np.eye(2, dtype=int))}, DataError, "expected short, long"),
        ({"other": Labels({"hair": ("a", "b")}, {"hair": np.array([0])})}, DataError, "classes a, b in the other set"),
    ],
)
def test_what_does_not_fit_is_refused(options, error, message):
    with pytest.raises(error, match=message):
        audit(hair(6, 4), "hair", sampling=QUICK, **options)


def test_unknown_attributes_and_no_images_are_refused():
    with pytest.raises(ConfigError, match="did you mean 'hair'"):
        audit(hair(6, 4), "hairs")
    with pytest.raises(TooFewSamplesError):
        audit(hair(0, 0), "hair")
    with pytest.raises(TooFewSamplesError):
        Labeller(classifier=None).compute()


@pytest.mark.parametrize("labels", [("a",), ("a", "b", "c")])
def test_a_confusion_table_has_a_row_and_a_column_for_each_class(labels):
    with pytest.raises(DataError, match=r"the confusion table of x \(a.*must be of shape"):
        Confusion("x", labels, np.array([[9, 1], [1, 9]]))


def test_only_a_card_whose_network_fixes_the_classes_has_their_confusions(tmp_path):
    """CLIP in the user's words reads the user's classes, in any order and number, not those of a table on its card."""
    quality = {"hair": {"confusion": [[90, 10], [20, 80]]}}
    cards = {name: card(file("https://example.org/x"), quality=quality) for name in ("heads", "clip")}
    (tmp_path / "cards.yaml").write_text(yaml.safe_dump(cards))
    words = ClipLabelsModel(type="clip_labels", model="clip", attributes={"hair": {"long": "l", "short": "s"}})
    heads, models = CardModel(type="card", model="heads"), tmp_path / "models"
    assert card_confusions(words, {"hair": ("long", "short")}, models) == {}
    assert card_confusions(heads, {"hair": HAIR}, models)["hair"].counts.tolist() == [[90, 10], [20, 80]]
    other = words.model_copy(update={"attributes": {"hat": {"on": "a hat", "off": "no hat"}}})
    joint = JointModel(type="joint", classifiers=[other, heads])
    assert set(card_confusions(joint, {"hair": HAIR, "hat": ("on", "off")}, models)) == {"hair"}


def test_confusion_tables_are_read_from_csv(tmp_path):
    table = read_confusion(csv(tmp_path / "x.csv", "hair,short,long\nlong,3,97\nshort,95,5\n"))
    assert (table.attribute, table.labels) == ("hair", ["short", "long"])
    assert table.ordered(("long", "short")).tolist() == [[97, 3], [5, 95]]
    with pytest.raises(DataError, match="expected whole numbers"):
        read_confusion(csv(tmp_path / "y.csv", "hair,short,long\nlong,x,97\nshort,95,5\n"))
    with pytest.raises(DataError, match="name the same"):
        read_confusion(csv(tmp_path / "z.csv", "hair,short,long\nlong,1,97\nbald,95,5\n"))


@pytest.fixture(scope="module")
def run() -> AuditRun:
    rows = np.repeat([[0.9, 0.1], [0.2, 0.8]], [60, 40], axis=0)
    table = Confusion("hair", HAIR, np.array([[90, 10], [20, 80]]))
    found: Audit = audit(
        hair(60, 40, probabilities={"hair": rows}), "hair", judge=hair(55, 45), other=hair(30, 70), confusion=table,
        sampling=QUICK,
    )  # fmt: skip
    unread = [Unread(f"{i}<b>.png", "damaged") for i in range(7)]
    return AuditRun(ImageSet("faces", 100, unread), [found], QUICK, "one", "other", ImageSet("more", 100))


def test_every_number_is_on_the_page_and_in_the_text(run):
    page, written = render(run), text(run)
    for shown in ("60.0", "55.0", "62.0", "57.1", "+30.0", "0.0201", "0.0050", "0.1000", "< 0.001"):
        assert shown in written
        assert shown.replace("<", "&lt;") in page
    for shown in (page, written):
        assert "seed 0" in shown
        assert "200 simulations" in shown
        assert "perceived" in shown
        assert "2 more" in shown


def test_the_page_is_whole_and_safe(run):
    page = render(run)
    assert page == render(run)
    assert "<b>.png" not in page
    assert not re.search(r"https?:|<script|@import", page)


def test_all_is_in_the_json(run):
    content = json.loads(json.dumps(run.as_dict()))
    assert len(content["images"]["unread"]) == 7
    found = content["attributes"]["hair"]
    assert found["shares"]["short"]["value"] == 0.6
    assert found["corrected"]["short"]["value"] == pytest.approx(4 / 7)
    assert found["impossible"] == []
    assert found["comparison"]["differences"]["short"]["value"] == pytest.approx(0.3)
    assert content["sampling"] == {"confidence": 0.95, "resamples": 200, "seed": 0}


def test_groups_are_counted_one_by_one_and_held_against_those_of_another_set():
    def jobs(**shares):
        """Return labels of 100 images per group, of which the given number is short."""
        parts = [np.repeat([0, 1], [short, 100 - short]) for short in shares.values()]
        return Labels({"hair": HAIR}, {"hair": np.concatenate(parts)}, groups=np.repeat(list(shares), 100).tolist())

    here, there = jobs(baker=90, clerk=50, nurse=20), jobs(clerk=70, baker=70, nurse=22, pilot=10)
    found = audit(here, "hair", other=there, sampling=QUICK).groups
    assert found is not None
    assert found.n == {"baker": 100, "clerk": 100, "nurse": 100}
    assert found.shares["nurse"] == (wilson(20, 100), wilson(80, 100))
    assert found.mean == pytest.approx((1.6 / 3, 1.4 / 3))
    assert found.deviation == pytest.approx((np.std([0.9, 0.5, 0.2], ddof=1),) * 2)
    assert all(0 < chance < deviation for chance, deviation in zip(found.chance, found.deviation, strict=True))
    assert found.references is not None
    short = found.references[0]
    assert short.groups == 3
    assert (short.amplified, short.reflected, short.mitigated) == (wilson(1, 3),) * 3
    with pytest.raises(TooFewSamplesError, match="2 groups"):
        audit(jobs(baker=50), "hair", sampling=QUICK)


def test_groups_are_told():
    labels = Labels({"hair": HAIR}, {"hair": np.tile([0, 0, 0, 1], 4)}, groups=["baker"] * 8 + ["nurse"] * 8)
    found = audit(labels, "hair", other=labels, sampling=QUICK)
    run = AuditRun(ImageSet("faces", 16), [found], QUICK, other=ImageSet("more", 16))
    for shown in (render(run), text(run)):
        assert "baker" in shown
        assert "Spread over groups" in shown
        assert "Bias relative to more" in shown
    assert run.as_dict()["attributes"]["hair"]["groups"]["n"] == {"baker": 8, "nurse": 8}
