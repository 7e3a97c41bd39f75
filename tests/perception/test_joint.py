"""Several classifiers as one: what it reads, and that a product runs over two of them."""

from __future__ import annotations

import pytest
import torch

from promptgen.config.build import build_classifier
from promptgen.config.models import JointModel
from promptgen.errors import ConfigError
from promptgen.labels import classes, probabilities
from promptgen.perception.joint import JointClassifier
from promptgen.strict import validate


class Fixed(torch.nn.Module):
    """Reads one attribute off one channel."""

    def __init__(self, name: str, channel: int) -> None:
        super().__init__()
        self.name, self.channel = name, channel
        self.attributes = {name: ("no", "yes")}

    def forward(self, image):
        mean = image[:, self.channel].mean(dim=(1, 2))
        return {self.name: torch.stack([-mean, mean], dim=1)}


def test_logits_are_those_of_the_parts():
    parts = [Fixed("red", 0), Fixed("green", 1)]
    joint = JointClassifier(parts)
    image = torch.rand(4, 3, 2, 2, generator=torch.Generator().manual_seed(1)).requires_grad_()
    assert joint.attributes == {"red": ("no", "yes"), "green": ("no", "yes")}
    for part in parts:
        torch.testing.assert_close(joint(image)[part.name], part(image)[part.name])
    table = probabilities(joint(image), "red x green")
    assert classes(joint.attributes, "red x green") == ("no x no", "no x yes", "yes x no", "yes x yes")
    torch.testing.assert_close(table.sum(dim=1), torch.ones(4))
    table[:, 3].sum().backward()
    assert bool((image.grad[:, :2] != 0).all())


def test_one_attribute_has_one_reader():
    with pytest.raises(ConfigError, match=r"\bred\b"):
        JointClassifier([Fixed("red", 0), Fixed("red", 1)])


def test_it_is_named_in_params(tmp_path):
    tiny = {"type": "custom", "factory": "tests.tiny:TinyClassifier", "arguments": {}}
    words = {"type": "custom", "factory": "tests.perception.test_joint:Fixed", "arguments": {"name": "x", "channel": 2}}
    spec = validate(JointModel, {"type": "joint", "classifiers": [tiny, words]})
    assert spec.custom_code() == ["tests.tiny:TinyClassifier", "tests.perception.test_joint:Fixed"]
    assert set(build_classifier(spec, tmp_path).attributes) == {"hair", "makeup", "x"}


def test_one_classifier_is_not_several():
    with pytest.raises(ConfigError, match="classifiers: "):
        validate(JointModel, {"type": "joint", "classifiers": ["fairface"]})
