"""Archives whose members lead out of their folder, or claim too much, are told and not followed."""

import stat
import zipfile
from contextlib import suppress

import hostile
import pytest

from promptgen.errors import ModelFileError
from promptgen.loading.inspection.report import inspect_file
from promptgen.model_files.archives import extract
from tests.loading.hostile_files.loaders import refused


@pytest.mark.parametrize(
    "members",
    [
        [("../canary", {})],
        [("/canary", {})],
        [("a/../../canary", {})],
        [("link", {"type": b"2", "linkname": "/"}), ("link/canary", {})],
        [("canary", {"type": b"1", "linkname": "/etc/passwd"})],
        [("canary", {"type": b"3"})],
    ],
)
def test_archives_that_lead_out_of_their_folder_are_told(members, tmp_path):
    path = tmp_path / "weights.tar"
    path.write_bytes(hostile.tar_file(*((name, dict(attributes)) for name, attributes in members)))
    found = inspect_file(path, {})
    assert not found.safe
    assert "do not extract it" in found.verdict
    folder = tmp_path / "folder"
    folder.mkdir()
    target = folder / "target"
    for name, _ in members:
        with suppress(ModelFileError):  # where it is no file
            extract(path, name, target)
    assert [*folder.iterdir()] in ([], [target])
    assert not (tmp_path / "canary").exists()


def test_zips_that_lead_out_of_their_folder_are_told(tmp_path):
    path = tmp_path / "weights.zip"
    for name, mode in (("../canary", 0), ("/canary", 0), ("C:\\canary", 0), ("..\\canary", 0), ("link", stat.S_IFLNK)):
        with zipfile.ZipFile(path, "w") as archive:
            info = zipfile.ZipInfo(name)
            info.external_attr = (mode | 0o644) << 16
            archive.writestr(info, "/etc/passwd")
        assert "do not extract it" in inspect_file(path, {}).verdict
        if mode:
            refused(lambda path: extract(path, "link", tmp_path / "target"), path, "a link")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb", bytes(1 << 24))
    assert "claims 16777216 bytes out of" in inspect_file(path, {}).verdict
