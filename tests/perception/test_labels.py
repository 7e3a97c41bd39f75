import numpy as np
import pytest
import torch

from promptgen.errors import ConfigError
from promptgen.labels import (
    class_index,
    classes,
    feature_names,
    features,
    hard_labels,
    probabilities,
    target_shares,
)

ATTRIBUTES = {"hair": ("short", "long"), "age": ("young", "middle", "old")}


@pytest.fixture
def logits():
    rng = torch.Generator().manual_seed(0)
    return {name: torch.randn(50, len(labels), generator=rng) for name, labels in ATTRIBUTES.items()}


def test_classes_of_an_attribute_and_of_a_product():
    assert classes(ATTRIBUTES, "hair") == ("short", "long")
    assert classes(ATTRIBUTES, "hair x age")[:4] == ("short x young", "short x middle", "short x old", "long x young")
    assert class_index(ATTRIBUTES, "hair x age", "long x young") == 3
    assert feature_names(ATTRIBUTES, ["hair", "age"])[:3] == ("hair:short", "hair:long", "age:young")


def test_probabilities_of_a_product_are_the_outer_product(logits):
    table = probabilities(logits, "hair x age").reshape(50, 2, 3)
    torch.testing.assert_close(table.sum(dim=2), logits["hair"].softmax(dim=1))
    torch.testing.assert_close(table.sum(dim=1), logits["age"].softmax(dim=1))


def test_hard_labels_of_a_product_are_those_of_its_factors(logits):
    joint = hard_labels(logits, "hair x age")
    torch.testing.assert_close(joint, 3 * logits["hair"].argmax(dim=1) + logits["age"].argmax(dim=1))


def test_hard_features_are_one_hot_without_gradient(logits):
    hair = logits["hair"].requires_grad_()
    hard = features({**logits, "hair": hair}, ["hair", "hair x age"], "hard")
    assert hard.shape == (50, 8)
    assert not hard.requires_grad
    torch.testing.assert_close(hard[:, :2].argmax(dim=1), hair.argmax(dim=1))
    torch.testing.assert_close(hard.sum(dim=1), torch.full((50,), 2.0))
    assert set(hard.unique().tolist()) == {0.0, 1.0}


def test_soft_features_are_probabilities_side_by_side(logits):
    soft = features(logits, ["age", "hair"], "soft")
    torch.testing.assert_close(soft[:, :3], logits["age"].softmax(dim=1))
    torch.testing.assert_close(soft[:, 3:], logits["hair"].softmax(dim=1))


def test_target_is_uniform_or_in_the_order_of_the_classes():
    np.testing.assert_allclose(target_shares(("a", "b", "c")), 1 / 3)
    np.testing.assert_allclose(target_shares(("a", "b"), {"b": 0.8, "a": 0.2}), [0.2, 0.8])
    np.testing.assert_allclose(target_shares(("a", "b"), {"B": 0.8, "A": 0.2}), [0.2, 0.8])
    np.testing.assert_allclose(target_shares(("a", "A"), {"A": 0.8, "a": 0.2}), [0.2, 0.8])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: classes(ATTRIBUTES, "hiar"),
            "unknown attribute 'hiar', expected one of hair, age; did you mean 'hair'",
        ),
        (
            lambda: class_index(ATTRIBUTES, "age", "aged"),
            "unknown class of 'age' 'aged', expected one of young, middle, old",
        ),
        (lambda: target_shares(("a", "b"), {"a": 1.0, "c": 0.0}), "unknown class 'c', expected one of a, b"),
        (lambda: target_shares(("a", "b"), {"a": 1.0}), "no share for b"),
        (lambda: target_shares(("a", "A"), {"a": 0.5, "Ab": 0.5}), "unknown class 'Ab'"),
        (lambda: target_shares(("bc", "BC", "d"), {"Bc": 0.5, "d": 0.5}), "unknown class 'Bc'"),
        (lambda: target_shares(("a", "b"), {"a": 0.5, "A": 0.25, "b": 0.25}), "unknown class 'A'"),
        (lambda: target_shares(("a", "b"), {"a": 0.7, "b": 0.7}), "must sum to 1"),
        (lambda: target_shares(("a", "b"), {"a": 1.2, "b": -0.2}), "not be negative"),
    ],
)
def test_errors_name_what_is_known(call, message):
    with pytest.raises(ConfigError, match=message):
        call()
