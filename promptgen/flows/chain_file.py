"""Chains of trained flows in one file: safetensors with a JSON description inside.

The file holds the flows with the names and ranges of their conditions, how to build the generator under them, and where
they come from. It is loaded and sampled without any control model and without params.yaml.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from promptgen.conditions import Condition
from promptgen.errors import CheckpointError, DataError
from promptgen.flows.chained import ChainedGenerator
from promptgen.flows.flow import Flow, FlowConfig
from promptgen.generators.base import Generator
from promptgen.loading.own_files import DTYPES, fill_module, load_tensors, save_tensors
from promptgen.loading.published import DAMAGE


@dataclass(frozen=True)
class Chain:
    """Flows that were trained one on top of the other.

    Attributes:
        flows: the flows; the first one is the one on the generator itself.
        generator_spec: how to build the generator, as in params.yaml.
        info: where the flows come from: plain numbers, strings, lists and dicts.
    """

    flows: list[Flow]
    generator_spec: dict[str, Any]
    info: dict[str, Any]

    def on(self, generator: Generator) -> Generator:
        """Return `generator` with all flows of the chain on it."""
        for flow in self.flows:
            generator = ChainedGenerator(generator, flow)
        return generator


def save_chain(
    path: Path | str, flows: Sequence[Flow], generator_spec: Mapping[str, Any], info: Mapping[str, Any]
) -> None:
    """Write a chain to one file; equal chains make equal bytes.

    Args:
        path: the file, by custom `*.safetensors`.
        flows: the flows, the one on the generator itself first.
        generator_spec: how to build the generator.
        info: where the flows come from.

    Raises:
        DataError: `generator_spec` or `info` is not plain JSON.
        StorageError: the file cannot be written.
    """
    tensors = {f"flows.{i}.{name}": value for i, flow in enumerate(flows) for name, value in flow.state_dict().items()}
    described = [_describe(flow) for flow in flows]
    config = {"kind": "chain", "flows": described, "generator": dict(generator_spec), "info": dict(info)}
    save_tensors(path, tensors, config)


def load_chain(path: Path | str) -> Chain:
    """Read a chain.

    Raises:
        CheckpointError: the file is missing, damaged, or not a chain of this project.
    """
    tensors, config = load_tensors(path)
    if config.get("kind") != "chain":
        raise CheckpointError(f"{path} holds {config.get('kind', 'weights')}, not a chain of flows")
    try:
        for described in config["flows"]:
            _check_flow(described, tensors, path)
        flows = [_rebuild(described) for described in config["flows"]]
        chain = Chain(flows, dict(config["generator"]), dict(config["info"]))
    except (*DAMAGE, DataError) as error:
        raise CheckpointError(f"the config in {path} does not describe a chain: write the file again") from error
    fill_module(nn.ModuleList(flows), {name.removeprefix("flows."): value for name, value in tensors.items()}, path)
    return chain


def _describe(flow: Flow) -> dict[str, Any]:
    """Return what `_rebuild` needs to make a flow of the same shape."""
    dtype = str(next(flow.parameters()).dtype).removeprefix("torch.")
    condition = [[name, *ends] for name, ends in flow.condition.ranges.items()]  # in order, which JSON objects lose
    return {"dim": flow.dim, "condition": condition, "dtype": dtype, "config": flow.config.model_dump()}


def _check_flow(described: Mapping[str, Any], tensors: Mapping[str, Tensor], path: Path | str) -> None:
    """Refuse a flow of more numbers than its file holds, before it is built: a file of a kilobyte may describe any.

    Raises:
        CheckpointError: a rotation and the outer layers of a coupling in each block would already be more.
    """
    config = FlowConfig.model_validate(described["config"])
    sizes = config.parts or (int(described["dim"]),)
    needed = config.blocks * sum(size * (size + config.hidden) for size in sizes)
    held = sum(value.numel() for value in tensors.values())
    if min(sizes) > 1 and needed > held:
        raise CheckpointError(
            f"the weights in {path} do not fit what its config describes: {needed} numbers, it has {held}"
        )


def _rebuild(described: Mapping[str, Any]) -> Flow:
    """Return a flow of the described shape, whose numbers are still to be filled in."""
    config, dtype = FlowConfig.model_validate(described["config"]), DTYPES[described["dtype"]]
    condition = Condition({str(name): (float(low), float(high)) for name, low, high in described["condition"]})
    return Flow(int(described["dim"]), config, condition, dtype=dtype)
