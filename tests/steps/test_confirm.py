"""The last pass counted once more: what is written, that it disturbs nothing, and that a kill changes nothing."""

from __future__ import annotations

import json
import shutil

import pytest

from promptgen.errors import DataError
from promptgen.files import read_json
from promptgen.records import Confirmation, Metrics
from promptgen.tracking import NullTracker
from steps import confirm, estimate_bias
from steps.estimate_bias import MEASURED, REACHED
from steps.measuring.reading import Reading
from steps.measuring.records import METRICS_NAME, SUMMARY_NAME, pass_record, write_metrics
from steps.recording.facts import counted
from steps.shared import common
from steps.shared.code import SHARED_CODE
from steps.shared.common import Pass, Project
from steps.shared.manifest import StepFolder
from tests import tiny
from tests.steps.projects import project_in, run_command, run_pass

LAST = 2


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A project of which the passes 0 to 2 have been run, and the last one confirmed."""
    project = project_in(tmp_path_factory.mktemp("project"))
    for number in range(LAST + 1):
        run_pass(project, number)
    confirm.run(Pass(project, LAST), NullTracker())
    return project


@pytest.fixture(scope="module")
def confirmation(done):
    return confirm.run(Pass(done, LAST), NullTracker())["result"]["confirmation"]


@pytest.fixture
def again(done, tmp_path):
    """A copy of the project in which the last pass has not been confirmed."""
    shutil.copytree(done.artifacts, tmp_path / "artifacts/tiny", ignore=shutil.ignore_patterns("confirm"))
    return project_in(tmp_path)


def content_of(project: Project) -> str:
    """Return the step's result as text, whatever the time it took."""
    return json.dumps(StepFolder(Pass(project, LAST).folder("confirm"), "").result())


def test_the_count_has_the_agreed_form(done, confirmation):
    count = Confirmation.model_validate(confirmation)
    assert json.loads(content_of(done))["confirmation"] == confirmation
    assert (count.number, count.n) == (LAST, done.params.evaluation.samples)
    assert set(count.by) == {"classifier", "judge", "truth"}
    assert all(sum(reader.counts.values()) == count.n for reader in count.by.values())
    target = done.params.debias.target
    judged = count.by["judge"].shares
    assert count.contains_target is all(judged[label].contains(share) for label, share in target.items())


def test_the_samples_are_others_of_the_same_distribution(done, confirmation):
    decided = pass_record(Pass(done, LAST)).by["truth"].shares["long"]
    fresh = Confirmation.model_validate(confirmation).by["truth"].shares["long"]
    assert fresh.value != decided.value
    assert fresh.overlaps(decided)


def test_the_same_experiment_gives_the_same_bytes(done, again):
    confirm.run(Pass(again, LAST), NullTracker())
    assert content_of(again) == content_of(done)


@pytest.mark.faults
def test_a_killed_count_ends_with_the_same_bytes(done, again, monkeypatch):
    def killed(self: Reading, sample: object) -> None:
        if self.n >= 192:
            raise KeyboardInterrupt
        real(self, sample)

    real, folder = Reading.add, Pass(again, LAST).folder("confirm")
    monkeypatch.setattr(Reading, "add", killed)
    with pytest.raises(KeyboardInterrupt):
        confirm.run(Pass(again, LAST), NullTracker())
    assert not list(folder.glob("*.json"))
    monkeypatch.undo()
    confirm.run(Pass(again, LAST), NullTracker())
    assert content_of(again) == content_of(done)


def test_done_work_is_not_done_again(done, monkeypatch):
    before = confirm.run(Pass(done, LAST), NullTracker())
    monkeypatch.setattr(confirm, "_confirm", lambda *arguments: pytest.fail("the work was done again"))
    assert confirm.run(Pass(done, LAST), NullTracker()) == before


@pytest.mark.parametrize(
    ("section", "change"),
    [
        ("debias", {"target": {"short": 0.6, "long": 0.4}}),
        ("evaluation", {"confidence": 0.9}),
        ("evaluation", {"samples": 256}),
    ],
)
def test_other_parameters_make_other_work(again, section, change):
    first = confirm.run(Pass(again, LAST), NullTracker())
    content = tiny.params()
    content[section] |= change
    second = confirm.run(Pass(project_in(again.root, content), LAST), NullTracker())
    assert second["fingerprint"] != first["fingerprint"]
    assert second["result"]["confirmation"] != first["result"]["confirmation"]


def test_it_depends_on_the_code_that_reads_and_counts(again, monkeypatch):
    asked = []
    monkeypatch.setattr(common, "code_sha256", lambda *steps: asked.append(steps) or "changed")
    confirm.run(Pass(again, LAST), NullTracker())
    assert asked == [("confirm",)]
    assert "measuring" in SHARED_CODE  # every step depends on the room that reads and counts


def test_it_decides_nothing(done, again):
    """The verdict and the record of the pass are what they were before the count."""
    record = pass_record(Pass(again, LAST))
    verdict = estimate_bias.run(Pass(again, LAST), NullTracker())
    confirm.run(Pass(again, LAST), NullTracker())
    assert pass_record(Pass(again, LAST)) == record
    assert estimate_bias.run(Pass(again, LAST), NullTracker()) == verdict


def test_its_time_and_images_are_the_passes(done):
    plain, whole = (pass_record(Pass(done, LAST), confirmed=confirmed).as_dict() for confirmed in (False, True))
    assert whole.pop("seconds").keys() - plain.pop("seconds").keys() == {"confirm"}
    made, more = plain.pop("generator_evaluations"), whole.pop("generator_evaluations")
    samples = done.params.evaluation.samples
    assert more == {"forward": made["forward"] + samples, "backward": made["backward"]}
    assert plain == whole


def test_the_metrics_file_has_it(done, confirmation, tmp_path):
    project = Project(tmp_path, done.params)
    records = [pass_record(Pass(done, number), confirmed=number == LAST) for number in range(LAST + 1)]
    count = Confirmation.model_validate(confirmation)
    write_metrics(project, records, REACHED, count)
    metrics = Metrics.parse(read_json(project.reports / METRICS_NAME), METRICS_NAME)
    assert metrics.confirmation == count
    told = read_json(project.reports / SUMMARY_NAME)["confirmed"]
    assert told["shares"] == {label: share.value for label, share in count.by["judge"].shares.items()}
    assert told["kl"] == confirmation["by"]["judge"]["kl"]
    assert told["contains_target"] is count.contains_target
    write_metrics(project, records, MEASURED)
    assert Metrics.parse(read_json(project.reports / METRICS_NAME), METRICS_NAME).confirmation is None
    assert "confirmed" not in read_json(project.reports / SUMMARY_NAME)


def test_its_metrics_are_apart_from_those_of_the_count_that_decided(confirmation):
    flat = counted("confirmed", Confirmation.model_validate(confirmation))
    assert all(name.startswith("confirmed/") for name in flat)
    for part in ("value", "low", "high"):
        assert flat[f"confirmed/share/long/judge/{part}"] == confirmation["by"]["judge"]["shares"]["long"][part]
        assert flat[f"confirmed/kl/truth/{part}"] == confirmation["by"]["truth"]["kl"][part]


def test_a_pass_without_its_flow_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"write it with `promptgen step train_flow --pass 1`"):
        confirm.run(Pass(project_in(tmp_path), 1), NullTracker())


@pytest.mark.filterwarnings("ignore:.*found in sys.modules.*:RuntimeWarning")
def test_it_is_a_command_of_its_own(tmp_path, monkeypatch, capsys):
    path = str(tiny.write_params(tmp_path))
    assert run_command(monkeypatch, "steps.confirm", "--params", path, "--pass", "0") == 0
    assert capsys.readouterr().out.startswith("artifacts/tiny/pass-0/confirm: ")
