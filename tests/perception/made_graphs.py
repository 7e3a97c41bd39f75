"""Graphs of TensorFlow.js, made of nodes and weights."""

import base64

import numpy as np
import torch

from promptgen.loading.tfjs import TFJSModel
from promptgen.perception import human
from promptgen.perception.tensorflow.graph import Graph

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
