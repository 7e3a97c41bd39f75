"""Models of TensorFlow.js: numbers as numpy computes them, and hostile manifests refused before they cost anything."""

import json
import os
import tracemalloc

import numpy as np
import pytest
import torch

from promptgen.errors import ModelFileError
from promptgen.loading.tfjs import MAX_MANIFEST, read_tfjs
from tests.loading.tfjs_files import entry, write

SCALED = {"dtype": "uint8", "scale": 0.013, "min": -1.7}
PLAIN = {"name": "a", "shape": [2], "dtype": "float32"}
HUGE = {"name": "a", "shape": [1 << 20, 1 << 20, 1 << 20], "dtype": "float32"}


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def refused(match, *paths):
    """Let a model be read, which must be refused in one short line that names the file."""
    with pytest.raises(ModelFileError, match=match) as caught:
        read_tfjs(paths[0], paths[1:])
    message = str(caught.value)
    assert "\n" not in message
    assert str(paths[0].parent) in message
    assert len(message) < 800 + len(str(paths[0])) * 2


def manifest_of(folder, content, data=b"12345678"):
    """Write a manifest of any content beside a shard of 8 bytes; return both paths."""
    path, shard = folder / "manifest.json", folder / "shard.bin"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    shard.write_bytes(data)
    return path, shard


def group(*weights, paths=("shard.bin",)):
    return [{"paths": list(paths), "weights": list(weights)}]


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("seed", range(3))
def test_every_type_of_number(seed, parts, tmp_path):
    rng = np.random.default_rng(seed)
    names = ("plain", "bytes", "words", "halves")
    shapes = {name: tuple(rng.integers(1, 5, size=rng.integers(0, 5))) for name in names}
    plain = rng.standard_normal(shapes["plain"]).astype(np.float32)
    small = rng.integers(0, 256, shapes["bytes"])
    large = rng.integers(0, 1 << 16, shapes["words"])
    halves = rng.standard_normal(shapes["halves"]).astype(np.float16)
    axes = np.array([1, -2])
    words = {"dtype": "uint16", "scale": 3e-5, "min": -0.9}
    entries = [
        entry("odd/bytes", small, SCALED),  # so that what follows lies at any offset
        entry("plain", plain),
        entry("words", large, words),
        entry("halves", halves, {"dtype": "float16", "original_dtype": "float32"}),
        entry("axes", axes, dtype="int32"),
    ]
    path, shards = write(tmp_path, entries, parts=parts)
    weights, topology = read_tfjs(path, shards)
    assert topology is None
    assert list(weights) == ["odd/bytes", "plain", "words", "halves", "axes"]
    expected = {
        "odd/bytes": (small * 0.013 - 1.7).astype(np.float32),
        "plain": plain,
        "words": (large * 3e-5 - 0.9).astype(np.float32),
        "halves": halves.astype(np.float32),
        "axes": axes.astype(np.int32),
    }
    for name, value in expected.items():
        assert torch.equal(weights[name], torch.from_numpy(np.array(value)))
        assert weights[name].dtype == (torch.int32 if name == "axes" else torch.float32)


def test_groups_have_their_own_shards_and_a_model_its_topology(tmp_path):
    first, second = tmp_path / "first.bin", tmp_path / "second.bin"
    first.write_bytes(np.float32([1, 2]).tobytes())
    second.write_bytes(np.float32([3]).tobytes())
    groups = [*group(PLAIN, paths=["first.bin"]), *group(PLAIN | {"name": "b", "shape": []}, paths=["second.bin"])]
    path = tmp_path / "model.json"
    path.write_text(json.dumps({"weightsManifest": groups, "modelTopology": {"node": []}, "format": "graph-model"}))
    weights, topology = read_tfjs(path, [second, first])
    assert topology == {"node": []}
    assert {name: value.tolist() for name, value in weights.items()} == {"a": [1, 2], "b": 3}


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("", "expected a weight manifest"),
        ("{", "expected a weight manifest"),
        ("\0\1\2", "expected a weight manifest"),
        ("[" * 100_000, "expected a weight manifest"),
        ("1" * 10_000, "expected a weight manifest"),
        (" " * (MAX_MANIFEST + 1), "of at most 4 MB"),
        ("3", "expected a weight manifest"),
        ("null", "expected a weight manifest"),
        ("{}", "weightsManifest is missing"),
        ("[]", "weightsManifest: .*at least 1"),
        ([3], "weightsManifest.0"),
        ([{"paths": ["shard.bin"]}], "weights is missing"),
        (group(PLAIN, paths=[]), "paths: .*at least 1"),
        (group(PLAIN | {"shape": [3]}), "describes 12 bytes, and .* has 8"),
        (group(PLAIN | {"shape": [1]}), "describes 4 bytes, and .* has 8"),
        (group(), "describes 0 bytes, and .* has 8"),
        (group(HUGE), f"describes {4 << 60} bytes"),
        (group(PLAIN | {"shape": [10**400]}), "shape"),
        (group(PLAIN | {"shape": [-2]}), "greater than 0"),
        (group(PLAIN | {"shape": [-2, -1]}), "greater than 0"),
        (group(PLAIN | {"shape": [0]}), "greater than 0"),
        (group(PLAIN | {"shape": [2.0]}), "shape"),
        (group(PLAIN | {"shape": "2"}), "shape"),
        (group(PLAIN | {"shape": [1] * 7}), "shape"),
        (group(PLAIN | {"dtype": "string"}), "dtype"),
        (group(PLAIN | {"dtype": "object"}), "dtype"),
        (group(PLAIN | {"name": ""}), "name"),
        (group(PLAIN | {"name": "x" * 10_000}), "name"),
        (group(PLAIN | {"shape": [1]}, PLAIN | {"shape": [1]}), "the weight a occurs twice"),
        (group(PLAIN | {"shape": [8], "quantization": {"dtype": "uint8"}}), "need a scale and a min"),
        (group(PLAIN | {"shape": [8], "quantization": SCALED | {"scale": float("nan")}}), "scale"),
        (group(PLAIN | {"shape": [8], "quantization": SCALED | {"scale": 1e300}}), "not finite: a"),
        (group(PLAIN | {"shape": [8], "quantization": SCALED | {"dtype": "uint4"}}), "dtype"),
        (group(PLAIN | {"dtype": "int32", "shape": [8], "quantization": SCALED}), "integers cannot be quantised"),
        (group(PLAIN, paths=["other.bin"]), "names the files other.bin, expected shard.bin"),
        (group(PLAIN, paths=["../shard.bin"]), "names the files"),
        (group(PLAIN, paths=["./shard.bin"]), "names the files"),
        (group(PLAIN, paths=["/etc/passwd"]), "names the files"),
        (group(PLAIN, paths=["https://example.org/shard.bin"]), "names the files"),
        (group(PLAIN, paths=["shard.bin", "shard.bin"]), "names the files"),
        (group(PLAIN, paths=["\x1b[2J.bin"]), r"names the files \\x1b\[2J\.bin"),
    ],
)
def test_hostile_manifests(content, match, tmp_path):
    paths = manifest_of(tmp_path, content)
    tracemalloc.start()
    try:
        refused(match, *paths)
        assert tracemalloc.get_traced_memory()[1] < 100 << 20
    finally:
        tracemalloc.stop()


def test_numbers_that_are_not_finite(tmp_path):
    paths = manifest_of(tmp_path, group(PLAIN), np.float32([1, np.inf]).tobytes())
    refused("not finite: a", *paths)


def test_files_that_are_missing_or_no_files(tmp_path):
    path, shard = manifest_of(tmp_path, group(PLAIN))
    refused("no such file", tmp_path / "nowhere.json", shard)
    refused("a folder or a device", tmp_path, shard)
    shard.unlink()
    refused("no such file", path, shard)
    shard.mkdir()
    refused("a folder or a device", path, shard)
    os.mkfifo(tmp_path / "pipe.json")
    refused("a folder or a device", tmp_path / "pipe.json", shard)


def test_a_shard_that_is_given_and_not_named(tmp_path):
    path, shard = manifest_of(tmp_path, group(PLAIN))
    refused("names the files shard.bin, expected shard.bin, other.bin", path, shard, tmp_path / "other.bin")
