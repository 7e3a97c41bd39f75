"""The published networks of faces: where their files are, pictures, and what the real runtime says of these.

The files are those of the cards, fetched into the project's models folder if they are not there. PROMPTGEN_FACES names
a folder that is searched for them instead. Without any files a test is skipped, but fails where CI is set.
"""

import functools
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from promptgen.errors import PromptGenError
from promptgen.model_files.cards import load_cards
from promptgen.model_files.downloads import Patience
from promptgen.model_files.store import fetch

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "tests" / "fixtures" / "faces"
SIDE = 64
FILES = {
    "dcgan": ["weights.tar"],
    "faceapi_expression": ["face_expression_model-weights_manifest.json", "face_expression_model.bin"],
    "faceapi_age_gender": ["age_gender_model-weights_manifest.json", "age_gender_model.bin"],
    "human_faceres": ["faceres.json", "faceres.bin"],
    "human_emotion": ["emotion.json", "emotion.bin"],
}
"""Names of the published files, by the type of their card, in the order of the loader's arguments."""

EXPECTED = json.loads((FOLDER / "expected.json").read_text(encoding="utf-8"))
"""What the real runtime computes, one entry for each picture."""


def files_of(kind):
    """Return the published files of the networks of a type of card, or skip the test."""
    files, reason = _found(kind)
    if files is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    return files


@functools.cache
def _found(kind):
    if folder := os.environ.get("PROMPTGEN_FACES"):
        found = [next(Path(folder).rglob(name), None) for name in FILES[kind]]
        missing = [name for name, path in zip(FILES[kind], found, strict=True) if path is None]
        return (None, f"{', '.join(missing)} is not below {folder}") if missing else (found, "")
    names = [name for name, card in load_cards().items() if card.type == kind]
    if not names:
        return None, f"no card has the type {kind}; set PROMPTGEN_FACES to a folder with {', '.join(FILES[kind])}"
    try:
        return fetch(names[0], ROOT / "models", Patience(timeout=30, tries=2)), ""
    except (PromptGenError, OSError) as error:
        return None, f"{names[0]} cannot be fetched: {error}"


def pictures(side):
    """Return the pictures, (N, 3, side, side), in [0, 1]: pixels repeated, then the central square."""
    pixels = np.fromfile(FOLDER / "pictures.bin", np.uint8).reshape(-1, SIDE, SIDE, 3)
    times = -(-side // SIDE)
    start = (SIDE * times - side) // 2
    large = pixels.repeat(times, axis=1).repeat(times, axis=2)[:, start : start + side, start : start + side]
    return torch.from_numpy(large.astype(np.float32) / 255).permute(0, 3, 1, 2)


def assert_agrees(result, expected, tolerance=1e-4):
    """Fail unless `result` is within `tolerance` of `expected`, relative to its largest absolute value, at least 1."""
    expected = torch.tensor(expected, dtype=torch.float64)
    assert result.shape == expected.shape
    error = (result.double() - expected).abs().max() / expected.abs().max().clamp(min=1)
    assert error <= tolerance, f"error {error:.2e}, allowed {tolerance:.0e}"
