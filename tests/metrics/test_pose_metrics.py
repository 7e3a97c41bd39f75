"""Pose figures: known angles, slopes of known relations, intervals that cover, Euler angles against scipy."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from promptgen.errors import DataError, TooFewSamplesError
from promptgen.metrics.pose import euler_angles, pose_error, pose_errors, pose_slopes

NAMES = ("pitch", "yaw")


def rotations(angles):
    return Rotation.from_euler("XYZ", angles).as_matrix()


def drawn(n, seed=0):
    return np.random.default_rng(seed).uniform(-0.4, 0.4, size=(n, 3))


def test_euler_angles_invert_scipy_s():
    np.testing.assert_allclose(euler_angles(rotations(drawn(50))), drawn(50), atol=1e-12)


def test_errors_are_degrees_of_what_is_left():
    seen = rotations(np.radians([[10.0, 0, 0], [0, 20.0, 0], [0, 5.0, 0]]))
    wanted = np.radians([[10.0, 0], [0, 17.0], [0, -5.0]])
    np.testing.assert_allclose(pose_errors(seen, wanted, NAMES), [0, 3, 10], atol=1e-6)
    np.testing.assert_allclose(pose_errors(seen, wanted[:, ::-1], NAMES[::-1]), [0, 3, 10], atol=1e-6)
    assert pose_error(seen, wanted, NAMES).value == pytest.approx(13 / 3)


def test_errors_against_scipy():
    seen, wanted = drawn(40, 1), drawn(40, 2)[:, :2]
    asked = Rotation.from_euler("XYZ", np.column_stack([wanted, np.zeros(40)]))
    expected = np.degrees((asked * Rotation.from_euler("XYZ", seen).inv()).magnitude())
    np.testing.assert_allclose(pose_errors(rotations(seen), wanted, NAMES), expected, atol=1e-9)


def test_slopes_tell_following_from_ignoring():
    wanted, rng = drawn(2000)[:, :2], np.random.default_rng(3)
    noise = 0.05 * rng.standard_normal((2000, 2))
    seen = np.column_stack([0.8 * wanted[:, 0] + 0.1, np.zeros(2000), np.zeros(2000)])
    seen[:, :2] += noise
    slopes = pose_slopes(rotations(seen), wanted, NAMES)
    assert slopes["pitch"].value == pytest.approx(0.8, abs=0.03)
    assert slopes["pitch"].contains(0.8)
    assert slopes["yaw"].contains(0.0)
    assert slopes["pitch"].value == pytest.approx(np.polyfit(wanted[:, 0], seen[:, 0], 1)[0], abs=1e-6)
    spread = 0.05 / (wanted[:, 0].std() * np.sqrt(2000))  # the textbook standard error of a slope
    assert (slopes["pitch"].high - slopes["pitch"].low) / (2 * 1.96 * spread) == pytest.approx(1, abs=0.15)


def test_other_coordinates_have_no_slope():
    slopes = pose_slopes(rotations(drawn(20)), drawn(20)[:, :2], ("light", "yaw"))
    assert list(slopes) == ["yaw"]


def test_intervals_cover_the_mean():
    covered = 0
    for seed in range(60):
        wanted = drawn(80, seed)[:, :1]
        seen = np.column_stack(
            [np.zeros(80), wanted[:, 0] + np.radians(np.random.default_rng(seed).exponential(5, 80)), np.zeros(80)]
        )
        covered += pose_error(rotations(seen), wanted, ("yaw",), resamples=200, seed=seed).contains(5.0)
    assert 50 <= covered <= 60


def test_shapes_have_to_go_together():
    with pytest.raises(DataError, match=r"rotations must be \(N, 3, 3\), got \(2, 3\)"):
        pose_errors(np.zeros((2, 3)), np.zeros((2, 2)), NAMES)
    with pytest.raises(DataError, match="got 3 for 2"):
        pose_errors(rotations(drawn(2)), np.zeros((3, 2)), NAMES)
    with pytest.raises(DataError, match=r"must be \(B, 2\), got \(2, 3\)"):
        pose_errors(rotations(drawn(2)), np.zeros((2, 3)), NAMES)
    with pytest.raises(DataError, match=r"angles.*\(2, 2\).*\(2, 3\)"):
        pose_slopes(rotations(drawn(2)), np.zeros((2, 3)), NAMES)
    with pytest.raises(TooFewSamplesError):
        pose_slopes(rotations(drawn(1)), np.zeros((1, 2)), NAMES)
