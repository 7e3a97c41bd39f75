"""Folders of image files: order, what is shown, and what is named instead of read."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from promptgen.audit.images import find_files, read_batches, read_image
from promptgen.errors import DataError

RED, BLUE = (255, 0, 0), (0, 0, 255)


def halves(width: int, height: int) -> Image.Image:
    """Return a picture whose left half is red and whose right half is blue."""
    picture = Image.new("RGB", (width, height), RED)
    picture.paste(BLUE, (width // 2, 0, width, height))
    return picture


def batches(folder, **options):
    unread = []
    found = list(read_batches(folder, find_files(folder), **{"batch": 8, "unread": unread.append, **options}))
    return found, {each.name: each.reason for each in unread}


def test_files_are_found_below_in_sorted_order_without_hidden_ones(tmp_path):
    for name in ("b/2.png", "b/10.png", "a.JPG", ".hidden/x.png", "b/.x.png", "c/d/e.webp"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert find_files(tmp_path) == ["a.JPG", "b/10.png", "b/2.png", "c/d/e.webp"]


def test_a_missing_folder_is_an_error(tmp_path):
    with pytest.raises(DataError, match="give a folder"):
        find_files(tmp_path / "none")


@pytest.mark.parametrize("ending", ["png", "webp", "bmp", "gif", "tiff"])
def test_formats_without_loss_give_the_same_pixels(tmp_path, ending):
    options = {"lossless": True} if ending == "webp" else {}
    halves(6, 6).save(tmp_path / f"x.{ending}", **options)
    pixels = read_image(tmp_path / f"x.{ending}")
    assert pixels.shape == (6, 6, 3)
    assert (pixels[:, :3] == RED).all()
    assert (pixels[:, 3:] == BLUE).all()


def test_exif_orientation_turns_the_image(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    halves(8, 8).save(tmp_path / "x.png", exif=exif)
    pixels = read_image(tmp_path / "x.png")
    assert (pixels[:, :4] == BLUE).all()
    assert (pixels[:, 4:] == RED).all()


def test_transparent_parts_are_white(tmp_path):
    picture = Image.new("RGBA", (2, 2), (0, 0, 0, 0))
    picture.putpixel((0, 0), (*RED, 255))
    picture.save(tmp_path / "x.png")
    assert read_image(tmp_path / "x.png").tolist() == [[[255, 0, 0], [255] * 3], [[255] * 3, [255] * 3]]


def test_a_palette_can_have_a_transparent_colour(tmp_path):
    picture = Image.new("P", (2, 1))
    picture.putpalette([*RED, *BLUE])
    picture.putpixel((1, 0), 1)
    picture.resize((2, 2)).save(tmp_path / "x.png", transparency=0)
    assert read_image(tmp_path / "x.png")[0].tolist() == [[255, 255, 255], [0, 0, 255]]


@pytest.mark.parametrize(("mode", "value", "seen"), [("L", 100, 100), ("I;16", 100 * 257, 100), ("1", 1, 255)])
def test_grey_becomes_three_equal_channels(tmp_path, mode, value, seen):
    kind = np.uint16 if mode == "I;16" else np.uint8
    picture = Image.fromarray(np.full((2, 2), value, kind))
    (picture if mode == "I;16" else Image.new(mode, (2, 2), value)).save(tmp_path / "x.png")
    assert (read_image(tmp_path / "x.png") == seen).all()


def test_the_centre_is_cut_out(tmp_path):
    picture = Image.new("RGB", (10, 4), RED)
    picture.paste(BLUE, (3, 0, 7, 4))
    picture.save(tmp_path / "x.png")
    assert (read_image(tmp_path / "x.png") == BLUE).all()
    assert read_image(tmp_path / "x.png").shape == (4, 4, 3)
    assert read_image(tmp_path / "x.png", size=2).shape == (2, 2, 3)


def test_batches_are_of_one_size_and_keep_the_order(tmp_path):
    for name, side in (("a", 4), ("b", 4), ("c", 4), ("d", 8), ("e", 4)):
        halves(side, side).save(tmp_path / f"{name}.png")
    found, unread = batches(tmp_path, batch=2)
    assert [each.names for each in found] == [("a.png", "b.png"), ("c.png",), ("d.png",), ("e.png",)]
    assert [tuple(each.images.shape) for each in found] == [(2, 3, 4, 4), (1, 3, 4, 4), (1, 3, 8, 8), (1, 3, 4, 4)]
    assert unread == {}
    assert found[0].images[0, :, 0, 0].tolist() == [1, 0, 0]
    resized, _ = batches(tmp_path, size=4)
    assert torch.equal(torch.cat([each.images for each in resized if "a.png" in each.names])[:1], found[0].images[:1])
    assert [len(each.names) for each in resized] == [5]


def test_what_is_no_image_is_named(tmp_path, monkeypatch):
    halves(8, 8).save(tmp_path / "good.png")
    halves(64, 64).save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:-60])
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "empty.jpg").touch()
    Image.new("F", (4, 4)).save(tmp_path / "float.tiff")
    Image.new("L", (100, 90)).save(tmp_path / "large.png")
    Image.new("L", (200, 90)).save(tmp_path / "larger.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 8000)  # Pillow warns of the first, and refuses the second
    found, unread = batches(tmp_path)
    assert [each.names for each in found] == [("good.png",)]
    assert sorted(unread) == ["cut.png", "empty.jpg", "float.tiff", "large.png", "larger.png", "notes.txt"]
    assert "unreadable: image file is truncated" in unread["cut.png"]
    assert "no image" in unread["notes.txt"]
    assert unread["large.png"] == unread["larger.png"] == "more than 8,000 pixels, refused as a decompression bomb"


def test_a_folder_is_read_as_it_goes(tmp_path):
    """The first batch comes before later files are opened."""
    for name in "abc":
        halves(4, 4).save(tmp_path / f"{name}.png")
    unread = []
    reading = read_batches(tmp_path, find_files(tmp_path), batch=1, unread=unread.append)
    next(reading)
    (tmp_path / "c.png").write_bytes(b"")
    assert [each.names for each in reading] == [("b.png",)]
    assert [each.name for each in unread] == ["c.png"]
