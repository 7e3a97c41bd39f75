"""The audit as a command: pictures of the world, whose true labels are known, and files of labels."""

from __future__ import annotations

import json
import os
import shutil

import pytest
import torch
from PIL import Image

from promptgen.audit.figures import Sampling
from promptgen.audit.request import Request, reader_spec
from promptgen.audit.tables import text
from promptgen.config.models import CustomModel
from promptgen.errors import ConfigError, DataError, ModelFileError
from promptgen.model_files import store
from promptgen.seeding import stream
from promptgen.world.renderer import render
from promptgen.world.scene import ATTRIBUTES, Scene, SceneConfig
from steps.audit import run
from tests.commands import typed

QUICK = Sampling(resamples=200)
HEADS = 96


def draw(folder, n, seed, **shares):
    """Write pictures of heads as PNG files below a folder and return their true labels, (n,), by attribute."""
    scene = Scene(SceneConfig(**shares))
    latents = torch.randn(n, scene.config.latent_dim, generator=stream(seed, "audit"))
    pictures = (render(scene.looks(latents)) * 255).round().byte().permute(0, 2, 3, 1).numpy()
    for i, picture in enumerate(pictures):
        path = folder / f"part-{i % 2}" / f"{i:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path)
    return scene.truth(latents)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with models, pictures of two worlds, and damaged files among those of the first."""
    place = tmp_path_factory.mktemp("audit")
    for name in ("world-classifier", "world-judge"):
        store.fetch(name, place / "models")
    truth = draw(place / "heads", HEADS, 1)
    draw(place / "others", HEADS // 2, 2, long_hair=0.9)
    (place / "heads" / "notes.txt").write_text("no image")
    whole = (place / "heads" / "part-0" / "0000.png").read_bytes()
    (place / "heads" / "part-1" / "cut.png").write_bytes(whole[: len(whole) // 2])
    return place, truth


@pytest.fixture(scope="module")
def found(place):
    folder, truth = place
    request = Request(
        folder / "heads",
        classifier="world-classifier",
        judge="world-judge",
        compare=folder / "others",
        targets=["hair: long=0.42, short=0.58"],
        models=folder / "models",
        sampling=QUICK,
    )
    return run(request, folder / "out"), truth, folder


def test_intervals_contain_the_truth(found):
    audited, truth, _ = found
    assert [each.attribute for each in audited.audits] == sorted(ATTRIBUTES)
    for each in audited.audits:
        wanted = torch.bincount(truth[each.attribute], minlength=len(each.labels)).double() / HEADS
        for name in ("bias", "soft", "judge"):
            assert all(share.contains(true) for share, true in zip(getattr(each, name).shares, wanted, strict=True)), (
                name
            )
        assert all(share.contains(true) for share, true in zip(each.corrected, wanted, strict=True))
        assert each.disputed == ()


def test_damaged_files_are_named_and_do_no_harm(found):
    audited, _, folder = found
    assert audited.images.n == HEADS
    assert [each.name for each in audited.images.unread] == ["notes.txt", "part-1/cut.png"]
    content = json.loads((folder / "out" / "audit.json").read_text())
    assert set(content["images"]["unread"]) == {"notes.txt", "part-1/cut.png"}
    assert "part-1/cut.png" in (folder / "out" / "index.html").read_text()


def test_targets_and_another_folder_are_used(found):
    _, glasses, hair, *_ = found[0].audits
    assert hair.bias.target == (0.58, 0.42)
    assert glasses.bias.target == (0.5, 0.5)
    assert hair.comparison.n == HEADS // 2
    assert hair.comparison.differences[1].high < 0
    assert hair.comparison.p_value < 0.01 < glasses.comparison.p_value


def test_batches_change_nothing_and_repetitions_give_the_same_bytes(found):
    audited, _, folder = found
    request = Request(
        folder / "heads", "world-classifier", attributes=["hair"], models=folder / "models", sampling=QUICK, batch=7
    )
    first, _ = (run(request, folder / f"again-{i}") for i in range(2))
    assert first.audits[0].bias.shares == audited.audits[2].bias.shares
    for name in ("index.html", "audit.json"):
        assert (folder / "again-0" / name).read_bytes() == (folder / "again-1" / name).read_bytes()


def test_clip_can_be_the_classifier(place, tmp_path):
    folder, _ = place
    store.fetch("world-clip", folder / "models")
    path = tmp_path / "hair.yaml"
    path.write_text(
        "{type: clip_labels, model: world-clip, attributes: "
        "{hair: {short: a person with short hair, long: a person with long hair}}}"
    )
    (hair,) = run(Request(folder / "others", str(path), models=folder / "models", sampling=QUICK), tmp_path).audits
    assert hair.labels == ("short", "long")
    assert hair.bias.shares[1].contains(0.9)
    assert reader_spec("mine:Classifier") == CustomModel(type="custom", factory="mine:Classifier")


def test_sub_folders_are_groups(found):
    _, truth, folder = found
    request = Request(
        folder / "heads", "world-classifier", attributes=["hair"], models=folder / "models", sampling=QUICK, groups=True
    )
    groups = run(request, folder / "groups").audits[0].groups
    assert groups.n == {"part-0": HEADS // 2, "part-1": HEADS // 2}
    for i, name in enumerate(groups.n):
        assert groups.shares[name][1].contains(float(truth["hair"][i::2].double().mean()))
    assert sum(groups.mean) == pytest.approx(1)


def write(path, rows):
    path.write_text("\n".join(["name,gender,race", *(f"{i}.png,{row}" for i, row in enumerate(rows))]))
    return path


def test_label_files_need_no_model(tmp_path):
    here = write(tmp_path / "a.csv", ["Male,x"] * 30 + ["Female,y"] * 10)
    there = write(tmp_path / "b.csv", ["Male,x"] * 10 + ["Female,y"] * 10 + ["unsure,x"] * 4)
    table = tmp_path / "confusion.csv"
    table.write_text("race,x,y\nx,90,10\ny,0,100\n")
    request = Request(here, compare=there, confusions=[table], sampling=QUICK, targets=["gender: uniform"])
    gender, race = run(request, tmp_path / "out").audits
    assert (gender.attribute, gender.labels) == ("gender", ("Female", "Male", "unsure"))
    assert [share.value for share in gender.bias.shares] == [0.25, 0.75, 0]
    assert gender.comparison.n == 24
    assert gender.corrected is None
    assert race.corrected[0].value == pytest.approx(0.75 / 0.9)


def test_a_column_can_name_the_groups(tmp_path):
    path = write(tmp_path / "a.csv", ["Male,x"] * 30 + ["Female,x"] * 10 + ["Male,y"] * 10 + ["Female,y"] * 30)
    (gender,) = run(Request(path, sampling=QUICK, groups="race"), tmp_path / "out").audits
    assert gender.attribute == "gender"
    assert [share.value for share in gender.groups.shares["x"]] == [0.25, 0.75]
    assert gender.groups.mean == (0.5, 0.5)


def test_a_class_without_images_is_named_by_its_target(tmp_path):
    path = write(tmp_path / "a.csv", ["Male,x"] * 30)
    with pytest.raises(DataError, match="gender is always Male; name all its classes in a target"):
        run(Request(path, attributes=["gender"]), tmp_path)
    request = Request(path, attributes=["gender"], targets=["Male=0.5,Female=0.5"], sampling=QUICK)
    assert [share.value for share in run(request, tmp_path).audits[0].bias.shares] == [0, 1]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"attributes": ["hairs"]}, ConfigError, "did you mean 'hair'"),
        ({"attributes": ["hair"], "targets": ["long=0.5, short=0.6"]}, ConfigError, "sum to 1"),
        ({"attributes": ["hair"], "targets": ["long=half"]}, ConfigError, "long=half"),
        ({"attributes": ["hair"], "targets": ["age: old=1"]}, ConfigError, "the attributes are hair"),
        ({"targets": ["long=0.5, short=0.5"]}, ConfigError, "write \"age: long=0.5, short=0.5\""),
        ({"classifier": "world-clasifier"}, ConfigError, "did you mean world-classifier"),
        ({"classifier": "fairface"}, ModelFileError, "promptgen fetch fairface"),
        ({"device": "gpu"}, ConfigError, "'gpu' is not a device; expected cpu, cuda"),
        ({"size": 32}, DataError, "part-0/0000.png: the classifier rejects images of 32 x 32"),
    ],
)  # fmt: skip
def test_wrong_arguments_are_told(place, tmp_path, options, error, message):
    folder, _ = place
    given = {"classifier": "world-classifier", "models": folder / "models", "sampling": QUICK, **options}
    with pytest.raises(error, match=message):
        run(Request(folder / "others", **given), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_single_image_is_counted(place, tmp_path):
    folder, _ = place
    (tmp_path / "one").mkdir()
    shutil.copy(folder / "heads" / "part-0" / "0000.png", tmp_path / "one")
    request = Request(
        tmp_path / "one", "world-classifier", "world-classifier", attributes=["hair"], models=folder / "models",
        sampling=QUICK,
    )  # fmt: skip
    found = run(request, tmp_path / "out")
    assert found.audits[0].bias.n == 1
    assert found.audits[0].soft is None
    printed = text(found)
    assert printed.startswith("1 image of ")
    assert "! world-classifier is both classifier and judge, so the judge is not an independent check." in printed


def test_names_that_cannot_be_printed_are_escaped(place, tmp_path):
    folder, _ = place
    for name in (b"part-\xff", b"part-0"):
        (tmp_path / "odd" / os.fsdecode(name)).mkdir(parents=True)
        shutil.copy(folder / "heads" / "part-0" / "0000.png", tmp_path / "odd" / os.fsdecode(name))
    (tmp_path / "odd" / os.fsdecode(b"two\nlines\xff.png")).write_text("no image")
    request = Request(
        tmp_path / "odd", "world-classifier", attributes=["hair"], models=folder / "models", sampling=QUICK, groups=True
    )
    found = run(request, tmp_path / "out")
    assert [each.name for each in found.images.unread] == ["two\\nlines\\udcff.png"]
    assert list(found.audits[0].groups.n) == ["part-0", "part-\\udcff"]
    assert text(found).encode()


class Failing:
    """A classifier of brightness whose logits of some attributes are no numbers for dark pictures."""

    attributes = {"light": ("dark", "bright"), "sky": ("clear", "grey")}  # noqa: RUF012

    def __init__(self, value, *failing):
        self.value, self.failing = value, failing

    def __call__(self, image):
        mean = image.mean(dim=(1, 2, 3))
        logits = {"light": torch.stack([0.5 - mean, mean - 0.5], dim=1), "sky": torch.zeros(len(image), 2)}
        for name in self.failing:
            logits[name][mean < 0.2, 1] = self.value
        return logits


def sound():
    return Failing(0.0)


def failing():
    return Failing(float("nan"), "sky")


def infinite():
    return Failing(float("-inf"), "light")


@pytest.fixture
def greys(tmp_path):
    """A folder with 2 black, 3 dark and 5 bright pictures."""
    for i, grey in enumerate([0] * 2 + [100] * 3 + [200] * 5):
        (tmp_path / "greys").mkdir(exist_ok=True)
        Image.new("RGB", (4, 4), (grey,) * 3).save(tmp_path / "greys" / f"{i}.png")
    return tmp_path / "greys"


@pytest.mark.parametrize(
    ("classifier", "judge", "attributes", "n", "reason"),
    [
        ("sound", None, [], 10, None),
        ("sound", "failing", [], 8, "failing's logits of sky are nan"),
        ("failing", "sound", ["light x sky"], 8, "failing's logits of sky are nan"),
        ("infinite", "failing", [], 8, "infinite's logits of light are -inf"),
        ("sound", "failing", ["light"], 10, None),  # nobody asked for the attribute that fails
    ],
)
@pytest.mark.parametrize("batch", [3, 32])
def test_pictures_with_logits_that_are_no_numbers_are_left_out_and_counted(
    greys, tmp_path, classifier, judge, attributes, n, reason, batch
):
    names = [name and f"tests.steps.test_audit_step:{name}" for name in (classifier, judge)]
    request = Request(greys, *names, attributes=attributes, sampling=QUICK, batch=batch)
    found = run(request, tmp_path / "out")
    assert found.images.n == n
    assert {each.bias.n for each in found.audits} == {n}
    assert all(each.judge.n == n for each in found.audits if each.judge)
    expected = {} if reason is None else dict.fromkeys(("0.png", "1.png"), f"tests.steps.test_audit_step:{reason}")
    assert json.loads((tmp_path / "out" / "audit.json").read_text())["images"]["unlabelled"] == expected
    assert ("! Left out 2 files of" in text(found)) == (reason is not None)
    dark = found.audits[0].bias.shares[found.audits[0].labels.index("dark")] if not attributes else None
    assert dark is None or dark.value == pytest.approx((n - 5) / n)


def test_a_classifier_that_fails_on_every_picture_ends_the_audit(greys, tmp_path):
    for path in sorted(greys.iterdir())[2:]:
        path.unlink()
    request = Request(greys, "tests.steps.test_audit_step:failing", sampling=QUICK)
    with pytest.raises(DataError, match=r"no readable image among 2 files \(0.png: .*logits of sky are nan"):
        run(request, tmp_path / "out")


def test_an_empty_folder_is_told_before_the_other_is_read(place, tmp_path):
    folder, _ = place
    (tmp_path / "empty").mkdir()
    request = Request(
        folder / "heads", "world-classifier", compare=tmp_path / "empty", models=folder / "models", size=32
    )
    with pytest.raises(DataError, match="empty has no files, expected images; name a folder"):
        run(request, tmp_path / "out")


@pytest.mark.parametrize(
    ("table", "error", "message"),
    [
        ("hats,on,off\non,9,1\noff,1,9\n", ConfigError, "a confusion table of hats, but the attributes are hair"),
        ("hair,on,off\non,9,1\noff,1,9\n", DataError, "has the classes on, off, expected short, long"),
    ],
)
def test_a_confusion_table_of_something_else_is_told_before_any_image_is_read(place, tmp_path, table, error, message):
    folder, _ = place
    (tmp_path / "x.csv").write_text(table)
    request = Request(
        folder / "heads",
        "world-classifier",
        attributes=["hair"],
        confusions=[tmp_path / "x.csv"],
        models=folder / "models",
        size=32,  # which the classifier does not take
    )
    with pytest.raises(error, match=message):
        run(request, tmp_path / "out")


def test_a_table_with_nothing_to_count_is_refused(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("file;gender\n1.png;Male\n2.png;Male\n")
    with pytest.raises(DataError, match=r"no column to count: file \(a different one .*\), gender \(always Male\)"):
        run(Request(path), tmp_path / "out")


def test_a_useless_confusion_table_is_named(tmp_path):
    path = write(tmp_path / "a.csv", ["Male,x"] * 30 + ["Female,y"] * 10)
    table = tmp_path / "confusion.csv"
    table.write_text("race,x,y\nx,10,90\ny,90,10\n")
    with pytest.raises(DataError, match=r"confusion table of race cannot be used: .* no better than chance"):
        run(Request(path, confusions=[table], sampling=QUICK), tmp_path / "out")


def test_a_correction_pushed_to_its_end_is_doubted(tmp_path):
    path = write(tmp_path / "a.csv", ["Male,x"] * 490 + ["Female,y"] * 10)
    tables = [tmp_path / "race.csv", tmp_path / "gender.csv"]
    tables[0].write_text("race,x,y\nx,170,30\ny,30,170\n")
    tables[1].write_text("gender,Male,Female\nMale,199,1\nFemale,1,199\n")
    found = run(Request(path, confusions=tables, sampling=QUICK), tmp_path / "out")
    told = "The confusion table cannot produce the counted 98.0\u202f% x race and 2.0\u202f% y race"
    assert any(line.startswith(f"! {told}") for line in text(found).splitlines())
    assert told in (tmp_path / "out" / "index.html").read_text()
    attributes = json.loads((tmp_path / "out" / "audit.json").read_text())["attributes"]
    assert (attributes["race"]["impossible"], attributes["gender"]["impossible"]) == (["x", "y"], [])


def test_a_folder_without_images_ends_with_status_2(place, tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("no image")
    words = ["--images", str(tmp_path), "--classifier", "world-classifier", "--models", str(place[0] / "models")]
    assert typed("audit", *words) == 2
    told = "has no readable image among 1 files (notes.txt: not a raster image that Pillow can read)"
    assert told in capsys.readouterr().err


def test_the_command_prints_the_table_and_says_where_the_page_is(tmp_path, capsys):
    path = write(tmp_path / "a.csv", ["Male,x"] * 30 + ["Female,y"] * 10)
    words = ["--labels", str(path), "--attribute", "gender", "--resamples", "200", "--out", str(tmp_path / "out")]
    assert typed("audit", *words) == 0
    printed = capsys.readouterr().out
    assert "75.0\u202f%" in printed
    assert printed.splitlines()[-1] == str(tmp_path / "out" / "index.html")
