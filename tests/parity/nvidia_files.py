"""Pickles of NVIDIA's generators, written from tensors and settings as the publisher's own code writes them."""

import math
import pickle
import re
import sys
import types
from collections import OrderedDict

import numpy as np
import torch

from tests.parity.persistent import EasyDict, Persistent, module_tree, publishers_modules

GAIN = math.sqrt(2)


def write_pickle(path, generator, protocol=4, **extra):
    """Write a file with a generator under `G_ema`, and another object under `D`; return `path`."""
    other = Persistent("Discriminator", {"_parameters": {}, "_buffers": {}, "_modules": {}, "img_resolution": 8})
    content = {"G": None, "D": other, "G_ema": generator, "training_set_kwargs": None, "augment_pipe": None} | extra
    with publishers_modules(), path.open("wb") as file:
        pickle.dump(content, file, protocol=protocol)
    return path


def walk(module, name=""):
    """Yield a tree of modules with their dotted names."""
    yield name, module
    for child, below in module.state["_modules"].items():
        if below is not None:
            yield from walk(below, f"{name}.{child}".lstrip("."))


def shape_of(module):
    return module.state["_parameters"]["weight"].shape


def fully_connected(name, module):
    """Tell a layer of a mapping network, or an affine one, what it computes."""
    mapped = re.fullmatch(r"mapping\.fc\d+", name)
    rate = 0.01 if mapped else 1.0
    gain = np.float64(rate / math.sqrt(shape_of(module)[1]))
    module.class_name = "FullyConnectedLayer"
    module.state |= {
        "activation": "lrelu" if mapped else "linear",
        "weight_gain": gain,
        "bias_gain": rate if mapped else 1,
    }


def stylegan2_tree(tensors, settings):
    """Return the objects of a StyleGAN2 of StyleGAN2-ADA."""
    root = module_tree(tensors)
    synthesis = settings.get("synthesis_kwargs", settings)
    clamp = synthesis["conv_clamp"]
    for name, module in walk(root):
        last = name.rpartition(".")[2]
        if not name:
            module.class_name = "Generator"
            keys = ("z_dim", "c_dim", "w_dim", "img_resolution", "img_channels")
            module.state |= {key: settings[key] for key in keys} | {"_init_args": (), "_init_kwargs": settings}
        elif last in ("affine", "embed") or last.startswith("fc"):
            fully_connected(name, module)
        elif block := re.fullmatch(r"synthesis\.b(\d+)", name):
            first = block[1] == "4"
            module.class_name = "SynthesisBlock"
            module.state |= {"resolution": int(block[1]), "architecture": "skip", "num_torgb": 1}
            module.state |= {"num_conv": 1 if first else 2}
        elif last in ("conv0", "conv1"):
            module.class_name = "SynthesisLayer"
            module.state |= {"up": 2 if last == "conv0" else 1, "activation": "lrelu", "conv_clamp": clamp}
            module.state |= {"padding": 1, "act_gain": np.float64(GAIN), "use_noise": True}
        elif last == "torgb":
            module.class_name = "ToRGBLayer"
            module.state |= {"conv_clamp": clamp}
    return root


def stylegan2_file(path, tensors, settings, protocol=3):
    return write_pickle(path, stylegan2_tree(tensors, EasyDict(settings)), protocol)


def in_class(numbers, count):
    """Return coordinates, (B,), that draw these classes if all are drawn alike."""
    return torch.special.ndtri((numbers.double() + 0.5) / count)


def stylegan3_tree(tensors, settings, layers, first):
    """Return the objects of a StyleGAN3.

    Args:
        tensors: the generator's, by dotted name.
        settings: what it was built with.
        layers: attributes of each layer by the names of a fixture's manifest.
        first: `size`, `sampling_rate` and `bandwidth` of the input.
    """
    root = module_tree(tensors)
    described = {f"synthesis.{layer['name']}": layer for layer in layers}
    for name, module in walk(root):
        last = name.rpartition(".")[2]
        if not name:
            module.class_name = "Generator"
            module.state |= {
                key: settings[key] for key in ("z_dim", "c_dim", "w_dim", "img_resolution", "img_channels")
            }
            module.state |= {"_init_args": (), "_init_kwargs": settings}
        elif name == "synthesis":
            module.class_name = "SynthesisNetwork"
            module.state |= {"layer_names": [layer["name"] for layer in layers], "output_scale": 0.25}
            children = module.state["_modules"]
            module.state["_modules"] = OrderedDict(sorted(children.items(), key=lambda item: item[0]))
        elif name == "synthesis.input":
            module.class_name = "SynthesisInput"
            channels = module.state["_parameters"]["weight"].shape[0]
            side = np.array([first["size"]] * 2)
            module.state |= {"channels": channels, "size": side}
            module.state |= {key: np.float64(first[key]) for key in ("sampling_rate", "bandwidth")}
        elif name in described:
            layer = described[name]
            module.class_name = "SynthesisLayer"
            module.state |= {
                "is_torgb": layer["up_taps"] == layer["down_taps"] == 1,
                "in_size": np.array([layer["in_size"]] * 2),
                "out_size": np.array([layer["out_size"]] * 2),
                "conv_kernel": layer["kernel"],
                "conv_clamp": 256,
                "up_factor": layer["up"],
                "down_factor": layer["down"],
                "padding": layer["padding"],
            }
            for group in ("up_filter", "down_filter"):
                if group not in module.state["_parameters"] | module.state["_buffers"]:
                    module.state["_buffers"][group] = None
        elif last == "affine" or re.fullmatch(r"mapping\.(fc\d+|embed)", name):
            fully_connected(name, module)
    return root


def stylegan3_file(path, tensors, settings, layers, first):
    return write_pickle(path, stylegan3_tree(tensors, EasyDict(settings), layers, first))


R3GAN_CLASSES = {
    r"": "training.networks.Generator",
    r"Model": "R3GAN.Networks.Generator",
    r"Model\.MainLayers\.\d+": "R3GAN.Networks.GeneratorStage",
    r"Model\.MainLayers\.0\.Layers\.0": "R3GAN.Networks.GenerativeBasis",
    r"Model\.MainLayers\.\d+\.Layers\.0": "R3GAN.Networks.UpsampleLayer",
    r"Model\.MainLayers\.\d+\.Layers\.\d+": "R3GAN.Networks.ResidualBlock",
    r".*\.(LinearLayer\d|AggregationLayer|Layers\.[1-9]\d*\.LinearLayer)": "R3GAN.Networks.Convolution",
    r".*\.Resampler": "R3GAN.Resamplers.InterpolativeUpsamplerCUDA",
    r".*\.NonLinearity\d": "R3GAN.FusedOperators.BiasedActivationCUDA",
    r".*\.Layer": "torch.nn.modules.conv.Conv2d",
    r".*(Embedding|Linear)Layer": "torch.nn.modules.linear.Linear",
    r".*(MainLayers|Layers)": "torch.nn.modules.container.ModuleList",
}
"""Class of an object, by a pattern of its dotted name; the first pattern that fits holds."""


def r3gan_file(path, tensors, facts, early=False):
    """Write a pickle of plain classes; `early` uses the names of the publisher's early code.

    Args:
        path: the file.
        tensors: the generator's, by dotted name.
        facts: attributes of the generator.
        early: whether the packages have their old names.
    """
    added = {}

    def made(name):
        if early:
            name = name.replace("R3GAN.", "BaselineGAN.").replace("training.networks.", "training.networks_baseline.")
        module, _, short = name.rpartition(".")
        if name.startswith("torch."):
            return getattr(sys.modules[module], short)
        home = added.setdefault(module, types.ModuleType(module))
        if not hasattr(home, short):
            setattr(home, short, type(short, (), {"__module__": module, "__qualname__": short}))
        return getattr(home, short)

    def built(name, tensors):
        kind = next(kind for pattern, kind in R3GAN_CLASSES.items() if re.fullmatch(pattern, name))
        one = made(kind).__new__(made(kind))
        own = {key: value for key, value in tensors.items() if "." not in key}
        below = {}
        for key, value in tensors.items():
            child, _, rest = key.partition(".")
            if rest:
                below.setdefault(child, {})[rest] = value
        one.__dict__ |= {
            "training": False,
            "_parameters": {key: torch.nn.Parameter(value, False) for key, value in own.items() if key != "Kernel"},
            "_buffers": {key: value for key, value in own.items() if key == "Kernel"},
            "_modules": {child: built(f"{name}.{child}".lstrip("."), inner) for child, inner in below.items()},
        }
        if kind.endswith("GeneratorStage"):
            one.DataType = torch.bfloat16
        return one

    generator = built("", tensors)
    generator.__dict__ |= facts
    parents = {name[:end] for name in added for end in range(len(name)) if name[end] == "."}
    modules = added | {name: types.ModuleType(name) for name in parents - added.keys()}
    for name, module in modules.items():
        parent, _, short = name.rpartition(".")
        if parent:
            setattr(modules[parent], short, module)
    sys.modules |= modules
    try:
        optimiser = {"state": {0: {"step": torch.zeros(()), "exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 2e-4}]}
        content = {"G": generator, "D": None, "G_ema": generator, "cur_nimg": 1000, "G_opt_state": optimiser}
        path.write_bytes(pickle.dumps(content, protocol=4))
    finally:
        for name in modules:
            del sys.modules[name]
    return path
