"""Boxes of named coordinates: what is drawn lies in them, their columns keep their order, bad ranges are refused."""

import pytest
import torch

from promptgen.conditions import Condition, split_context
from promptgen.errors import DataError
from promptgen.seeding import stream

POSE = Condition({"pitch": (-0.1, 0.2), "yaw": (0.0, 0.4)})


def test_draws_are_uniform_on_the_box_and_follow_the_stream():
    drawn = POSE.sample(20_000, stream(0, "c"))
    assert drawn.dtype == torch.float64
    assert torch.equal(drawn, POSE.sample(20_000, stream(0, "c")))
    low, high = torch.tensor([-0.1, 0.0]), torch.tensor([0.2, 0.4])
    assert bool(((drawn >= low) & (drawn <= high)).all())
    for column, expected in zip(drawn.T, (torch.linspace(-0.1, 0.2, 9), torch.linspace(0.0, 0.4, 9)), strict=True):
        found = column.quantile(torch.linspace(0, 1, 9, dtype=torch.float64))
        torch.testing.assert_close(found, expected.double(), atol=0.01, rtol=0)
    assert abs(float(torch.corrcoef(drawn.T)[0, 1])) < 0.03


def test_a_sweep_moves_one_coordinate_at_a_time():
    expected = [[-0.1, 0], [0.05, 0], [0.2, 0], [0, 0], [0, 0.2], [0, 0.4]]
    torch.testing.assert_close(POSE.sweep(3), torch.tensor(expected, dtype=torch.float64))


def test_given_values_replace_drawn_ones():
    drawn = POSE.sample(5, stream(0, "c"))
    fixed = POSE.fix(drawn, {"yaw": 0.3})
    assert torch.equal(fixed[:, 0], drawn[:, 0])
    assert fixed[:, 1].tolist() == [0.3] * 5
    with pytest.raises(DataError, match="there is no condition roll, expected one of pitch, yaw"):
        POSE.fix(drawn, {"roll": 0.1})


def test_boxes_join_in_order():
    joined = POSE + Condition({"light": (-1.0, 1.0)})
    assert joined.names == ("pitch", "yaw", "light")
    assert len(joined) == 3
    with pytest.raises(DataError, match="two conditions named yaw"):
        POSE + Condition({"yaw": (-1.0, 1.0)})


def test_no_coordinates_are_no_condition():
    assert not Condition()
    assert Condition().sample(3, stream(0, "c")).shape == (3, 0)
    assert Condition().sweep(3).shape == (0, 0)


@pytest.mark.parametrize(
    ("ends", "message"),
    [
        ((0.3, -0.3), r"the range of yaw must rise, got 0.3 to -0.3: give its lower end first"),
        ((0.0, 0.0), "must rise"),
        ((0.1, 0.3), r"the range of yaw must contain 0, the null condition, got 0.1 to 0.3"),
        ((-0.3, -0.1), "must contain 0"),
        ((float("nan"), 1.0), "must rise"),
    ],
)
def test_bad_ranges_are_refused(ends, message):
    with pytest.raises(DataError, match=message):
        Condition({"yaw": ends})


def test_conditions_are_split_between_what_is_below_and_the_flow():
    context = torch.arange(6.0).reshape(2, 3)
    below, own = split_context(context, 2)
    assert torch.equal(below, context[:, :1])
    assert torch.equal(own, context[:, 1:])
    assert split_context(context, 3)[0] is None
    assert split_context(context, 0)[1] is None
    assert split_context(None, 2) == (None, None)
