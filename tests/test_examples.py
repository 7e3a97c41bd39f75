"""The examples in the docstrings of the library run and print what they say, and the public API has one each."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

from promptgen.config.energies import ClassifierSpec
from promptgen.config.generators import StyleGAN2Spec
from promptgen.energies.base import Energy, WeightedSum
from promptgen.energies.classifier import ClassifierEnergy
from promptgen.energies.clip import ClipText
from promptgen.energies.compose import AnyOf, Not
from promptgen.energies.custom import CustomEnergy
from promptgen.energies.identity import IdentityEnergy
from promptgen.energies.moment import MomentEnergy
from promptgen.energies.pose import PoseEnergy
from promptgen.flows.chained import ChainedGenerator
from promptgen.flows.exact import correct
from promptgen.flows.flow import Flow
from promptgen.flows.sampling import draw, generate
from promptgen.flows.training import train_flow
from promptgen.generators.base import Generator
from promptgen.metrics.bias import measure_bias
from promptgen.metrics.correction import corrected_shares
from promptgen.metrics.distances import distance_interval
from promptgen.metrics.diversity import PairwiseDistance
from promptgen.metrics.precision_recall import precision_recall
from promptgen.metrics.quality import compare
from promptgen.metrics.shares import compare_shares, joint_table, share_estimates
from promptgen.model_files.cards import find_card
from promptgen.moments.ascent import MomentAscent
from promptgen.moments.multipliers import fit_moments
from promptgen.perception.base import Classifier, Embedder
from promptgen.tracking import Tracker

ROOT = Path(__file__).parents[1]
MODULES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in sorted((ROOT / "promptgen").rglob("*.py"))
    if path.name != "__main__.py"
]
PUBLIC = (
    *(Generator, Energy, Classifier, Embedder, Tracker),
    *(WeightedSum, AnyOf, Not, ClassifierEnergy, ClipText, CustomEnergy, IdentityEnergy, MomentEnergy, PoseEnergy),
    *(Flow, train_flow, ChainedGenerator, draw, generate, correct),
    *(fit_moments, MomentAscent),
    *(share_estimates, compare_shares, joint_table, distance_interval, measure_bias),
    *(corrected_shares, compare, precision_recall, PairwiseDistance),
    *(ClassifierSpec, StyleGAN2Spec, find_card),
)


def has_examples(module: str) -> bool:
    path = ROOT.joinpath(*module.split("."))
    return ">>> " in (path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text()


@pytest.mark.parametrize("module", [name for name in MODULES if has_examples(name)])
def test_examples_of_a_module_print_what_they_say(module):
    for test in doctest.DocTestFinder().find(importlib.import_module(module)):
        assert doctest.DocTestRunner().run(test).failed == 0, test.name


@pytest.mark.parametrize("item", PUBLIC, ids=lambda item: item.__name__)
def test_public_api_has_an_example(item):
    assert doctest.DocTestFinder(recurse=False).find(item)[0].examples, item
