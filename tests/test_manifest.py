"""Step folders: done means done with the same inputs and sound files; a killed run keeps its state."""

import pytest

from promptgen.errors import DataError
from promptgen.files import fingerprint, folder_lock
from steps.shared.manifest import StepFolder

PRINT = "a" * 64


@pytest.fixture
def done(tmp_path):
    folder = StepFolder(tmp_path / "step", PRINT)
    folder.begin()
    (folder.path / "sub").mkdir()
    (folder.path / "a.txt").write_text("a")
    (folder.path / "sub" / "b.txt").write_text("b")
    (folder.state / "training.pt").write_text("half")
    folder.finish({"value": 1.5, "gone": float("nan")}, seconds=2.0)
    return folder


def test_fingerprint_depends_on_everything_but_the_order_of_keys():
    base = fingerprint({"a": 1, "b": [1, 2]}, {"x": "0"}, 1)
    assert len(base) == 64
    assert base == fingerprint({"b": [1, 2], "a": 1}, {"x": "0"}, 1)
    others = [
        fingerprint({"a": 1, "b": [2, 1]}, {"x": "0"}, 1),
        fingerprint({"a": 1.5, "b": [1, 2]}, {"x": "0"}, 1),
        fingerprint({"a": 1, "b": [1, 2]}, {"x": "1"}, 1),
        fingerprint({"a": 1, "b": [1, 2]}, {"x": "0"}, 2),
        fingerprint({"a": 1, "b": [1, 2], "x": "0"}, {}, 1),
    ]
    assert len({base, *others}) == 6


def test_a_finished_folder_is_complete_and_tells_its_result(done):
    again = StepFolder(done.path, PRINT)
    assert again.is_complete()
    assert again.result() == {"value": 1.5, "gone": None}
    assert again.manifest()["seconds"] == 2.0
    assert sorted(again.manifest()["files"]) == ["a.txt", "sub/b.txt"]
    assert not done.state.exists()


def test_another_fingerprint_is_not_complete(done):
    assert not StepFolder(done.path, "b" * 64).is_complete()


@pytest.mark.parametrize("damage", ["edit", "delete", "manifest", "no manifest", "foreign manifest"])
def test_damage_is_noticed(done, damage):
    if damage == "edit":
        (done.path / "sub" / "b.txt").write_text("c")
    elif damage == "delete":
        (done.path / "a.txt").unlink()
    elif damage == "manifest":
        (done.path / "manifest.json").write_text("{")
    elif damage == "no manifest":
        (done.path / "manifest.json").unlink()
    else:
        (done.path / "manifest.json").write_text("[]")
    assert not done.is_complete()
    done.begin()
    assert [path.name for path in done.path.iterdir()] == ["state"]


def test_result_of_an_unfinished_step_is_an_error(tmp_path):
    folder = StepFolder(tmp_path, PRINT)
    folder.begin()
    with pytest.raises(DataError, match="run the step"):
        folder.result()


def test_begin_keeps_the_state_of_the_same_fingerprint_only(tmp_path):
    first = StepFolder(tmp_path, PRINT)
    first.begin()
    (first.state / "training.pt").write_text("half")
    (first.path / "half.npz").write_text("half")
    StepFolder(tmp_path, PRINT).begin()
    assert (first.state / "training.pt").read_text() == "half"
    assert not (first.path / "half.npz").exists()
    StepFolder(tmp_path, "b" * 64).begin()
    assert not (first.state / "training.pt").exists()


def test_a_held_lock_survives_begin_and_is_no_output(tmp_path):
    folder = StepFolder(tmp_path / "step", PRINT)
    with folder_lock(folder.path):
        folder.begin()
        assert (folder.path / ".lock").exists()
        assert folder.finish({}, 0.0)["files"] == {}


def test_begin_removes_a_link_but_not_what_it_points_at(tmp_path):
    target = tmp_path / "elsewhere"
    target.mkdir()
    (target / "keep.txt").write_text("keep")
    folder = StepFolder(tmp_path / "step", PRINT)
    folder.path.mkdir()
    (folder.path / "link").symlink_to(target)
    folder.begin()
    assert not (folder.path / "link").is_symlink()
    assert (target / "keep.txt").read_text() == "keep"
