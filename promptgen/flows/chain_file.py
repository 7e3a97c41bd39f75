"""Chains of trained flows in one file: safetensors with a JSON description inside.

The file holds the flows, the names and ranges of their conditions, the specification of the generator under them, and
their origin. Loading and sampling it needs no control model and no params.yaml.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
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
    """Flows that were trained one on top of another.

    Attributes:
        flows: the flows, starting with the one on the generator itself.
        generator_spec: specification of the generator, as in params.yaml.
        info: origin of the flows, as plain numbers, strings, lists and dicts.
    """

    flows: list[Flow]
    generator_spec: dict[str, Any]
    info: dict[str, Any]

    def on(self, generator: Generator) -> Generator:
        """Return `generator` with all flows of the chain on top."""
        for flow in self.flows:
            generator = ChainedGenerator(generator, flow)
        return generator


def save_chain(
    path: Path | str, flows: Sequence[Flow], generator_spec: Mapping[str, Any], info: Mapping[str, Any]
) -> None:
    """Write a chain to one file; equal chains give identical bytes.

    Args:
        path: the file, conventionally `*.safetensors`.
        flows: the flows, starting with the one on the generator itself.
        generator_spec: specification of the generator.
        info: origin of the flows.

    Raises:
        DataError: `generator_spec` or `info` is not plain JSON.
        StorageError: the file cannot be written.
    """
    tensors = {f"flows.{i}.{name}": value for i, flow in enumerate(flows) for name, value in flow.state_dict().items()}
    described = [_describe(flow) for flow in flows]
    config = {"kind": "chain", "flows": described, "generator": dict(generator_spec), "info": dict(info)}
    save_tensors(path, tensors, config)


def load_chain(path: Path | str) -> Chain:
    """Read a chain that `save_chain` wrote.

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
    """Return the description from which `_rebuild` makes a flow of the same shape."""
    dtype = str(next(flow.parameters()).dtype).removeprefix("torch.")
    condition = [[name, *ends] for name, ends in flow.condition.ranges.items()]  # a list, since its order matters
    described = {"dim": flow.dim, "condition": condition, "dtype": dtype, "config": flow.config.model_dump()}
    described |= {"held": flow.held} if flow.held else {}
    return described if flow.directions is None else {**described, "rank": flow.directions.shape[1]}


def _check_flow(described: Mapping[str, Any], tensors: Mapping[str, Tensor], path: Path | str) -> None:
    """Refuse, before building it, a flow with more numbers than its file holds: a tiny file can describe a huge one.

    Raises:
        CheckpointError: the directions, rotations and coupling networks would already need more numbers.
    """
    config = FlowConfig.model_validate(described["config"])
    dim = int(described["dim"]) - int(described.get("held", 0))
    sizes = config.parts or (int(described.get("rank", dim)),)
    needed = config.blocks * sum(size * (size + config.hidden) for size in sizes)
    needed += dim * int(described.get("rank", 0))
    held = sum(value.numel() for value in tensors.values())
    if min(sizes) > 1 and needed > held:
        raise CheckpointError(
            f"the weights in {path} do not fit its config, which needs {needed} numbers: the file has {held}"
        )


def _rebuild(described: Mapping[str, Any]) -> Flow:
    """Return a flow of the described shape, before its numbers are loaded."""
    config, dtype = FlowConfig.model_validate(described["config"]), DTYPES[described["dtype"]]
    condition = Condition({str(name): (float(low), float(high)) for name, low, high in described["condition"]})
    dim = int(described["dim"])
    directions = torch.eye(dim, int(described["rank"])) if "rank" in described else None
    return Flow(dim, config, condition, dtype=dtype, directions=directions, held=int(described.get("held", 0)))
