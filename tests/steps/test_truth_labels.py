"""The classes of the truth: they are paired with the classifier's by their labels, never by their order."""

from typing import ClassVar

import pytest

from promptgen.flows.chained import ChainedGenerator
from promptgen.generators.base import truth_classes
from promptgen.world.generator import WorldGenerator
from promptgen.world.scene import ATTRIBUTES
from tests import tiny
from tests.flows.test_chained import make_flow
from tests.steps.projects import project_in, run_pass

WORDS = {"hair": ("short", "long"), "makeup": ("without", "with")}


class Named(tiny.TinyGenerator):
    """The tiny generator, which says what its true indices stand for."""

    def __init__(self, hair=WORDS["hair"]):
        super().__init__()
        self.attributes = WORDS | {"hair": tuple(hair)}


class Backwards(tiny.TinyClassifier):
    """The tiny classifier with its classes in the other order."""

    attributes: ClassVar = {name: labels[::-1] for name, labels in WORDS.items()}

    def __call__(self, image):
        return {name: logits.flip(1) for name, logits in super().__call__(image).items()}


def custom(name, **arguments):
    return {"type": "custom", "factory": f"tests.steps.test_truth_labels:{name}", "arguments": arguments}


@pytest.fixture
def first_pass(tmp_path):
    def of(generator):
        content = tiny.params() | {"generator": generator}
        content["debias"] |= {"classifier": custom("Backwards"), "judge": custom("Backwards", sharpness=3.0)}
        project = project_in(tmp_path, content)
        return run_pass(project, 0)["evaluate"]["result"]

    return of


def test_truth_is_paired_by_labels(first_pass):
    record = first_pass(custom("Named"))
    assert record["by"]["truth"]["shares"]["long"] == record["by"]["judge"]["shares"]["long"]
    assert record["by"]["truth"]["shares"]["long"]["value"] < 0.45  # by order it would be the share of short hair
    assert record["control"]["makeup.without.truth"] == record["control"]["makeup.without.judge"]


def test_truth_by_other_labels_is_left_out(first_pass):
    record = first_pass(custom("Named", hair=["bald", "long"]))
    assert set(record["by"]) == {"classifier", "judge"}
    assert "makeup.without.truth" in record["control"]


def test_a_chain_and_the_world_tell_the_classes():
    named = Named()
    assert truth_classes(ChainedGenerator(ChainedGenerator(named, make_flow()), make_flow())) == named.attributes
    assert WorldGenerator.attributes == ATTRIBUTES
