"""Graphs of TensorFlow.js: each operation against numpy, gradients, and hostile graphs refused in one line."""

import base64
import itertools

import numpy as np
import pytest
import torch

from promptgen.errors import ModelFileError
from promptgen.loading.tfjs import TFJSModel, read_tfjs
from promptgen.perception import human
from promptgen.perception.human import HumanEmotion, HumanFaceRes, load_emotion, load_faceres
from promptgen.perception.tensorflow.graph import MAX_NODES, Graph
from promptgen.perception.tensorflow.operations import OPERATIONS
from tests.loading.tfjs_files import entry, write

SIDES = (7, 6)
"""Height and width of the images, odd and even."""


def encoded(text):
    return base64.b64encode(text.encode()).decode()


def node(name, op, *inputs, **attributes):
    """Return a node; attributes are given as words, numbers along the four dimensions, flags, or what is fused."""
    attr = {}
    for key, value in attributes.items():
        if isinstance(value, str):
            attr[key] = {"s": encoded(value)}
        elif isinstance(value, bool):
            attr[key] = {"b": value}
        elif key == "fused_ops":
            attr[key] = {"list": {"s": [encoded(word) for word in value]}}
        else:
            attr[key] = {"list": {"i": [str(number) for number in value]}}
    return {"name": name, "op": op, "input": list(inputs), "attr": attr}


def on_images(padding="SAME", stride=(1, 1), **attributes):
    return {"padding": padding, "strides": (1, *stride, 1), "data_format": "NHWC"} | attributes


def graph(nodes, weights, width, channels=3, output="y"):
    """Return the graph of nodes after an input ``x``, whose output is (B, width); `weights` by name."""
    weights = dict(weights)
    whole = [node("x", "Placeholder"), *(node(name, "Const") for name in weights), *nodes]
    tensors = {name: torch.from_numpy(np.asarray(value)) for name, value in weights.items()}
    return Graph(TFJSModel(tensors, {"node": whole}), (*SIDES, channels), {output: width}, "model.json")


def means(nodes, weights=()):
    """Return the graph of nodes whose result ``value`` is averaged along the image, since outputs are (B, width)."""
    return [*nodes, node("y", "Mean", "value", "axes")], {**dict(weights), "axes": np.int32([1, 2])}


def images(channels=3, n=2):
    return np.random.default_rng(0).standard_normal((n, *SIDES, channels)).astype(np.float32)


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


def deep():
    """Return nodes and weights of a network with a branch, and operations of every kind."""
    rng = np.random.default_rng(2)
    shapes = {"w": (3, 3, 3, 4), "d": (3, 3, 4, 1), "b": (4,), "m": (4, 4), "scale": (4,)}
    weights = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    nodes = [
        node("a", "_FusedConv2D", "x", "w", "b", **on_images(stride=(2, 2), fused_ops=["BiasAdd", "Relu"])),
        node("c", "Minimum", "a", "six"),
        node("left", "DepthwiseConv2dNative", "c", "d", **on_images()),
        node("right", "MaxPool", "c", **on_images(ksize=(1, 3, 3, 1))),
        node("scaled", "Mul", "right", "scale"),
        node("sum", "AddV2", "left", "scaled"),
        node("mean", "Mean", "sum", "axes"),
        node("logits", "_FusedMatMul", "mean", "m", "b", fused_ops=["BiasAdd"]),
        node("y", "Sigmoid", "logits"),
    ]
    return nodes, weights | {"axes": np.int32([1, 2]), "six": np.float32(6)}


def emotion_graph():
    """Return a graph that takes the place of Human's `emotion`, with operations of every kind."""
    nodes, weights = deep()
    weights |= {"w": weights["w"][:, :, :1], "last": np.ones((4, 7), np.float32), "zero": np.zeros(7, np.float32)}
    nodes.append(node(human.EMOTION, "_FusedMatMul", "y", "last", "zero", fused_ops=["BiasAdd"]))
    return graph(nodes, weights, 7, channels=1, output=human.EMOTION)


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
        (["relu", "mul"], 1),  # what follows a bound is no part of the convolution any more
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
        ([node("y", "Add", "x", "z"), node("z", "Const")], {}, "z reads z, which is no weight"),
        ([node("y", "Relu", "x")], {}, r"y has the shape \(1, 7, 6, 3\), expected \(1, 4\)"),
        ([node("y", "Conv2D", "x", "x", **on_images())], {}, "y reads x, which is no weight"),
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
