"""A folder of images as the target: its shares are read once, kept, and carried into the record."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from promptgen.config.params import load_params
from promptgen.errors import ConfigError, DataError
from promptgen.files import read_json
from promptgen.metrics.shares import simultaneous_differences, wilson
from promptgen.records import Metrics
from steps.measuring.records import pass_record, write_metrics
from steps.shared import target
from steps.shared.common import Pass
from steps.shared.target import TARGET_NAME
from tests import tiny
from tests.steps.projects import changed, project_in, run_pass

LONG, SHORT = 12, 28


def folder_of(place, long=LONG, short=SHORT):
    """Images of long hair, which is red, and of short hair."""
    place.mkdir()
    for number in range(long + short):
        colour = (250, 120, 120) if number < long else (20, 120, 120)
        Image.fromarray(np.full((4, 4, 3), colour, dtype=np.uint8)).save(place / f"{number:03}.png")
    return place


def content():
    return changed("debias", target={"images": "wanted"})


def test_the_target_is_what_the_classifier_sees(tmp_path):
    folder_of(tmp_path / "wanted")
    project = project_in(tmp_path, content())
    assert project.params.debias.shares == {"short": SHORT / 40, "long": LONG / 40}
    assert load_params(tmp_path / "params.yaml").debias.target_images == "wanted"


def test_it_is_read_again_only_if_something_has_changed(tmp_path, monkeypatch):
    folder, calls = folder_of(tmp_path / "wanted"), []
    project = project_in(tmp_path, content())
    read = target.reference_shares
    monkeypatch.setattr(target, "reference_shares", lambda *given, **named: calls.append(1) or read(*given, **named))
    assert project_in(tmp_path, content()).params == project.params
    assert not calls
    (folder / "000.png").unlink()
    assert project_in(tmp_path, content()).params.debias.shares["long"] == (LONG - 1) / 39
    assert len(calls) == 1
    (project.artifacts / TARGET_NAME).write_text("{}")
    project_in(tmp_path, content())
    assert len(calls) == 2


@pytest.mark.slow
def test_a_run_reaches_it_and_reports_its_intervals(tmp_path):
    (folder_of(tmp_path / "wanted") / "notes.txt").write_text("no image")
    project = project_in(tmp_path, content() | {"control": None})
    records = []
    for number in range(2):
        run_pass(project, number)
        records.append(pass_record(Pass(project, number)))
    metrics = Metrics.parse(read_json(write_metrics(project, records, "enough")), "x")
    assert metrics.reference.n == 40
    assert metrics.reference.left_out == 1
    expected = wilson(LONG, 40, project.params.evaluation.confidence)
    assert metrics.reference.shares["long"].low == pytest.approx(expected.low)
    assert metrics.target == {"short": SHORT / 40, "long": LONG / 40}
    judge = records[1].by["judge"]
    counted, shares = list(judge.counts.values()), [metrics.target[label] for label in judge.counts]
    differences = simultaneous_differences(counted, shares, 40, project.params.evaluation.confidence)
    assert [each.low for each in judge.from_target.values()] == [each.low for each in differences]


def unreadable(place):
    place.mkdir()
    (place / "0.png").write_bytes(b"no image")
    (place / "1.jpg").touch()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda place: None, r"cannot list .* \(No such file or directory\); give a folder of images"),
        (lambda place: place.write_text("a file"), "Not a directory"),
        (lambda place: place.mkdir(), "has no files, expected images"),
        (unreadable, r"no readable image among 2 files \(0.png: "),
        (lambda place: folder_of(place, 1, 0), "has 1 labelled images, expected at least 30"),
        (lambda place: folder_of(place, 0, 40), "sees no hair long in the 40 images"),
    ],
    ids=["none", "a file", "empty", "unreadable", "one image", "one class"],
)
def test_a_folder_that_cannot_be_a_target_is_refused_in_a_line(tmp_path, make, words):
    make(tmp_path / "wanted")
    with pytest.raises((ConfigError, DataError), match=words) as refusal:
        project_in(tmp_path, content())
    assert "wanted" in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_folder_is_counted_without_being_told_how_many_images_it_has(tmp_path):
    folder_of(tmp_path / "wanted")
    assert project_in(tmp_path, content()).params.debias.target_samples == 40
    content_of_both = changed("debias", target={"images": "wanted"}, target_samples=40)
    with pytest.raises(ConfigError, match="target_samples: the images of a folder are counted"):
        load_params(tiny.write_params(tmp_path, content_of_both))


@pytest.mark.parametrize("wanted", [None, {"images": 3}, {"images": "a", "short": 0.5}, {"images": ""}])
def test_a_target_that_is_neither_shares_nor_a_folder_is_refused(tmp_path, wanted):
    with pytest.raises(ConfigError):
        load_params(tiny.write_params(tmp_path, changed("debias", target=wanted)))
