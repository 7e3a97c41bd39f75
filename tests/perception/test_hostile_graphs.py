"""Hostile graphs of TensorFlow.js, refused in one line."""

import numpy as np
import pytest

from promptgen.errors import ModelFileError
from promptgen.loading.tfjs import TFJSModel
from promptgen.perception.tensorflow.graph import MAX_NODES, Graph
from tests.perception.made_graphs import graph, means, node, on_images

KERNEL = {"w": np.zeros((3, 3, 3, 4), np.float32)}
WIDE = {"tall": np.zeros((1, 5000, 1, 1), np.float32), "broad": np.zeros((1, 1, 5000, 1), np.float32)}


def convolution(**changes):
    return means([node("value", "Conv2D", "x", "w", **on_images() | changes)], KERNEL)


@pytest.mark.parametrize(
    ("nodes", "weights", "match"),
    [
        ([], {}, "it has no node y"),
        ([node("y", "PyFunc", "x")], {}, "the operation PyFunc of y is unknown; known are Identity"),
        ([node("y", "Relu", "z")], {}, "it has no node z"),
        ([node("y", "Relu", "^x")], {}, "it has no node"),
        ([node("y", "Relu", "x:1")], {}, "it has no node x:1"),
        ([node("y", "Relu")], {}, "y has 0 inputs, expected 1 to 1"),
        ([node("y", "Add", "x")], {}, "y has 1 inputs, expected 2 to 2"),
        ([node("y", "Relu", "x", "x")], {}, "y has 2 inputs"),
        ([node("y", "Relu", "z"), node("z", "Relu", "y")], {}, "cycle"),
        ([node("y", "Relu", "y")], {}, "cycle"),
        ([node("y", "Relu", "x"), node("y", "Relu", "x")], {}, "two of its nodes have the same name"),
        ([node("y", "Add", "x", "z"), node("z", "Placeholder")], {}, "the inputs .*, expected one"),
        ([node("y", "Relu", "c")], {"c": np.zeros((1, 4), np.float32)}, "the inputs none, expected one"),
        ([node("y", "Add", "x", "z"), node("z", "Const")], {}, "z reads z, which is not a weight"),
        ([node("y", "Relu", "x")], {}, r"y has the shape \(1, 7, 6, 3\), expected \(1, 4\)"),
        ([node("y", "Conv2D", "x", "x", **on_images())], {}, "y reads x, which is not a weight"),
        ([node("y", "Conv2D", "x", "w", **on_images())], {"w": np.zeros((3, 3), np.float32)}, "too large or not"),
        ([node("y", "Mean", "x", "c")], {"c": np.int32([0, 1])}, "not whole numbers from 1 on"),
        ([node("y", "Mean", "x", "c")], {"c": np.int32([-4])}, "not whole numbers from 1 on"),
        ([node("y", "Mean", "x", "c")], {"c": np.float32([1])}, "not whole numbers from 1 on"),
        ([node("y", "Mean", "x", "c")], {"c": np.int32([9])}, "."),
        ([node("y", "Mul", "x", "c")], {"c": np.int32([1])}, "the weight c of Const has whole numbers"),
        ([node("y", "Conv2D", "x", "w", **on_images())],
         {"w": np.zeros((3, 3, 3, 4), np.int32)}, "the weight w of Conv2D has whole numbers"),
        ([node("y", "_FusedMatMul", "x", "w", "b", fused_ops=["BiasAdd"])],
         {"w": np.zeros((3, 4), np.float32), "b": np.zeros(4, np.int32)}, "the weight b of _FusedMatMul has whole num"),
        ([node("s", "Add", "x", "tall"), node("y", "Add", "s", "broad")], WIDE, "."),
        ([node("s", "Add", "tall", "broad"), node("m", "Mean", "s", "a"), node("y", "Add", "x", "m")],
         WIDE | {"a": np.int32([1])}, "s would have 25000000 numbers for one image"),
        ([node("y", "Conv2D", "x", "w", **on_images())],
         {"w": np.zeros((17, 1, 3, 4), np.float32)}, "too large or not"),
        ([node("y", "Add", "n", "n"), node("n", "Conv2D", "x", "w", **on_images())],
         {"w": np.zeros((1, 1, 3, 400_000), np.float32)}, "n would have 16800000 numbers"),
        ([node("y", "_FusedMatMul", "x", "w", "w", fused_ops=["BiasAdd"])],
         {"w": np.zeros((5, 3, 4), np.float32)}, "a product with 3 dimensions"),
        ([node("y", "_FusedMatMul", "x", "w", "w", fused_ops=["BiasAdd"])],
         {"w": np.zeros((3, 400_000), np.float32)}, "y would have 16800000 numbers"),
        (*convolution(dilations=(1, 10**9, 10**9, 1)), "dilations .* are not from 1 to 16"),
        (*convolution(dilations=(1, 2, 2, 1)), "has dilations"),
        (*convolution(data_format="NCHW"), "has dilations, or another padding or layout"),
        (*convolution(padding="EXPLICIT"), "has dilations, or another padding or layout"),
        (*convolution(padding=(1, 2, 3, 4)), "the attribute padding of value is missing or of another type"),
        (*convolution(strides=(1, 0, 0, 1)), "strides .* are not from 1 to 16"),
        (*convolution(strides=(1, 1 << 40, 1, 1)), "strides .* are not from 1 to 16"),
        (*convolution(strides=(2, 1, 1, 1)), "along images alone"),
        (*convolution(strides=(1, 1)), "are 2 numbers, expected 4"),
        (*convolution(fused_ops=["Elu"]), "ends in Elu, expected BiasAdd"),
        ([node("y", "_FusedMatMul", "x", "w", "w", transpose_b=True)], KERNEL, "is transposed"),
        ([node("y", "MaxPool", "x", **on_images(ksize=(1, 10**6, 1, 1)))], {}, "ksize .* are not from 1 to 16"),
        ([{"name": "y"}], {}, "op is missing"),
        ([{"name": 3, "op": "Relu"}], {}, "name: "),
        ([{"name": "y", "op": "Relu", "input": "x"}], {}, "input: "),
        ([node("y", "Conv2D", "x", "w") | {"attr": {"strides": 3}}], KERNEL, "the attribute strides of y is missing"),
        ([{"name": "y", "op": "Conv2D", "input": ["x", "w"], "attr": []}], KERNEL, "attr: "),
        ([node(f"n{i}", "Relu", "x") for i in range(MAX_NODES)], {}, "node: .*at most 5000"),
    ],
)  # fmt: skip
def test_hostile_graphs(nodes, weights, match):
    with pytest.raises(ModelFileError, match=match) as caught:
        graph(nodes, weights, 4)
    message = str(caught.value)
    assert message.startswith("model.json: expected a graph of TensorFlow.js")
    assert "\n" not in message
    assert len(message) < 600


@pytest.mark.parametrize("topology", [None, 3, [], {}, {"node": []}, {"node": 3}, {"model_config": {}}])
def test_files_without_a_graph(topology):
    with pytest.raises(ModelFileError, match=r"model\.json: expected a graph"):
        Graph(TFJSModel({}, topology), (8, 8, 3), {"y": 1}, "model.json")
