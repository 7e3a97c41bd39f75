"""Parity fixtures: weights drawn again from their key names, published files rebuilt, and the numbers expected of them.

A fixture is a folder with `manifest.json` (layout and fill rules), `inputs.npz` and `expected.npz`. The environment
variable PROMPTGEN_PARITY names a folder of fixtures, or a single one, to use instead of the committed ones. What a
fixture is of is said by its manifest, never by its folder's name; the folder's name only tells the tests apart.
"""

import json
import os
import re
import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pytest
import torch

DEFAULT_ROOT = Path(__file__).parent.parent / "fixtures" / "parity"
PART = r"(?P<kind>stride|centre|first)(?P<n>\d+)"


@dataclass(frozen=True)
class Fixture:
    """One fixture folder."""

    folder: Path

    @cached_property
    def manifest(self):
        return json.loads((self.folder / "manifest.json").read_text(encoding="utf-8"))

    @property
    def network(self):
        return self.manifest["network"]

    @property
    def hyper_parameters(self):
        return self.manifest["hyper_parameters"]

    @cached_property
    def inputs(self):
        """Input tensors by name."""
        return self._tensors("inputs.npz")

    @cached_property
    def expected(self):
        """Expected tensors by name; a suffix `_strideN` and so on says which part of the result was kept."""
        return self._tensors("expected.npz")

    def section(self, name):
        """Return the tensors of a section by key, checked against their checksums."""
        entries, filled = {entry["key"]: entry for entry in self.manifest["sections"][name]}, {}
        return {key: torch.from_numpy(self._filled(key, entries, filled)) for key in entries}

    def file_content(self, index=0):
        """Return the content of a published file."""
        return self._built(self.manifest["files"][index]["tree"])

    def write_file(self, path, index=0, **extra):
        """Write a published file, with `extra` top-level entries, as its publisher would; return `path`."""
        torch.save(self.file_content(index) | extra, path)
        return path

    def _tensors(self, name):
        with np.load(self.folder / name) as arrays:
            return {key: torch.from_numpy(arrays[key]) for key in arrays}

    def _built(self, node):
        if isinstance(node, dict):
            return {key: self._built(value) for key, value in node.items()}
        if isinstance(node, str) and node.startswith("@"):
            section, _, key = node[1:].partition(":")
            tensors = self.section(section)
            return tensors[key] if key else tensors
        return node

    def _filled(self, key, entries, filled):
        """Return the array of an entry, taken from `filled` where another entry has needed it before."""
        if key not in filled:
            filled[key] = self._checked(entries[key], self._numbers(entries[key], entries, filled))
        return filled[key]

    def _checked(self, entry, numbers):
        if "plus" in entry:
            np.add.at(numbers.reshape(-1), entry["plus"]["index"], entry["plus"]["value"])
        array = np.asarray(numbers).astype(entry["dtype"])
        if "crc32" in entry:
            little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
            assert zlib.crc32(little) == entry["crc32"], f"{self.network}: checksum of {entry['key']}"
        return array

    def _numbers(self, entry, entries, filled):
        """Return the float64 numbers of an entry, as its fill rule says."""
        shape = tuple(entry["shape"])
        match entry["fill"]:
            case "normal":
                return entry["mean"] + entry["std"] * self._normals(entry["key"], shape)
            case "abs_normal":
                return entry["mean"] + entry["std"] * np.abs(self._normals(entry["key"], shape))
            case "const":
                return np.full(shape, entry["value"])
            case "values":
                return np.array(entry["values"], dtype=np.float64).reshape(shape)
            case "alias":
                return self._filled(entry["of"], entries, filled).astype(np.float64)
            case "power_u" | "power_v":
                return self._power(entry, entries, filled)
        raise ValueError(f"unknown fill rule {entry['fill']!r} of {entry['key']!r}")

    def _power(self, entry, entries, filled):
        """Return a spectral-norm vector after one power step from the start of the "u" key."""
        weight = self._filled(entry["weight"], entries, filled).astype(np.float64)
        matrix = weight.reshape(len(weight), -1)
        v = matrix.T @ self._normals(entry["u"], (len(matrix),))
        v /= np.linalg.norm(v)
        u = matrix @ v
        return v if entry["fill"] == "power_v" else u / np.linalg.norm(u)

    def _normals(self, key, shape):
        seed = zlib.crc32((self.manifest.get("salt", "") + key).encode())
        return np.random.Generator(np.random.PCG64(seed)).standard_normal(shape)


def fixtures_of(family):
    """Return a parameter for each fixture whose network is `family`, alone or with a dash and more after it.

    A folder named by PROMPTGEN_PARITY may lack a family, whose tests are then skipped; the committed one may not.
    """
    named = os.environ.get("PROMPTGEN_PARITY")
    root = Path(named or DEFAULT_ROOT).resolve()
    found = [Fixture(path.parent) for path in sorted([*root.glob("manifest.json"), *root.glob("*/manifest.json")])]
    if not found:
        raise pytest.UsageError(f"no parity fixtures in {root}: set PROMPTGEN_PARITY to a folder of them")
    chosen = [fixture for fixture in found if fixture.network == family or fixture.network.startswith(f"{family}-")]
    if chosen:
        return [pytest.param(fixture, id=fixture.folder.name) for fixture in chosen]
    assert named, f"no {family} fixture among the committed ones"
    return [pytest.param(None, id="none", marks=pytest.mark.skip(reason=f"{root} has no fixture of {family}"))]


def kept_of(arrays, name):
    """Return the keys of `arrays` that hold the result `name`, all of it or the parts that `part` knows; some must."""
    keys = [key for key in arrays if re.fullmatch(rf"{re.escape(name)}(_{PART})?", key)]
    assert keys, f"nothing is given to compare {name} with"
    return keys


def decimals_of(arrays, prefix):
    """Return the numbers in keys such as image_trunc0375_stride2 after `prefix`, by the name without the suffix."""
    found = [re.fullmatch(rf"({re.escape(prefix)}(\d)(\d*))(_{PART})?", key) for key in arrays]
    numbers = {match[1]: float(f"{match[2]}.{match[3]}") for match in found if match}
    assert numbers, f"nothing is given whose name starts with {prefix}"
    return numbers


def part(result, name):
    """Return the part of `result` that the suffix of `name` says was kept: `_strideN`, `_centreN` or `_firstN`."""
    match = re.search(rf"_{PART}$", name)
    if match is None:
        return result
    kind, n = match["kind"], int(match["n"])
    if kind == "stride":
        return result[..., ::n, ::n]
    if kind == "first":
        return result[:, :n]
    top, left = ((side - n) // 2 for side in result.shape[-2:])
    return result[..., top : top + n, left : left + n]


def assert_kept(fixture, name, result, tolerance=1e-4):
    """Fail unless `result` is close to what a fixture has kept of the result `name`."""
    for key in kept_of(fixture.expected, name):
        assert_close(part(result, key), fixture.expected[key], tolerance)


def assert_close(result, expected, tolerance=1e-4):
    """Fail unless `result` is within `tolerance` of `expected`, relative to the largest absolute value expected."""
    assert result.shape == expected.shape
    error, largest = (result.double() - expected.double()).abs().max(), expected.double().abs().max()
    assert error <= tolerance * largest, f"relative error {error / largest:.2e}, allowed {tolerance:.0e}"
