"""Files of another kind, size or network, and those that cannot be read, are refused in one clear line."""

import os
import random
import stat

import hostile
import pytest
import torch

from promptgen.generators.stylegan2.generator import StyleGAN2, StyleGAN2Config, load_stylegan2
from promptgen.perception.deca import load_deca
from tests.loading.hostile_files.loaders import LOADERS, SMALL, every, refused

PAGE = b"<!DOCTYPE html><html><body>Sign in to download</body></html>"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n"
OTHER_FILES = {
    "empty": (b"", "it is empty|damaged|known classes"),
    "web page": (PAGE, "a web page.*direct link|damaged|known classes"),
    "LFS pointer": (POINTER, "git lfs pull|damaged|known classes"),
    "text": (b"weights are elsewhere", "no known format|damaged|known classes"),
    "JSON": (b'{"a": 1}', "JSON.*another model|damaged|known classes"),
    "picture": (b"\x89PNG\r\n\x1a\n" + bytes(64), "a picture|damaged|known classes"),
    "gzip": (b"\x1f\x8b" + bytes(64), "decompress it|damaged|known classes"),
    "random": (random.Random(0).randbytes(4096), "no known format|damaged|known classes"),
    "zeros": (bytes(4096), "no known format|broken|damaged|known classes"),
    "tar": (hostile.tar_file(("weights", {})), "tar archive.*another model|damaged|known classes"),
}


@every
def test_other_files_are_refused(loader, path):
    quick = loader in ("read_torch", "read_training", "stylenerf", "chain")  # the others build a network first
    for name in OTHER_FILES if quick else ("empty", "web page"):
        content, match = OTHER_FILES[name]
        path.write_bytes(content)
        refused(LOADERS[loader], path, match)


@every
def test_a_missing_file_and_a_folder_are_refused(loader, path):
    refused(LOADERS[loader], path, "no such file; fetch|does not exist")
    path.mkdir()
    refused(LOADERS[loader], path, "a folder|damaged|no such file")
    path.rmdir()


@pytest.mark.skipif(os.geteuid() != 0, reason="only the superuser can become somebody who may not read")
@pytest.mark.parametrize("loader", ["read_torch", "chain"])
@pytest.mark.parametrize("what", ["file", "folder"])
def test_a_file_that_may_not_be_read_is_refused(loader, what, tmp_path):
    folder = tmp_path / "closed"
    folder.mkdir()
    path = folder / "weights"
    torch.save({}, path)
    (path if what == "file" else folder).chmod(0)
    for parent in [tmp_path, *tmp_path.parents][:3]:
        parent.chmod(parent.stat().st_mode | stat.S_IXOTH)
    os.seteuid(65534)
    try:
        refused(LOADERS[loader], path, "permission is denied")
    finally:
        os.seteuid(0)
        folder.chmod(0o700)


def test_files_of_another_size_or_network_are_refused(path):
    small = {"latent_dim": 8, "mapping_layers": 1}
    torch.save({"g_ema": StyleGAN2(StyleGAN2Config(size=8, **small)).state_dict()}, path)
    load_stylegan2(path, 8, **small)
    refused(
        lambda path: load_stylegan2(path, 16, **small), path, "missing: convs.2.*size 8, mapping_layers 1, latent_dim 8"
    )
    refused(lambda path: load_stylegan2(path, 8, latent_dim=4, mapping_layers=1), path, "of another shape: .*expected")
    refused(lambda path: load_deca(path, SMALL, hidden=8), path, "expected the entry 'E_flame', found .*'g_ema'")
    refused(LOADERS["fairface"], path, "is it another model's file")
