"""Cards of the user's own whose files or arguments do not fit their type: one line that names what is wrong."""

from __future__ import annotations

import pytest
import yaml

from promptgen.config.build import load_model, random_model
from promptgen.config.params import Params
from promptgen.errors import ConfigError
from promptgen.experiments.plan import plan_of
from promptgen.model_files.cards import find_card
from promptgen.strict import validate
from steps import fetch
from tests import tiny


def models_with(folder, **card):
    file = {"file": "x.pt", "urls": ["package:world/weights/world-judge.safetensors"]}
    content = {"kind": "classifier", "type": "celeba", "licence": "CC0", "files": [file], **card}
    (folder / "cards.yaml").write_text(yaml.safe_dump({"mine": content}))
    return folder / "models"


@pytest.mark.parametrize(
    "text", ["x", "1", "[]", "[a, b]", "1: {}", "mine: []", "mine: {files: {}}", "mine: {type: 1}"]
)
def test_what_holds_no_cards_is_refused(tmp_path, text):
    (tmp_path / "cards.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"cards.yaml: (expected cards by name|card mine: )"):
        find_card("mine", tmp_path / "models")


@pytest.mark.parametrize(
    ("card", "message"),
    [
        ({"type": "nonsense"}, "type 'nonsense', expected one of stylegan2"),
        ({"arguments": {}}, "missing a required argument: 'attribute'"),
        ({"arguments": {"attribute": "smile", "lables": ["a", "b"]}}, "unexpected keyword argument 'lables'"),
        ({"arguments": {"attribute": 3}}, "attribute: Input should be a valid string, got '3'"),
        ({"arguments": {"attribute": "smile", "labels": "ab"}}, "labels: .*got 'ab'"),
        ({"arguments": {"attribute": "smile", "labels": 2}}, "labels: .*got '2'"),
        ({"arguments": {"attribute": "smile", "labels": [1, 2]}}, "labels: .*got '1'"),
        ({"arguments": {"attribute": "smile", "architecture": "vgg"}}, "architecture: Input should be 'resnet"),
        ({"arguments": {"attribute": "smile", "hidden": [1]}}, "hidden: .*got "),
        ({"arguments": {"attribute": "smile", "hidden": -1}}, "do not fit its type, or memory does not suffice: "),
        ({"arguments": {"attribute": "smile", "hidden": 10**15}}, "do not fit its type, or memory does not suffice: "),
        ({"arguments": {"card": 1, "name": 2, "function": 3}}, "missing a required argument|unexpected keyword"),
        ({"type": "biggan", "kind": "generator", "arguments": {"size": [128]}}, "size: .*got "),
        ({"type": "stylegan2", "kind": "generator", "arguments": {"size": "big"}}, "size: .*got 'big'"),
    ],
)
def test_wrong_arguments_of_a_card_are_named(tmp_path, card, message):
    models = models_with(tmp_path, **card)
    with pytest.raises(ConfigError, match=message):
        random_model("mine", models, card.get("kind", "classifier"))


def test_a_card_with_too_many_files_is_told(tmp_path):
    file = {"urls": ["package:world/weights/world-judge.safetensors"]}
    models = models_with(tmp_path, files=[{"file": "a", **file}, {"file": "b", **file}, {"file": "c", **file}])
    fetch.run("mine", models)
    with pytest.raises(ConfigError, match="the files or arguments on the card of mine do not fit its type"):
        load_model("mine", models, "classifier")


@pytest.mark.parametrize("arguments", [{}, {"size": [128]}, {"size": "128"}])
def test_a_plan_tells_wrong_arguments(tmp_path, arguments):
    models = models_with(tmp_path, kind="generator", type="biggan", arguments=arguments)
    generator = {"type": "biggan", "model": "mine", "truncation": 1.0, "weights": "random"}
    params = validate(Params, tiny.params() | {"generator": generator})
    with pytest.raises(ConfigError, match="BigGAN-deep was published for the sizes"):
        plan_of(params, models)
