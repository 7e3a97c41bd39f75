"""Mistakes in an experiment that are found before any work, each told in a clear line with the way out."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from promptgen.errors import (
    ConfigError,
    DataError,
    ModelFileError,
    StorageError,
)
from steps import check, fetch
from tests import tiny
from tests.steps.projects import project_in


class OneAttribute:
    """A classifier of a part of what `tests.tiny.TinyClassifier` reads, or of an age."""

    def __init__(self, attribute: str) -> None:
        self.attributes = {attribute: tiny.ATTRIBUTES.get(attribute, ("young", "old"))}

    def __call__(self, image):
        return {name: tiny.TinyClassifier()(image)["hair"] for name in self.attributes}


def only_hair() -> OneAttribute:
    return OneAttribute("hair")


def only_age() -> OneAttribute:
    return OneAttribute("age")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"attribute": "hat"}, "unknown attribute 'hat', expected one of hair, makeup"),
        ({"attribute": "hari"}, "did you mean 'hair'"),
        (
            {"target": {"short": 0.5, "lnog": 0.5}},
            "unknown class 'lnog', expected one of short, long; did you mean 'long'",
        ),
        ({"target": "{1::short|1::long|1::bald}"}, "unknown class 'bald', expected one of short, long"),
        ({"target": "{1::short|1::LONG|1::long}"}, "unknown class 'LONG', expected one of short, long"),
        (
            {"attribute": "hair x makeup", "target": "{short x with|short x without|Long x with}"},
            "no share for long x without",
        ),
    ],
)
def test_unknown_labels_are_refused_before_any_work(tmp_path, change, message):
    content = tiny.params()
    content["debias"] |= change
    with pytest.raises(ConfigError, match=message):
        check.run(project_in(tmp_path, content))


def test_parts_have_to_fit_the_latent(tmp_path):
    content = tiny.params()
    content["flow"]["parts"] = [2, 3]
    with pytest.raises(DataError, match=r"the latent has 4 dimensions, flow.parts has 2 \+ 3 = 5"):
        check.run(project_in(tmp_path, content))


def test_a_condition_that_nothing_reads_is_told(tmp_path, caplog):
    content = tiny.params()
    content["control"]["condition"] = {"light": [-1, 1]}
    check.run(project_in(tmp_path, content))
    assert not caplog.messages  # a custom energy may read it
    content["control"]["energies"] = {
        "makeup": {
            "type": "classifier",
            "weight": 1.0,
            "classifier": content["debias"]["classifier"],
            "labels": {"makeup": "without"},
        }
    }
    check.run(project_in(tmp_path, content))
    assert "no energy reads control.condition: the flow will not learn to depend on light" in caplog.text


def test_measured_label_has_to_exist(tmp_path):
    content = tiny.params()
    content["control"]["measure"] = {"makeup": "witout"}
    with pytest.raises(ConfigError, match="unknown class of 'makeup' 'witout'"):
        check.run(project_in(tmp_path, content))


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("tests.nowhere:x", r"params.yaml names tests.nowhere:x, .*No module named 'tests.nowhere'"),
        ("tests.tiny:nothing", "has no attribute 'nothing'"),
        ("tests.tiny:embedder", "tests.tiny:embedder returned a function that has no prior and no image_shape"),
    ],
)
def test_wrong_factory_is_named(tmp_path, path, message):
    content = tiny.params()
    content["generator"]["factory"] = path
    with pytest.raises(ConfigError, match=message):
        check.run(project_in(tmp_path, content))


def test_wrong_arguments_of_a_factory_are_named(tmp_path):
    content = tiny.params()
    content["debias"]["judge"]["arguments"] = {"thresold": 1.0}
    with pytest.raises(ConfigError, match=r"tests.tiny:TinyClassifier does not take the arguments .*'thresold'"):
        check.run(project_in(tmp_path, content))


def test_missing_and_damaged_weight_files_are_told(tmp_path):
    content = tiny.params()
    content["debias"]["judge"] = "world-judge"
    project = project_in(tmp_path, content)
    with pytest.raises(ModelFileError, match=r"world-judge.safetensors is missing; fetch it with `promptgen fetch"):
        check.run(project)
    (path,) = fetch.run("world-judge", project.models)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ModelFileError, match=r"delete it and fetch it again with `promptgen fetch world-judge`"):
        check.run(project)


def test_a_model_of_another_kind_is_refused(tmp_path):
    content = tiny.params()
    content["debias"]["judge"] = "world-generator"
    with pytest.raises(ConfigError, match="world-generator is of kind generator, expected one of kind classifier"):
        check.run(project_in(tmp_path, content))


def test_a_folder_that_cannot_be_written_is_told_before_any_work(tmp_path):
    (tmp_path / "reports").write_text("a file where a folder is needed")
    with pytest.raises(StorageError, match=r"cannot write .*reports: a file is in the place of a folder"):
        check.run(project_in(tmp_path))
    assert not list(tmp_path.rglob("manifest.json"))


def test_read_only_reports_are_told_before_any_work(tmp_path, monkeypatch):
    def refuse(*, dir: Path):  # noqa: A002
        if Path(dir).name == "reports":
            raise OSError(errno.EROFS, "Read-only file system")
        return real(dir=dir)

    real = check.tempfile.TemporaryFile
    monkeypatch.setattr(check.tempfile, "TemporaryFile", refuse)
    with pytest.raises(StorageError, match=r"reports: the file system is read-only: choose another folder"):
        check.run(project_in(tmp_path))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("flow.hidden", 10**12, "flow with 2 blocks and hidden: 1000000000000 takes at least"),
        ("debias.samples", 10**14, "debias.samples: 100000000000000 takes at least 1,600,000 GB of memory"),
        ("debias.bootstrap", 10**14, "debias.bootstrap: 100000000000000 takes at least"),
        ("debias.training.batch", 10**14, "debias.training.batch: 100000000000000 takes at least"),
        ("control.training.steps", 10**14, "control.training.steps: 100000000000000 takes at least"),
        ("control.training.validation_samples", 10**14, "control.training.validation_samples: 100000000000000 takes"),
        (
            "control.training",
            {"budget": {"images": 10**14}},
            "control.training.budget.images: 100000000000000 takes at least",
        ),
        ("control.training", {"micro_batch": 10**14}, "control.training.micro_batch: 100000000000000 takes at least"),
        ("evaluation.samples", 10**14, "evaluation.samples: 100000000000000 takes at least"),
        ("evaluation.fit_samples", 10**14, "evaluation.fit_samples: 100000000000000 takes at least"),
        ("evaluation.bootstrap", 10**14, "evaluation.bootstrap: 100000000000000 takes at least"),
    ],
)
def test_a_size_that_cannot_fit_is_told_with_what_it_takes(tmp_path, path, value, message):
    content = tiny.params()
    *sections, key = path.split(".")
    part = content
    for section in sections:
        part = part[section]
    part[key] = value
    with pytest.raises(ConfigError) as caught:
        check.run(project_in(tmp_path, content))
    assert message in str(caught.value)
    assert "GB: reduce" in str(caught.value)


def test_a_judge_that_is_the_classifier_is_told(tmp_path, caplog):
    content = tiny.params()
    check.run(project_in(tmp_path, content))
    assert "debias.judge is debias.classifier" not in caplog.text
    content["debias"]["judge"] = dict(content["debias"]["classifier"])
    check.run(project_in(tmp_path, content))
    assert "debias.judge is debias.classifier" in caplog.text


def test_a_judge_that_is_a_part_of_the_classifier_is_told_where_both_read_the_attribute(tmp_path, caplog):
    content = tiny.params()
    hair, other = (
        {"type": "custom", "factory": f"tests.steps.test_check:{name}"} for name in ("only_hair", "only_age")
    )
    content["debias"] |= {"classifier": {"type": "joint", "classifiers": [hair, other]}, "judge": hair}
    content["control"]["measure"] = {"hair": "short"}
    content["evaluation"].pop("watch", None)
    check.run(project_in(tmp_path, content))
    assert "debias.judge reads hair with tests.steps.test_check:only_hair, as debias.classifier does" in caplog.text
    caplog.clear()
    sharper = {**hair, "factory": "tests.tiny:TinyClassifier"}
    content["debias"]["judge"] = {"type": "joint", "classifiers": [sharper, other]}
    check.run(project_in(tmp_path, content))
    assert "as debias.classifier does" not in caplog.text


def test_a_budget_that_cannot_fit_is_told(tmp_path):
    content = tiny.params()
    content["debias"] |= {"training": {"method": "reuse", "budget": {"images": 10**14}}, "dual": None}
    with pytest.raises(ConfigError, match=r"debias.training.budget.images: 100000000000000 takes at least"):
        check.run(project_in(tmp_path, content))
