"""Graphs of TensorFlow.js: each operation against numpy, gradients, and classifiers of made-up graphs."""

import itertools

import numpy as np
import pytest
import torch

from promptgen.errors import ModelFileError
from promptgen.loading.tfjs import read_tfjs
from promptgen.perception import human
from promptgen.perception.human import HumanEmotion, HumanFaceRes, load_emotion, load_faceres
from promptgen.perception.tensorflow.operations import OPERATIONS
from tests.loading.tfjs_files import entry, write
from tests.perception.made_graphs import SIDES, deep, graph, images, means, node, on_images


def windows(image, kernel, stride, same, value=0.0):
    """Yield row, column and window, (B, height, width, C), of each output, by the definition of TensorFlow."""
    pads = []
    for length, k, s in zip(image.shape[1:3], kernel, stride, strict=True):
        total = max((int(np.ceil(length / s)) - 1) * s + k - length, 0) if same else 0
        pads.append((total // 2, total - total // 2))
    padded = np.pad(image, ((0, 0), *pads, (0, 0)), constant_values=value)
    counts = [(length - k) // s + 1 for length, k, s in zip(padded.shape[1:3], kernel, stride, strict=True)]
    for row, column in itertools.product(*map(range, counts)):
        top, left = row * stride[0], column * stride[1]
        yield row, column, padded[:, top : top + kernel[0], left : left + kernel[1]]


def assembled(outputs):
    """Return the image, (B, H, W, C), of outputs (row, column, (B, C))."""
    outputs = list(outputs)
    rows, columns = (max(place) + 1 for place in zip(*(output[:2] for output in outputs), strict=True))
    image = np.zeros((len(outputs[0][2]), rows, columns, outputs[0][2].shape[1]))
    for row, column, value in outputs:
        image[:, row, column] = value
    return image


def convolved(op, image, kernel, stride=(1, 1), same=True):
    """Return the result of a convolution, by its definition."""
    found = windows(image, kernel.shape[:2], stride, same)
    if op == "DepthwiseConv2dNative":
        products = ((row, column, np.einsum("bhwc,hwcm->bcm", part, kernel)) for row, column, part in found)
        return assembled((row, column, product.reshape(len(product), -1)) for row, column, product in products)
    return assembled((row, column, np.einsum("bhwi,hwio->bo", part, kernel)) for row, column, part in found)


def evaluated(nodes, weights, channels=3):
    """Return the output of a graph of nodes for the images."""
    with torch.no_grad():
        return graph(nodes, weights, 4, channels)(torch.from_numpy(images(channels)))["y"].numpy()


each_window = pytest.mark.parametrize(
    ("padding", "stride", "kernel"),
    [("SAME", (1, 1), (3, 3)), ("SAME", (2, 2), (3, 3)), ("SAME", (2, 1), (2, 3)), ("VALID", (2, 2), (3, 2))],
)


@each_window
@pytest.mark.parametrize("fused", [None, ["BiasAdd"], ["BiasAdd", "Relu"]])
def test_convolutions(padding, stride, kernel, fused):
    rng = np.random.default_rng(1)
    weight = rng.standard_normal((*kernel, 3, 4)).astype(np.float32)
    bias = rng.standard_normal(4).astype(np.float32)
    op, inputs = ("_FusedConv2D", ["w", "b"]) if fused else ("Conv2D", ["w"])
    attributes = on_images(padding, stride, dilations=(1, 1, 1, 1), **({"fused_ops": fused} if fused else {}))
    nodes, weights = means([node("value", op, "x", *inputs, **attributes)], {"w": weight, "b": bias})
    expected = convolved(op, images(), weight, stride, padding == "SAME")
    expected = expected + (bias if fused else 0)
    expected = np.maximum(expected, 0) if fused and "Relu" in fused else expected
    np.testing.assert_allclose(evaluated(nodes, weights), expected.mean((1, 2)), rtol=1e-4, atol=1e-5)


@each_window
def test_convolutions_of_each_channel(padding, stride, kernel):
    weight = np.random.default_rng(1).standard_normal((*kernel, 2, 2)).astype(np.float32)
    layer = node("value", "DepthwiseConv2dNative", "x", "w", **on_images(padding, stride))
    nodes, weights = means([layer], {"w": weight})
    expected = convolved("DepthwiseConv2dNative", images(2), weight, stride, padding == "SAME")
    np.testing.assert_allclose(evaluated(nodes, weights, 2), expected.mean((1, 2)), rtol=1e-4, atol=1e-5)


@each_window
def test_largest_values(padding, stride, kernel):
    nodes, weights = means([node("value", "MaxPool", "x", **on_images(padding, stride, ksize=(1, *kernel, 1)))])
    found = windows(images(4), kernel, stride, padding == "SAME", -np.inf)
    expected = assembled((row, column, part.max((1, 2))) for row, column, part in found)
    np.testing.assert_allclose(evaluated(nodes, weights, 4), expected.mean((1, 2)), rtol=1e-5, atol=1e-6)


POINTWISE = {
    "Identity": lambda x, c: x,
    "Relu": lambda x, c: np.maximum(x, 0),
    "Sigmoid": lambda x, c: 1 / (1 + np.exp(-x)),
    "Softmax": lambda x, c: np.exp(x) / np.exp(x).sum(-1, keepdims=True),
    "Add": lambda x, c: x + c,
    "AddV2": lambda x, c: x + c,
    "Mul": lambda x, c: x * c,
    "Minimum": np.minimum,
    "Maximum": np.maximum,
}


@pytest.mark.parametrize("op", POINTWISE)
def test_functions_of_each_number(op):
    constant = np.float32([0.5, -0.5, 0.1, 2.0])
    inputs = ["x", "c:0"][: OPERATIONS[op].values]
    nodes, weights = means([node("value", op, *inputs)], {"c": constant})
    expected = POINTWISE[op](images(4), constant).mean((1, 2))
    np.testing.assert_allclose(evaluated(nodes, weights, 4), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("fused", [["BiasAdd"], ["BiasAdd", "Relu"]])
def test_products_with_a_matrix(fused):
    rng = np.random.default_rng(1)
    matrix, bias = rng.standard_normal((3, 4)).astype(np.float32), np.float32([1, -1, 0.5, 0])
    nodes = [
        node("mean", "Mean", "x", "axes", keep_dims=False),
        node("y", "_FusedMatMul", "mean", "m", "b", fused_ops=fused, transpose_a=False, transpose_b=False),
    ]
    expected = images().mean((1, 2)) @ matrix + bias
    expected = np.maximum(expected, 0) if "Relu" in fused else expected
    found = evaluated(nodes, {"axes": np.int32([1, 2]), "m": matrix, "b": bias})
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_the_tests_cover_every_operation():
    tested = {"Conv2D", "_FusedConv2D", "DepthwiseConv2dNative", "MaxPool", "_FusedMatMul", "Mean"}
    assert set(OPERATIONS) == tested | set(POINTWISE)


def test_gradients():
    network = graph(*deep(), width=4).double()
    image = torch.from_numpy(images()).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda image: network(image)["y"], image)


def test_what_is_not_needed_is_neither_kept_nor_built():
    nodes, weights = deep()
    network = graph([*nodes, node("odd", "NoSuchOperation", "x")], weights, 4)
    assert [step.name for step in network.steps if "odd" in step.name] == []
    read = [name for step in network.steps for name in step.last_read]
    assert len(set(read)) == len(read)
    assert {"x", "c", "left", "right"} <= set(read)
    assert not network.train().training
    assert not list(network.parameters())


AFTER = {
    "mul": lambda value, c: value * c["mul"],
    "add": lambda value, c: value + c["add"],
    "relu": lambda value, c: np.maximum(value, 0),
    "low": lambda value, c: np.maximum(value, c["low"]),
    "high": lambda value, c: np.minimum(value, c["high"]),
    "all": lambda value, c: value * c["all"],
}
OPS = {"mul": "Mul", "add": "AddV2", "relu": "Relu", "low": "Maximum", "high": "Minimum", "all": "Mul"}


@pytest.mark.parametrize(
    ("chain", "left"),
    [
        (["mul", "add", "relu", "high", "low"], 0),
        (["add", "mul", "add", "mul"], 0),
        (["high", "low"], 0),
        (["low", "high", "relu"], 0),
        (["relu", "mul"], 1),  # what follows a bound is not part of the convolution any more
        (["mul", "high", "add", "relu"], 2),
        (["all"], 1),  # one factor for each pixel
    ],
)
@pytest.mark.parametrize("op", ["Conv2D", "_FusedConv2D", "DepthwiseConv2dNative"])
def test_what_follows_a_convolution_becomes_part_of_it(op, chain, left):
    rng = np.random.default_rng(3)
    constants = {name: rng.standard_normal(4).astype(np.float32) for name in ("mul", "add", "b")}
    constants |= {"low": np.float32(-0.4), "high": np.float32(0.3)}
    constants["all"] = rng.standard_normal((1, *SIDES, 1)).astype(np.float32)
    kernel = rng.standard_normal((3, 3, 4, 1 if op[0] == "D" else 4)).astype(np.float32)
    inputs = ["w", "b"] if op[0] == "_" else ["w"]
    attributes = on_images(fused_ops=["BiasAdd"]) if op[0] == "_" else on_images()
    nodes = [node("n0", op, "x", *inputs, **attributes)]
    for index, name in enumerate(chain):
        operands = [f"n{index}"] if name == "relu" else [f"n{index}", name][:: -1 if index % 2 else 1]
        nodes.append(node(f"n{index + 1}", OPS[name], *operands))
    nodes, weights = means([*nodes, node("value", "Sigmoid", f"n{len(chain)}")], {"w": kernel, **constants})
    network = graph(nodes, weights, 4, channels=4)
    constants_left = {"mul", "add", "low", "high", "all"} & {step.name for step in network.steps}
    assert len(network.steps) == 1 + left + len(constants_left) + 2
    expected = convolved(op, images(4), kernel) + (constants["b"] if op[0] == "_" else 0)
    for name in chain:
        expected = AFTER[name](expected, constants)
    with torch.no_grad():
        whole = network(torch.from_numpy(images(4)))["y"]
    np.testing.assert_allclose(whole, (1 / (1 + np.exp(-expected))).mean((1, 2)), rtol=1e-4, atol=1e-5)


def test_the_batch_is_free():
    network = graph(*deep(), width=4)
    image = torch.from_numpy(images(n=5))
    torch.testing.assert_close(network(image)["y"][:1], network(image[:1])["y"])


def test_a_long_chain_is_no_deep_recursion():
    chain = [node(f"n{i}", "Relu", "x" if i == 0 else f"n{i - 1}") for i in range(3000)]
    nodes, weights = means([*chain, node("value", "Identity", "n2999")])
    expected = np.maximum(images(4), 0).mean((1, 2))
    np.testing.assert_allclose(evaluated(nodes, weights, 4), expected, rtol=1e-5, atol=1e-6)


def test_classifiers_of_made_up_graphs(tmp_path):
    """What surrounds the graphs: ranges of the input, order of labels, and merging of ages, on files."""
    rng = np.random.default_rng(0)
    floats = {"gender": rng.standard_normal((3, 1)), "age": rng.standard_normal((3, 100)), "wide": np.eye(3, 1024)}
    weights = {name: value.astype(np.float32) for name, value in floats.items()}
    weights |= {f"{name}/bias": np.zeros(value.shape[1], np.float32) for name, value in weights.items()}
    names = {"gender": human.GENDER, "age": human.AGE, "wide": "embedding"}
    products = [
        node(output, "_FusedMatMul", human.EMBEDDING[:-5], name, f"{name}/bias", fused_ops=["BiasAdd"])
        for name, output in names.items()
    ]
    nodes = [
        node("input_1", "Placeholder"),
        node("axes", "Const"),
        *(node(name, "Const") for name in weights),
        node(human.EMBEDDING[:-5], "Mean", "input_1", "axes"),
        *products,
        node(human.EMBEDDING, "Identity", "embedding"),
    ]
    entries = [entry(name, value) for name, value in weights.items()]
    model, (shard,) = write(
        tmp_path, [*entries, entry("axes", np.int32([1, 2]), dtype="int32")], topology={"node": nodes}
    )
    faceres = load_faceres(model, shard, ages=[30])
    assert isinstance(faceres, HumanFaceRes)
    colour = torch.tensor([[0.2, 0.5, 0.9], [1.0, 0.0, 0.3]])
    image = colour[:, :, None, None].expand(-1, -1, 50, 70)
    mean = 255 * colour.double().numpy()
    logits = faceres(image)
    assert list(logits) == ["gender", "age"]
    assert faceres.attributes == {"gender": ("female", "male"), "age": ("0-29", "30+")}
    np.testing.assert_allclose(faceres.features(image)[:, :3], mean, rtol=1e-5)
    np.testing.assert_allclose(np.diff(logits["gender"]), mean @ weights["gender"], rtol=1e-4)
    ages = torch.from_numpy(mean @ weights["age"]).softmax(1)
    torch.testing.assert_close(logits["age"].softmax(1).double()[:, 0], ages[:, :30].sum(1), rtol=1e-3, atol=1e-6)
    with pytest.raises(ModelFileError, match="it has no node StatefulPartitionedCall"):
        load_emotion(model, shard)

    row = np.arange(7, dtype=np.float32)[None]
    nodes = [
        node("input_1", "Placeholder"),
        *(node(name, "Const") for name in ("axes", "row", "zero")),
        node("mean", "Mean", "input_1", "axes"),
        node(human.EMOTION, "_FusedMatMul", "mean", "row", "zero", fused_ops=["BiasAdd"]),
    ]
    entries = [entry("row", row), entry("zero", np.zeros(7)), entry("axes", np.int32([1, 2]), dtype="int32")]
    model, (shard,) = write(tmp_path, entries, topology={"node": nodes})
    emotion = load_emotion(model, shard)
    assert isinstance(emotion, HumanEmotion)
    grey = 2 * (colour @ torch.tensor([0.2989, 0.587, 0.114])) - 1
    torch.testing.assert_close(emotion(image)["expression"], grey[:, None] * torch.arange(7.0), rtol=1e-4, atol=1e-4)
    assert read_tfjs(model, [shard]).topology == {"node": nodes}
