"""Folders of image files: order, what is shown, and what is named instead of read."""

from __future__ import annotations

import os
import socket
import struct
import subprocess

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

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
    assert unread["notes.txt"] == "not a raster image that Pillow can read"
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


def test_linked_folders_are_read_once_and_circles_end(tmp_path):
    folder, outside = tmp_path / "set", tmp_path / "outside"
    for path in (folder / "a" / "1.png", folder / "z" / "2.png", outside / "3.png", outside / "below" / "4.png"):
        path.parent.mkdir(parents=True, exist_ok=True)
        halves(4, 4).save(path)
    (folder / "a" / "linked").symlink_to(outside)
    (folder / "a" / "again").symlink_to(outside)
    (folder / "a" / "sibling").symlink_to(folder / "z")  # its pictures belong to the folder z
    (folder / "a" / "up").symlink_to(folder)
    (outside / "self").symlink_to(outside)
    (outside / "back").symlink_to(folder / "a")
    (folder / ".hidden").symlink_to(outside)
    (folder / "5.png").symlink_to(outside / "3.png")
    names = ["5.png", "a/1.png", "a/again/3.png", "a/again/below/4.png", "z/2.png"]
    assert find_files(folder) == names
    assert [name for each in batches(folder)[0] for name in each.names] == names
    (tmp_path / "link").symlink_to(folder)
    assert find_files(tmp_path / "link") == names


def test_what_is_no_regular_file_is_named(tmp_path):
    halves(4, 4).save(tmp_path / "good.png")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "nothing.png").symlink_to(tmp_path / "gone.png")
    (tmp_path / "circle.png").symlink_to(tmp_path / "circle.png")
    (tmp_path / "null.png").symlink_to("/dev/null")
    (tmp_path / "pipe-link.png").symlink_to(tmp_path / "pipe.png")
    with socket.socket(socket.AF_UNIX) as server:
        here = os.getcwd()
        os.chdir(tmp_path)  # the path of a socket is short
        try:
            server.bind("socket.png")
        finally:
            os.chdir(here)
        found, unread = batches(tmp_path)
    assert [each.names for each in found] == [("good.png",)]
    assert {name: reason.split(",")[0] for name, reason in unread.items()} == {
        "pipe.png": "a pipe",
        "pipe-link.png": "a pipe",
        "nothing.png": "a broken link",
        "circle.png": "unreadable: Too many levels of symbolic links",
        "null.png": "a device",
        "socket.png": "a socket",
    }


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n0 0 10 10 rectfill\nshowpage\n"


def test_postscript_starts_no_program(tmp_path, monkeypatch):
    def start(*arguments, **options):
        raise AssertionError(f"started {arguments}")

    monkeypatch.setattr(subprocess, "check_call", start)
    monkeypatch.setattr(subprocess, "Popen", start)
    for name in ("portrait.png", "portrait.eps"):
        (tmp_path / name).write_bytes(POSTSCRIPT)
    (tmp_path / "map.wmf").write_bytes(b"\xd7\xcd\xc6\x9a" + bytes(64))
    (tmp_path / "page.png").write_bytes(b"%PDF-1.4\n")
    (tmp_path / "drawing.png").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    found, unread = batches(tmp_path)
    assert found == []
    assert set(unread.values()) == {"not a raster image that Pillow can read"}
    assert len(unread) == 5


def exif(orientation, *, damaged):
    """Return EXIF data with an orientation and a resolution, whose numerator is -1 and denominator 0 if damaged."""
    tags = struct.pack("<HHII", 0x0112, 3, 1, orientation) + struct.pack("<HHII", 0x011A, 10, 1, 38)
    number = struct.pack("<ii", -1, 0) if damaged else struct.pack("<ii", 72, 1)
    return b"Exif\0\0II*\0" + struct.pack("<I", 8) + struct.pack("<H", 2) + tags + bytes(4) + number


@pytest.mark.parametrize("data", [exif(3, damaged=True), b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0??", b"Exif\0\0"])
@pytest.mark.parametrize("ending", ["jpg", "png", "webp"])
def test_a_picture_with_damaged_exif_data_is_taken_as_it_is_stored(tmp_path, data, ending):
    halves(16, 16).save(tmp_path / f"plain.{ending}")
    halves(16, 16).save(tmp_path / f"odd.{ending}", exif=data)
    assert (read_image(tmp_path / f"odd.{ending}") == read_image(tmp_path / f"plain.{ending}")).all()
    halves(16, 16).save(tmp_path / f"turned.{ending}", exif=exif(3, damaged=False))
    turned = read_image(tmp_path / f"turned.{ending}")
    assert (turned == read_image(tmp_path / f"plain.{ending}")[::-1, ::-1]).mean() > 0.9


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_turns_nothing(tmp_path, orientation):
    halves(8, 8).save(tmp_path / "x.png", exif=exif(orientation, damaged=False))
    assert (read_image(tmp_path / "x.png")[:, :4] == RED).all()


def swapped_profile():
    """Return a colour profile whose red is sRGB's blue, and whose blue is sRGB's red."""
    content = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    starts = range(132, 132 + 12 * int.from_bytes(content[128:132], "big"), 12)  # of the entries in its table of tags
    at = {bytes(content[start : start + 4]): start + 4 for start in starts}
    red, blue = at[b"rXYZ"], at[b"bXYZ"]
    content[red : red + 8], content[blue : blue + 8] = content[blue : blue + 8], content[red : red + 8]
    return bytes(content)


@pytest.mark.parametrize(
    ("ending", "mode"), [("png", "RGB"), ("png", "RGBA"), ("png", "P"), ("tiff", "RGB"), ("webp", "RGB")]
)
def test_colours_are_those_of_the_embedded_profile(tmp_path, ending, mode):
    options = {"lossless": True} if ending == "webp" else {}
    picture = halves(8, 8).convert(mode)
    picture.save(tmp_path / f"x.{ending}", icc_profile=swapped_profile(), **options)
    pixels = read_image(tmp_path / f"x.{ending}").astype(int)
    assert np.abs(pixels[:, :4] - BLUE).max() <= 3
    assert np.abs(pixels[:, 4:] - RED).max() <= 3


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "CMYK", "1"])
@pytest.mark.parametrize("profile", [b"no profile", swapped_profile()[:200], b""])
def test_a_profile_that_cannot_be_used_leaves_the_picture_as_it_is_stored(tmp_path, profile, mode):
    picture = halves(8, 8).convert(mode)
    picture.save(tmp_path / "plain.tiff")
    picture.save(tmp_path / "x.tiff", icc_profile=profile)
    assert (read_image(tmp_path / "x.tiff") == read_image(tmp_path / "plain.tiff")).all()


def test_srgb_changes_nothing(tmp_path):
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16, 1) * np.ones(3, dtype=np.uint8)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(ramp).save(tmp_path / "x.png", icc_profile=profile)
    assert np.abs(read_image(tmp_path / "x.png").astype(int) - ramp).max() <= 1


def deep(folder, name, values):
    """Write integers, (H, W), as grey pixels of their type."""
    Image.fromarray(np.asarray(values)).save(folder / name)


RAMP = np.arange(256).reshape(16, 16)


@pytest.mark.parametrize("ending", ["png", "tiff"])
def test_16_bits_are_read_at_their_full_depth(tmp_path, ending):
    deep(tmp_path, f"x.{ending}", (RAMP * 257).astype(np.uint16))
    assert (read_image(tmp_path / f"x.{ending}")[..., 0] == RAMP).all()
    deep(tmp_path, f"dark.{ending}", (RAMP // 8 * 257).astype(np.uint16))  # widened from 8 bits
    assert (read_image(tmp_path / f"dark.{ending}")[..., 0] == RAMP // 8).all()
    deep(tmp_path, f"black.{ending}", np.zeros((4, 4), np.uint16))
    assert not read_image(tmp_path / f"black.{ending}").any()


@pytest.mark.parametrize("bits", [8, 10, 12, 14])
@pytest.mark.parametrize("kind", [np.uint16, np.int32])
def test_fewer_bits_in_more_are_named_and_not_read_as_black(tmp_path, bits, kind):
    values = (RAMP * ((1 << bits) - 1) // 255).astype(kind)
    deep(tmp_path, "x.tiff", values)
    found, unread = batches(tmp_path)
    assert found == []
    assert f"at most {(1 << bits) - 1} of 65535" in unread["x.tiff"]


@pytest.mark.parametrize("values", [RAMP * 10_000_000 - 5, RAMP * 1000])
def test_integers_without_a_known_white_are_named(tmp_path, values):
    deep(tmp_path, "x.tiff", values.astype(np.int32))
    with pytest.raises(DataError, match="white unknown"):
        read_image(tmp_path / "x.tiff")


def test_portable_graymaps_name_their_white(tmp_path):
    content = b"P5 16 16 4095\n" + (RAMP * 4).astype(">u2").tobytes()
    (tmp_path / "x.pgm").write_bytes(content)
    assert read_image(tmp_path / "x.pgm").max() == round(255 * 4 * 255 / 4095)


def png16(path, rgb):
    """Write colours, (H, W, 3) uint16, as a PNG of 16 bits, which Pillow itself cannot."""
    import zlib

    height, width, _ = rgb.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in rgb)

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )


def test_colours_of_fewer_bits_in_16_are_named(tmp_path):
    colours = np.stack([RAMP, RAMP[::-1], RAMP.T], axis=2)
    png16(tmp_path / "full.png", colours * 257)
    assert (read_image(tmp_path / "full.png") == colours).all()
    png16(tmp_path / "twelve.png", colours * 4095 // 255)
    with pytest.raises(DataError, match="at most 15 of 255"):
        read_image(tmp_path / "twelve.png")
    png16(tmp_path / "black.png", colours * 0)
    assert not read_image(tmp_path / "black.png").any()


def test_a_tiff_whose_zero_is_white_is_inverted(tmp_path):
    deep(tmp_path, "x.tiff", (RAMP * 257).astype(np.uint16))
    content = bytearray((tmp_path / "x.tiff").read_bytes())
    at = content.index(struct.pack("<HHI", 262, 3, 1))
    content[at + 8] = 0
    (tmp_path / "x.tiff").write_bytes(content)
    assert (read_image(tmp_path / "x.tiff")[..., 0] == 255 - RAMP).all()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"])
def test_every_mode_is_shown_in_rgb(tmp_path, mode):
    white = Image.new("RGB", (4, 4), "white")
    ending = "tiff" if mode in ("CMYK", "YCbCr") else "png"
    white.convert(mode).save(tmp_path / f"x.{ending}")
    assert (read_image(tmp_path / f"x.{ending}") >= 254).all()


@pytest.mark.parametrize("ending", ["gif", "png", "webp"])
def test_the_first_frame_of_an_animation_is_shown(tmp_path, ending):
    first, second = (Image.new("RGB", (4, 4), colour) for colour in (RED, BLUE))
    options = {"lossless": True} if ending == "webp" else {}
    first.save(tmp_path / f"x.{ending}", save_all=True, append_images=[second], **options)
    assert (read_image(tmp_path / f"x.{ending}") == RED).all()


def test_a_picture_without_pixels_is_named(tmp_path):
    (tmp_path / "x.gif").write_bytes(b"GIF89a\0\0\0\0\0\0\0,\0\0\0\0\0\0\0\0\0\x02\0;")
    (tmp_path / "x.pgm").write_bytes(b"P5 0 0 255\n")
    found, unread = batches(tmp_path)
    assert found == []
    assert set(unread) == {"x.gif", "x.pgm"}
