"""The measurement beside SD-Turbo, tried with tiny networks."""

import re

import pytest

pytest.importorskip("diffusers")

from benchmarks import turbo
from promptgen.model_files.cards import Cost


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # diffusers and transformers warn of their own deprecations
def test_an_image_of_a_pipeline_is_measured():
    image, dim = turbo.cost_of_an_image("tiny")
    assert dim == 4 * 16 * 16
    assert Cost.model_validate(image["cost"]).gmac > 0
    assert image["measured"]["backward_seconds"] > image["measured"]["forward_seconds"] > 0


@pytest.mark.slow
@pytest.mark.usefixtures("fewer_steps")
def test_a_training_is_measured_against_an_image():
    training, step = turbo.cost_of_training(64, 512, 1.0)
    dim, units, _, images = map(float, re.findall(r"\d+(?:\.\d+)?", training)[:4])
    assert dim == 64
    assert 256 < images < units <= 512
    milliseconds, percent = map(float, re.findall(r"(\d+\.\d+)(?: ms|%)", step))
    assert percent == pytest.approx(milliseconds / 10, abs=0.01)


@pytest.mark.slow
@pytest.mark.usefixtures("fewer_steps")
def test_the_descent_whose_memory_is_measured_trains_a_flow():
    assert turbo.descent_of(64)() is None
